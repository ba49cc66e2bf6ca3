"""How long two sides go on with the same tokens when each takes its likeliest one.

Two greedy runs from one prompt share their prefix up to the first token in which they differ. So
where the scored tokens are a greedy run of one side (top_k=1), the other side's own run, which
needs not be made, leaves it at the first token that is not the other side's likeliest: there its
context was still the same. That holds as far as the replay has the arithmetic of a free run: a
decode path has, but for who shares its batch; a trainer's score and a prefill are the nearest
thing there is. On any other text it is the first token at which the two likeliest differ, and no
free run's fork.

How many go on is the survival curve of Kaplan & Meier (1958): a sequence that ends first says that
it agreed so far, and no more. Its variance is Greenwood's, its interval the one of log(-log S)
(Kalbfleisch & Prentice 2002, section 1.4), pointwise; that of the median holds the tokens at which
the curve's interval holds one half (Brookmeyer & Crowley 1982).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from mismatch.compare.distribution import Top
from mismatch.compare.stats import TAIL, Estimate, as_json, begins
from mismatch.glossary import MIN_SEQUENCES

#: Lengths of an octave at which agreement is told.
STEPS = 4


@dataclass(frozen=True, slots=True)
class Runs:
    """Of S sequences: tokens, (S,) up to the one at which it forked, counted from 1, else all that
    could be judged. forked: (S,) bool. tied: (S,) tokens before it whose likeliest is not alone.
    """

    tokens: np.ndarray
    forked: np.ndarray
    tied: np.ndarray


def runs_of(sequence: np.ndarray, sides: Sequence[Top], drawn: np.ndarray | None) -> Runs:
    """(n,) sorted sequence ids and the likeliest tokens of n scored positions -> their forks.

    drawn: (n,) ids of a greedy run, which each of `sides` replays; None: two sides, and their
    likeliest are held against each other. Tokens of equal log-probability are all likeliest: a
    sampler breaks such a tie by its own rule. A position where a side gave none ends its sequence.
    """
    given = np.logical_and.reduce(
        [(side.ids[:, 0] >= 0) & np.isfinite(side.logprobs[:, 0]) for side in sides]
    )
    agree = _goes_on(sides, drawn)
    best = [_likeliest(side) for side in sides]
    tied = np.logical_or.reduce([is_best.sum(axis=1) > 1 for is_best in best])
    starts = begins(sequence)
    ends = np.append(starts, len(sequence))[1:]
    stops = np.append(np.flatnonzero(~(given & agree)), len(sequence))
    stop = np.minimum(stops[np.searchsorted(stops, starts)], ends)
    inside = stop < ends
    at = np.minimum(stop, len(sequence) - 1)
    forked = inside & given[at]
    tokens = stop - starts + forked
    ties = np.append(0, np.cumsum(tied & given))
    judged = tokens > 0
    return Runs(tokens[judged], forked[judged], (ties[stop] - ties[starts])[judged])


def _goes_on(sides: Sequence[Top], drawn: np.ndarray | None) -> np.ndarray:
    """(n,) whether a side's run may take the same token here."""
    if drawn is not None:
        hits = [((s.ids == drawn[:, None]) & _likeliest(s)).any(axis=1) for s in sides]
        return np.asarray(np.logical_and.reduce(hits))
    one, other = sides
    found = np.zeros(len(one.ids), bool)
    for rank, is_best in enumerate(_likeliest(other).T):
        same = (one.ids == other.ids[:, rank, None]) & _likeliest(one)
        found |= is_best & same.any(axis=1)
    return found


def _likeliest(side: Top) -> np.ndarray:
    """(n, K) which of a position's tokens no other exceeds."""
    return np.asarray((side.ids >= 0) & (side.logprobs == side.logprobs[:, :1]))


# ---------------------------------------------------------------- survival


@dataclass(frozen=True, slots=True)
class Curve:
    """share, low, high: (T,) of sequences that agree on their first 1..T tokens; T the longest.

    known: (T,) sequences that had forked by then, or were still followed.
    """

    share: np.ndarray
    low: np.ndarray
    high: np.ndarray
    known: np.ndarray


def curve(runs: Runs) -> Curve:
    """The survival curve of at least one sequence, with its 95% interval at each token."""
    longest = int(runs.tokens.max())
    ended = np.bincount(runs.tokens, minlength=longest + 1)[1:]
    forks = np.bincount(runs.tokens[runs.forked], minlength=longest + 1)[1:]
    followed = len(runs.tokens) - np.cumsum(ended) + ended
    share = np.cumprod(1 - forks / followed)
    known = followed - forks + np.cumsum(forks)
    with np.errstate(divide="ignore", invalid="ignore"):
        greenwood = np.cumsum(forks / (followed * (followed - forks)))
        reach = -ndtri(TAIL) * np.sqrt(greenwood) / -np.log(share)
        low, high = share ** np.exp(reach), share ** np.exp(-reach)
    # None forked so far: the bound of an event that none of those followed showed.
    low = np.where(share == 1, TAIL ** (1 / followed), low)
    high = np.where(share == 1, 1.0, high)
    # None left: no more agree than did one token before.
    gone = share == 0
    before = high[~gone][-1] if not gone.all() else 1 - TAIL ** (1 / len(runs.tokens))
    return Curve(share, np.where(gone, 0.0, low), np.where(gone, before, high), known)


def median(found: Curve) -> Estimate:
    """The token by which half have forked; NaN where half have not, infinite where its upper bound
    is not reached."""
    at = [_first(bound <= 0.5) for bound in (found.share, found.low, found.high)]
    value = at[0] if np.isfinite(at[0]) else np.nan
    return Estimate(value, at[1], at[2]) if found.known[0] >= MIN_SEQUENCES else Estimate(value)


def _first(holds: np.ndarray) -> float:
    return float(np.argmax(holds)) + 1 if holds.any() else np.inf


def agreement(found: Curve) -> list[dict[str, Any]]:
    """The share that agrees on its first tokens, STEPS lengths an octave; an interval where enough
    sequences are known."""
    octaves = np.arange(STEPS * np.log2(len(found.share)) + 1) / STEPS
    lengths = np.unique(np.round(2**octaves).astype(int))
    return [_agreement(found, int(n)) for n in lengths if n <= len(found.share)]


def _agreement(found: Curve, length: int) -> dict[str, Any]:
    share, low, high, known = (
        float(column[length - 1]) for column in (found.share, found.low, found.high, found.known)
    )
    share_of = Estimate(share, low, high) if known >= MIN_SEQUENCES else Estimate(share)
    return {"length": length, "sequences": int(known), "share": as_json(share_of)}


def forks(runs: Runs, *, greedy: bool | None) -> dict[str, Any]:
    """What summary.json says of them; no number where no token could be judged.

    greedy: whether the tokens are a greedy run of one of the sides; None: nothing says.
    """
    at = runs.tokens[runs.forked]
    found = curve(runs) if len(runs.tokens) else None
    return {
        "greedy": greedy,
        "sequences": len(runs.tokens),
        "forked": len(at),
        "first": int(at.min()) if len(at) else None,
        "tied": int(runs.tied.sum()),
        "forked_or_tied": int(np.count_nonzero(runs.forked | (runs.tied > 0))),
        "median": as_json(median(found) if found else Estimate(np.nan)),
        "agreement": agreement(found) if found else [],
    }
