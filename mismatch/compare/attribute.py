"""From "they differ" to "this knob owns 71% of it": the share of each knob in a gap.

The corners between two ends replay the same ids. On a token, let v(S) be the log-probability at the
corner where the knobs in S stand at their right value. Then d = v({}) - v(all) telescopes along
every order of the knobs, and the Shapley value (Shapley 1953) of a knob is its step averaged over
the orders:

    phi_k = sum over S without k of |S|! (n - |S| - 1)! / n! (v(S) - v(S + k)),   sum_k phi_k = d

at every token. share_k = <phi_k, d> / <d, d> over the tokens: the shares sum to 1, and one of them
may be negative or above 1. With too many knobs for all corners there is one order only, and phi_k
is the step along it (method "path").
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from mismatch.compare import stats
from mismatch.compare.metrics import Aligned, Tokens
from mismatch.compare.stats import Clusters, Statistic


@dataclass(frozen=True, slots=True)
class Corners:
    """Log-probabilities of the same n tokens at each corner.

    knobs: in the order of the bits. values: bits -> (n,) float64 nats. sequence: (n,) sorted ids.
    """

    knobs: tuple[str, ...]
    values: Mapping[str, np.ndarray]
    sequence: np.ndarray

    @property
    def all_corners(self) -> bool:
        return len(self.values) == 1 << len(self.knobs)


def shapley(corners: Corners) -> np.ndarray:
    """(knobs, n) effects that sum to d at every token; exactly 0 where a knob changes no bit."""
    n = len(corners.knobs)
    effects = []
    for k in range(n):
        steps = [b for b in corners.values if b[k] == "0" and _toggled(b, k) in corners.values]
        if not corners.all_corners:
            steps = ["1" * k + "0" * (n - k)]
        effect = np.zeros(len(corners.sequence))
        for b in steps:
            weight = _weight(b.count("1"), n) if corners.all_corners else 1.0
            effect += weight * (corners.values[b] - corners.values[_toggled(b, k)])
        effects.append(effect)
    return np.array(effects)


def _toggled(corner: str, k: int) -> str:
    return corner[:k] + "1" + corner[k + 1 :]


def _weight(others: int, n: int) -> float:
    """|S|! (n - |S| - 1)! / n!, for |S| = others."""
    return math.factorial(others) * math.factorial(n - others - 1) / math.factorial(n)


def attribute(corners: Corners, *, seed: int = 0, resamples: int = 2000) -> dict[str, Any]:
    """Shares with intervals, each knob alone, its interaction, and which ranks are not resolved.

    Returns tokens, sequences, dropped (tokens that are not finite at a corner), method, knobs[]
    (largest share first: knob, share, alone_share, interaction, alone_k3, resolved_from_next), and
    residual (the largest |sum_k phi_k - d| of a token, nats: rounding alone).
    """
    whole = np.array(list(corners.values.values()))
    finite = np.isfinite(whole).all(axis=0)
    kept = Corners(
        corners.knobs,
        {b: v[finite] for b, v in corners.values.items()},
        corners.sequence[finite],
    )
    head = {
        "tokens": int(finite.sum()),
        "sequences": len(np.unique(kept.sequence)),
        "dropped": int((~finite).sum()),
        "method": "shapley" if kept.all_corners else "path",
    }
    if not head["tokens"]:
        return {**head, "gap": {}, "knobs": [], "residual": None}
    return {**head, **_measured(kept, seed, resamples)}


def _measured(corners: Corners, seed: int, resamples: int) -> dict[str, Any]:
    n = len(corners.knobs)
    left, right = corners.values["0" * n], corners.values["1" * n]
    effects = shapley(corners)
    clusters = Clusters(corners.sequence, np.unique(corners.sequence))
    gap = Tokens(clusters, left, right)
    share = _shares(clusters, gap.d)
    wanted: dict[tuple[str, int], Statistic] = {("gap", 0): _k3(gap)}
    for k in range(n):
        alone = Tokens(clusters, left, corners.values[_toggled("0" * n, k)])
        wanted["share", k] = share(effects[k])
        wanted["alone_share", k] = share(alone.d)
        wanted["interaction", k] = share(effects[k] - alone.d)
        wanted["alone_k3", k] = _k3(alone)
    order = sorted(range(n), key=lambda k: -wanted["share", k].value())
    for a, b in pairwise(order):
        wanted["lead", a] = share(effects[a] - effects[b])
    found = stats.bootstrap_t(wanted, seed=seed, resamples=resamples)
    knobs = [_knob(corners.knobs[k], k, found) for k in order]
    residual = float(np.abs(effects.sum(axis=0) - gap.d).max())
    return {"gap": {"k3": stats.as_json(found["gap", 0])}, "knobs": knobs, "residual": residual}


def _k3(tokens: Tokens) -> Statistic:
    return Statistic(tokens.clusters.means([tokens.k3]), stats.MEAN)


def _shares(clusters: Clusters, d: np.ndarray) -> Any:
    """effect -> <effect, d> / <d, d>."""
    square = clusters.means([d * d])[0]
    return lambda effect: Statistic((*clusters.means([effect * d]), square), stats.ratio)


def _knob(name: str, k: int, found: Mapping[tuple[str, int], stats.Estimate]) -> dict[str, Any]:
    keys = ("share", "alone_share", "interaction", "alone_k3")
    lead = found.get(("lead", k))
    resolved = None if lead is None or lead.low is None else bool(lead.low > 0)
    return {
        "knob": name,
        **{key: stats.as_json(found[key, k]) for key in keys},
        "resolved_from_next": resolved,
    }


def gathered(knobs: Sequence[str], pairs: Mapping[str, Aligned]) -> Corners:
    """Corners from each corner's trace aligned with the left end's: bits -> (left, corner)."""
    first = next(iter(pairs.values()))
    values = {b: np.asarray(p.lp_infer, np.float64) for b, p in pairs.items()}
    return Corners(tuple(knobs), values, first.sequence)
