"""What retokenised sequences do to a trainer: rates of drift, and the weight of inserted tokens.

A token is *inserted* when the trainer trains on it and the policy did not draw it there.

The weight of a token in the gradient is w = 1 - p. The gradient of ln p(token) in the logits is
onehot - p, whose 1-norm is 2(1 - p): w is exactly half of it, and needs the token's own
log-probability alone. Its 2-norm lies between w and sqrt(2)·w (Σ_{j other} p_j² <= (1 - p)²), which
bounds the share in that norm. All tokens are taken with the same advantage.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.stats import binomtest

from mismatch.compare import stats
from mismatch.compare.stats import Estimate, Mean, Scale, Statistic, as_json
from mismatch.glossary import MIN_SEQUENCES

RESAMPLES = 2000
Json = dict[str, float | None]


def fraction(count: int, of: int) -> Json:
    """A share of independent rollouts, with Wilson's (1927) 95% interval."""
    if of < MIN_SEQUENCES:
        return as_json(Estimate(count / of if of else math.nan))
    low, high = binomtest(count, of).proportion_ci(0.95, method="wilson")
    return as_json(Estimate(count / of, float(low), float(high)))


def ratios(
    pairs: Mapping[str, tuple[np.ndarray, np.ndarray]],
    seed: int,
    *,
    per: float = 1.0,
    most: float = math.inf,
) -> dict[str, Json]:
    """Σ hits / Σ weights over sequences, each (S,), with its interval over sequences.

    per: so many units of weight are counted together (1000: hits per 1,000 tokens). most: what the
    ratio cannot exceed (1 where hits are a part of the weights). Where nothing was hit, the upper
    bound is that of an event never seen.
    """
    wanted = {k: (h.astype(float), w.astype(float)) for k, (h, w) in pairs.items()}
    made = {
        k: Statistic((Mean(h, w),), stats.MEAN) for k, (h, w) in wanted.items() if np.sum(w) > 0
    }
    found = stats.bootstrap_t(made, seed=seed, resamples=RESAMPLES)
    for key in made:
        hits, weights = wanted[key]
        if not hits.any() and made[key].has_interval():
            found[key] = Estimate(0.0, 0.0, stats.unseen(weights[weights > 0]))
    scale = Scale(lambda x, _: per * x, least=0.0, most=most)
    return {k: as_json(scale.of(found.get(k, Estimate(math.nan)), 0)) for k in pairs}


def values(sequence: np.ndarray, logprob: np.ndarray) -> dict[str, Any]:
    """Log-probabilities (n,) of tokens sorted by sequence (n,): how many, and their quantiles."""
    if not len(logprob):
        return {"tokens": 0, "median": as_json(Estimate(math.nan)), "p01": None, "least": None}
    starts = stats.begins(sequence)
    median, low = stats.quantiles(logprob, starts, (0.5, 0.01))
    return {
        "tokens": len(logprob),
        "median": as_json(median),
        "p01": as_json(low)["value"],
        "least": float(logprob.min()),
    }


def weights(
    sequence: np.ndarray, logprob: np.ndarray, inserted: np.ndarray, seed: int
) -> dict[str, Any]:
    """Shares of a batch that the inserted tokens carry.

    sequence, logprob, inserted: (n,) over the trained tokens of a batch, sorted by sequence, all
    finite. tokens: share of the trained tokens. gradient: of Σ (1 - p). loss: of Σ -ln p.
    gradient_norm2: the least and the most that the share can be in the 2-norm.
    """
    numbers, at = np.unique(sequence, return_inverse=True)
    sums = {
        "tokens": np.ones(len(logprob)),
        "gradient": -np.expm1(np.minimum(logprob, 0.0)),
        "loss": -np.minimum(logprob, 0.0),
    }

    def by_sequence(x: np.ndarray) -> np.ndarray:
        return np.bincount(at, x, minlength=len(numbers))

    pairs = {k: (by_sequence(w * inserted), by_sequence(w)) for k, w in sums.items()}
    found: dict[str, Any] = dict(ratios(pairs, seed, most=1.0))
    found["gradient_norm2"] = _in_norm2(found["gradient"]["value"])
    return found


def _in_norm2(share: float | None) -> list[float] | None:
    """Bounds of a share when each weight is known up to a factor between 1 and sqrt 2."""
    if share is None:
        return None
    root = math.sqrt(2)
    return [share / (share + root * (1 - share)), root * share / (root * share + 1 - share)]
