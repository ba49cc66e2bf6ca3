"""What each sequence of a pair adds up to, and which of them are worst."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import numpy as np

from mismatch import store


@dataclass(frozen=True, slots=True)
class Tokens:
    """A comparison's tokens.parquet as arrays of one length, sorted by sequence and position."""

    sequence: np.ndarray
    position: np.ndarray
    token_id: np.ndarray
    left: np.ndarray
    right: np.ndarray
    d: np.ndarray

    def only(self, chosen: np.ndarray) -> Tokens:
        """Those where the mask says so."""
        return Tokens(*(getattr(self, f.name)[chosen] for f in fields(self)))


def read_tokens(path: Path) -> Tokens | None:
    """None where the comparison lies outside this folder."""
    if not path.is_file():
        return None
    table = store.read_table(path)
    names = ("sequence_id", "position", "token_id", "lp_train", "lp_infer", "d")
    columns = [table[name].to_numpy() for name in names]
    order = columns[0].astype(np.int64) << 32 | columns[1].astype(np.int64)
    if np.all(order[1:] >= order[:-1]):
        return Tokens(*columns)
    by = np.argsort(order, kind="stable")
    return Tokens(*(column[by] for column in columns))


@dataclass(frozen=True)
class Sequences:
    """(s,) arrays. start, stop: rows of the tokens. total: D, the sum of the finite d, and mean the
    mean of their |d| (nats; NaN where none is). largest: max |d|, infinite where a value is not
    finite. lost: how many are not. worst: row of the largest.
    """

    number: np.ndarray
    start: np.ndarray
    stop: np.ndarray
    total: np.ndarray
    mean: np.ndarray
    largest: np.ndarray
    lost: np.ndarray
    worst: np.ndarray

    @cached_property
    def finite(self) -> np.ndarray:
        """(s,) tokens that are in the metrics."""
        return np.asarray(self.stop - self.start - self.lost)

    @cached_property
    def order(self) -> np.ndarray:
        """The worst first: those with values that are not finite, then by max |d|."""
        return np.argsort(-self.largest, kind="stable")


def sequences_of(tokens: Tokens) -> Sequences:
    n = len(tokens.d)
    start = np.flatnonzero(np.diff(tokens.sequence, prepend=tokens.sequence[:1] - 1))
    stop = np.append(start[1:], n)[: len(start)]
    if not n:
        none = np.zeros(0)
        return Sequences(none, start, start, none, none, none, start, start)
    finite = np.isfinite(tokens.d)
    size = np.abs(tokens.d)
    size[~finite] = 0.0
    lost = np.add.reduceat(~finite, start, dtype=np.int64)
    kept = stop - start - lost
    mean = np.add.reduceat(size, start, dtype=np.float64) / np.where(kept, kept, np.nan)
    total = np.add.reduceat(np.where(finite, tokens.d, 0.0), start, dtype=np.float64)
    total[kept == 0] = np.nan  # no evidence, and not 0
    size[~finite] = np.inf
    largest = np.maximum.reduceat(size, start)
    peaks = np.flatnonzero(size == np.repeat(largest, stop - start))
    worst = peaks[np.searchsorted(peaks, start)]
    return Sequences(tokens.sequence[start], start, stop, total, mean, largest, lost, worst)
