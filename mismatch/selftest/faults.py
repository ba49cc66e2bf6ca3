"""Faults that are put into the values of a clean pair, and what must be said of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mismatch.selftest.exhibit import Exhibit, Rows

Damage = Callable[[Exhibit], Exhibit]


@dataclass(frozen=True)
class Fault:
    """names: the words of the ladder that name it; empty where it need only be flagged.

    rung: the one rung that can see it, for a fault too small for the values: where the ladder says
    that it could not climb it, the fault was not checked, which is no miss.
    """

    title: str
    names: tuple[str, ...] = ()
    rung: str = ""


def _response(exhibit: Exhibit, change: Callable[[np.ndarray], np.ndarray]) -> Exhibit:
    """The right side's scored values of each sequence, changed."""
    return replace(exhibit, right=_changed(exhibit.right, exhibit.scored, change))


def _changed(
    rows: Rows, scored: Rows, change: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, ...]:
    out = []
    for row, mask in zip(rows, scored, strict=True):
        new = row.copy()
        new[mask] = change(row[mask])
        out.append(new)
    return tuple(out)


def shift(e: Exhibit) -> Exhibit:
    """Logits held against labels one to the side, on one side."""
    return _response(e, lambda values: np.roll(values, 1))


def mask(e: Exhibit) -> Exhibit:
    """The last three prompt tokens are scored; the rollout has a placeholder there."""
    scored, right = [], []
    for m, row in zip(e.scored, e.right, strict=True):
        first = int(np.argmax(m))
        more, filled = m.copy(), row.copy()
        more[max(1, first - 3) : first] = True
        filled[max(1, first - 3) : first] = 0.0
        scored.append(more)
        right.append(filled)
    return replace(e, scored=tuple(scored), right=tuple(right))


def padding(e: Exhibit) -> Exhibit:
    """The padding behind each response is scored; the rollout has a placeholder there."""
    scored, right = [], []
    for m, row in zip(e.scored, e.right, strict=True):
        end = len(m) - int(np.argmax(m[::-1]))
        more, filled = m.copy(), row.copy()
        more[end:], filled[end:] = True, 0.0
        scored.append(more)
        right.append(filled)
    return replace(e, scored=tuple(scored), right=tuple(right))


def divided(e: Exhibit) -> Exhibit:
    """Log-probabilities divided by T = 0.7, not logits."""
    return _response(e, lambda values: values / np.float32(0.7))


def swapped(e: Exhibit) -> Exhibit:
    """The values of two sequences change places, cut to the length that is there."""
    lengths = [int(m.sum()) for m in e.scored]
    one, other = np.argsort(lengths)[-2:]
    right = [row.copy() for row in e.right]
    n = min(lengths[one], lengths[other])
    places = [np.flatnonzero(e.scored[k])[:n] for k in (one, other)]
    right[one][places[0]] = e.right[other][places[1]]
    right[other][places[1]] = e.right[one][places[0]]
    return replace(e, right=tuple(right))


def duplicated(e: Exhibit) -> Exhibit:
    """A quarter of the sequences are there twice."""
    rows = list(range(len(e)))
    longest = sorted(rows, key=lambda k: -int(e.scored[k].sum()))
    return e.only(rows + longest[: max(1, len(e) // 4)])


def not_a_number(e: Exhibit) -> Exhibit:
    """One value is NaN, as an overflow leaves it."""
    right = [row.copy() for row in e.right]
    right[0][np.flatnonzero(e.scored[0])[-1]] = np.nan
    return replace(e, right=tuple(right))


def clamped(e: Exhibit) -> Exhibit:
    """Values cut at -3 before they were recorded."""
    return _response(e, lambda values: np.maximum(values, np.float32(-3)))


def constant(e: Exhibit) -> Exhibit:
    """A column that was never filled."""
    return _response(e, lambda values: np.full_like(values, -1.0))


def rounded(e: Exhibit) -> Exhibit:
    """Log-probabilities that went through bf16."""
    return _response(e, lambda values: (values.view(np.uint32) & 0xFFFF0000).view(np.float32))


#: In the order of the table.
IN_VALUES: dict[Fault, Damage] = {
    Fault("shift by one", ("shift",)): shift,
    Fault("mask contamination", ("mask", "edges")): mask,
    Fault("padding counted", ("padding",)): padding,
    Fault("log-probabilities divided by T", ("divided",)): divided,
    Fault("rows of a sequence swapped"): swapped,
    Fault("duplicated sequences"): duplicated,
    Fault("NaN"): not_a_number,
    Fault("clamped values"): clamped,
    Fault("all values equal"): constant,
    Fault("log-probabilities rounded to bf16"): rounded,
}
