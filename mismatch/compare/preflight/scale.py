"""Is one side the other at another temperature, or divided by it? Read off the values alone."""

from __future__ import annotations

import numpy as np

from mismatch.compare.distribution import Top, chunks
from mismatch.compare.preflight.evidence import Evidence

#: How far from 1 a scale must be before it is named. Rounding alone stays within 0.005.
APART = 0.03
#: Tokens that are neither certain nor lost in the tail: between them the scale shows.
MANY = 32


def divided_by(e: Evidence) -> float | None:
    """The number that left's values, divided by it, are right's; None where they are not.

    left / right is then one constant, to rounding, whatever the token.
    """
    keep = e.finite & (e.left.logprob < -0.05) & (e.right.logprob < -0.05)
    if keep.sum() < MANY:
        return None
    quotient = e.left.logprob[keep].astype(np.float64) / e.right.logprob[keep]
    low, middle, high = np.quantile(quotient, (0.1, 0.5, 0.9))
    constant = (high - low) / middle < 0.1
    return float(middle) if constant and abs(middle - 1) > APART else None


def temperature(e: Evidence) -> tuple[float, str] | None:
    """(T, how it was found) if right is left at temperature T; None where T = 1 does as well."""
    return _from_top(e) or _from_odds(e)


def _from_top(e: Evidence) -> tuple[float, str] | None:
    """Log-probabilities of two tokens at a position differ by their logits' difference over T."""
    one, other = e.left.top, e.right.top
    if one is None or other is None:
        return None
    parts = [_differences(*pair) for pair in chunks(one, other)]
    x, y = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _fitted(x, y, "from top-k")


def _differences(one: Top, other: Top) -> tuple[np.ndarray, np.ndarray]:
    """Of the tokens that both gave at a position, how far each is from the first, on both sides."""
    same = one.ids[:, :, None] == other.ids[:, None, :]
    same &= (one.ids >= 0)[:, :, None]
    at, i, j = np.nonzero(same)
    first = np.flatnonzero(np.diff(at, prepend=-1))
    base = np.repeat(first, np.diff(np.append(first, len(at))))
    x = one.logprobs[at, i] - one.logprobs[at[base], i[base]]
    y = other.logprobs[at, j] - other.logprobs[at[base], j[base]]
    keep = np.isfinite(x) & np.isfinite(y) & (np.abs(x) > 0.1)
    return x[keep], y[keep]


def _from_odds(e: Evidence) -> tuple[float, str] | None:
    """A token's log-odds scale as 1/T where one other token competes with it, nearly so else."""
    keep = e.finite & (e.left.logprob < -1e-3) & (e.right.logprob < -1e-3)
    x, y = (_log_odds(side.logprob[keep].astype(np.float64)) for side in e.sides)
    return _fitted(x, y, "from the odds of the tokens")


def _log_odds(logprob: np.ndarray) -> np.ndarray:
    return np.asarray(logprob - np.log(-np.expm1(logprob)))


def _fitted(x: np.ndarray, y: np.ndarray, how: str) -> tuple[float, str] | None:
    """x = T y through the origin, by the ratio of spreads, so that noise in both tilts nothing."""
    if len(x) < MANY:
        return None
    size = float(np.sqrt(np.mean(x**2) / np.mean(y**2)))
    before, after = np.mean((x - y) ** 2), np.mean((x - size * y) ** 2)
    explained = 1 - after / before if before > 0 else 0.0
    if abs(np.log(size)) < APART or explained < EXPLAINED or np.corrcoef(x, y)[0, 1] < ALIKE:
        return None
    return size, f"{how}; it explains {explained:.0%} of d², {len(x)} values"


#: Of the squared distance, what one temperature must explain. Other weights are sharper or flatter
#: too, but explain little by it.
EXPLAINED = 0.5
#: How far both sides must agree on which tokens are likely: a column of other numbers that spread
#: less also comes nearer when it is stretched.
ALIKE = 0.7
