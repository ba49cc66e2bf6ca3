"""The rungs in order, and which finding explains which."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from mismatch.compare.preflight import kernels, routing, sampling, shape, tokens, weights
from mismatch.compare.preflight.evidence import Evidence, Row, unchecked


class Rung(Protocol):
    """A module: its name, and what it says where nothing is wrong."""

    RUNG: str

    def calm(self, e: Evidence) -> Row: ...


RUNGS: tuple[Rung, ...] = (weights, tokens, sampling, routing, kernels, shape)

Check = Callable[[Evidence], Iterator[Row]]

#: Mistakes of the record, which distort every other figure: the first that is found explains them.
RECORD: tuple[Check, ...] = (
    sampling.constant,
    sampling.clamped,
    tokens.filled_in,
    tokens.shifted,
    tokens.rows_swapped,
    tokens.duplicated,
    tokens.at_the_edges,
)
#: What the engines said of themselves; each is told.
STATED: tuple[Check, ...] = (
    weights.differ, sampling.stated, sampling.leaked, routing.apart, kernels.cache,
)  # fmt: skip
#: What the values show of the distributions they are of, the exact signs before the broad ones.
VALUES: tuple[Check, ...] = (
    sampling.rescaled,
    kernels.rounded,
    sampling.surprise,
    sampling.mean_ratio,
    weights.confident,
    kernels.too_far,
)
#: Rungs that pass by what the values show.
OF_VALUES: tuple[Rung, ...] = (tokens, sampling, kernels)


def climb(e: Evidence) -> list[Row]:
    """One row a rung, L0 first; more where it failed in several ways.

    A pair of which one fails is not comparable as numerics. What a failure explains is not judged
    again: a shift makes stale weights out of any pair.
    """
    found = _first(RECORD, e)
    found += [row for check in STATED for row in check(e)]
    found += [] if found else _first(VALUES, e)
    return [row for rung in RUNGS for row in _rows(rung, e, found)]


def _first(checks: tuple[Check, ...], e: Evidence) -> list[Row]:
    return next((rows for check in checks if (rows := list(check(e)))), [])


def _rows(rung: Rung, e: Evidence, found: list[Row]) -> list[Row]:
    own = [row for row in found if row["rung"] == rung.RUNG]
    if own:
        return own
    row: Row = rung.calm(e)
    if rung not in OF_VALUES:
        return [row]
    if not e.finite.any():
        return [unchecked(row["rung"], "no token is scored and finite on both sides")]
    if found:
        first = found[0]
        return [unchecked(row["rung"], f"not judged: {first['rung']} failed ({first['fault']})")]
    return [row]
