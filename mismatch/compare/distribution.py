"""What two traces say of the whole distribution, where both captured top-k or entropy.

Of the distribution at a position each side gives its K likeliest tokens. The tokens that both gave,
each by itself, and all others in one bucket make a partition of the vocabulary; a divergence over a
partition never exceeds the one over the vocabulary (data processing inequality: Cover & Thomas,
2006, chapter 2), so every `_lb` is a lower bound, and named so.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mismatch import store
from mismatch.compare import stats
from mismatch.compare.align import Tokens
from mismatch.compare.stats import Clusters, Scale, Statistic

#: Mass that float32 probabilities cannot tell from none, when it is left over as 1 - sum.
TAIL = 1e-6
#: Positions at a time: K x K comparisons each.
CHUNK = 1 << 14


@dataclass(frozen=True, slots=True)
class Top:
    """(n, K) ids (-1: none) and log-probabilities (nats) of a trace's n scored positions."""

    ids: np.ndarray
    logprobs: np.ndarray


def read_top(folder: Path, tokens: Tokens) -> Top | None:
    """topk.parquet laid on the trace's scored positions; None where it was not captured."""
    path = folder / "topk.parquet"
    if not path.is_file():
        return None
    table = store.read_table(path)
    column = {n: table[n].to_numpy() for n in table.column_names}
    where = np.flatnonzero(tokens.scored)
    key = tokens.sequence[where].astype(np.int64) << 32 | tokens.position[where]
    row = np.searchsorted(key, column["sequence_id"].astype(np.int64) << 32 | column["position"])
    depth = int(column["rank"].max(initial=0)) + 1
    ids = np.full((len(where), depth), -1, np.int64)
    logprobs = np.full((len(where), depth), -np.inf)
    ids[row, column["rank"]] = column["token_id"]
    logprobs[row, column["rank"]] = column["logprob"]
    return Top(ids, logprobs)


def columns(left: Top, right: Top) -> dict[str, np.ndarray]:
    """key -> (n,) values, one for each scored position."""
    parts = [_columns(*pair) for pair in chunks(left, right)]
    return {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}


def chunks(left: Top, right: Top) -> Iterator[tuple[Top, Top]]:
    """CHUNK positions of both at a time; one chunk of none where there is no position."""
    for k in range(0, max(1, len(left.ids)), CHUNK):
        at = slice(k, k + CHUNK)
        yield Top(left.ids[at], left.logprobs[at]), Top(right.ids[at], right.logprobs[at])


def _columns(left: Top, right: Top) -> dict[str, np.ndarray]:
    same = (left.ids[:, :, None] == right.ids[:, None, :]) & (left.ids[:, :, None] >= 0)
    shared = same.any(axis=2)
    p = np.where(shared, np.exp(left.logprobs), 0.0)
    q = np.where(same, np.exp(right.logprobs)[:, None, :], 0.0).sum(axis=2)
    p, q = _with_rest(p), _with_rest(q)
    middle = (p + q) / 2
    return {
        "top1_flip_rate": _flips(left.ids[:, 0], right.ids[:, 0]),
        "kl_infer_train_lb": _kl(q, p),
        "kl_train_infer_lb": _kl(p, q),
        "js_lb": (_kl(p, middle) + _kl(q, middle)) / 2,
        "tv_lb": np.abs(p - q).sum(axis=1) / 2,
    }


def _flips(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n,) 1 where the likeliest tokens differ, NaN where a side gave none."""
    return np.where((left < 0) | (right < 0), np.nan, left != right)


def _with_rest(p: np.ndarray) -> np.ndarray:
    """(n, K) -> (n, K + 1): what is left of the mass, at least what rounding could hide."""
    return np.concatenate([p, np.maximum(1 - p.sum(axis=1, keepdims=True), TAIL)], axis=1)


def _kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Sum of p ln(p / q) - p + q over the partition: 0 where both are 0, never below 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        log = np.where(p > 0, np.log(p / q), 0.0)
    return np.asarray((p * log - p + q).sum(axis=1))


#: No column has a value below 0, nor has its mean; a share has none above 1.
SIZE, SHARE = Scale(least=0.0), Scale(least=0.0, most=1.0)
SHARES = ("top1_flip_rate", "tv_lb", "kept_mass_train", "kept_mass_infer")


def measure_distribution(
    sequence: np.ndarray,
    found: Mapping[str, np.ndarray],
    *,
    seed: int,
    resamples: int = 2000,
    events: Collection[str] = (),
) -> dict[str, dict[str, float | None]]:
    """The mean of each column over its finite tokens, with its interval over sequences (nats; top1
    and tv are shares). events: shares of which none seen does not say none there.
    """
    rows = np.unique(sequence)
    wanted, unseen = {}, {}
    for key, column in found.items():
        finite = np.isfinite(column)
        if finite.any():
            clusters = Clusters(sequence[finite], rows)
            wanted[key] = Statistic(clusters.means([column[finite]]), stats.MEAN)
            unseen[key] = stats.unseen(clusters.lengths)
    estimates = stats.bootstrap_t(wanted, seed=seed, resamples=resamples)
    for key in (k for k in events if k in estimates):
        if estimates[key].value == estimates[key].high == 0:
            estimates[key] = estimates[key]._replace(high=unseen[key])
    scale = {key: SHARE if key in (*SHARES, *events) else SIZE for key in estimates}
    return {key: stats.as_json(scale[key].of(e, len(sequence))) for key, e in estimates.items()}
