"""Every metric of the glossary: one definition each, as data, and `measure`, which applies them.

d = lp_train - lp_infer (nats), r = exp(d), D = Σd over the scored tokens of a sequence, R = exp(D).
k1, k2 and k3 are Schulman's estimators ("Approximating KL divergence", 2020). The intervals are in
`stats`; here are the columns that are summed per sequence, the statistic made of their means, and
the monotone map from that statistic to the metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from mismatch.compare import stats, trust
from mismatch.compare.stats import Clusters, Estimate, Scale, Smooth, Statistic
from mismatch.compare.trust import Shape
from mismatch.glossary import METRICS, token_keys

#: value, low, high, and `trusted`: False where the interval is known not to hold.
Json = dict[str, float | None]


@dataclass(frozen=True, slots=True)
class Aligned:
    """Scored tokens of two traces, null excluded, in (sequence_id, position) order.

    sequence, position: (n,) int; ids are sorted but need not be 0..S-1. lp_train (the left side in
    pairs of another kind), lp_infer: (n,) float32 nats, may hold NaN and infinities.
    """

    sequence: np.ndarray
    position: np.ndarray
    lp_train: np.ndarray
    lp_infer: np.ndarray


@dataclass(frozen=True, slots=True)
class Measured:
    """What summary.json says of a pair; every number is a finite float or None.

    tokens, sequences: those finite on both sides, and those with such a token. metrics: key ->
    {value, low, high}. floor: name -> side -> key -> {value, low, high}. excess: k2, k3.
    """

    tokens: int
    sequences: int
    nan_tokens: int
    inf_tokens: int
    metrics: dict[str, Json]
    floor: dict[str, dict[str, dict[str, Json]]] | None
    excess: dict[str, Json] | None
    notes: list[str]


# ---------------------------------------------------------------- what is observed


@dataclass(frozen=True)
class Tokens:
    """Tokens that are finite on both sides, sorted by sequence. left, right: (n,) float64."""

    clusters: Clusters
    left: np.ndarray
    right: np.ndarray

    # (n,) per token; rho and rho_rev are r - 1 and 1/r - 1, to full precision where d is small.
    d = cached_property(lambda t: t.left - t.right)
    abs_d = cached_property(lambda t: np.abs(t.d))
    ratio = cached_property(lambda t: np.exp(t.d))
    rho = cached_property(lambda t: np.expm1(t.d))
    rho_rev = cached_property(lambda t: np.expm1(-t.d))
    k3 = cached_property(lambda t: t.rho - t.d)
    p_train = cached_property(lambda t: np.exp(t.left))
    p_infer = cached_property(lambda t: np.exp(t.right))
    prob_diff = cached_property(lambda t: np.abs(t.p_train - t.p_infer))
    # (s,) per sequence; log_ratio is D.
    log_ratio = cached_property(lambda t: t.clusters.totals(t.d))
    mean_d = cached_property(lambda t: t.log_ratio / t.clusters.lengths)
    max_prob_diff = cached_property(lambda t: np.maximum.reduceat(t.prob_diff, t.clusters.starts))


Column = Callable[[Tokens], np.ndarray]
#: ln 0.5 as an engine writes it (float32 rounds it down): p = 0.5 must count as 0.5.
LOG_HALF = float(np.float32(math.log(0.5)))


# ---------------------------------------------------------------- the definitions


@dataclass(frozen=True, slots=True)
class Definition:
    """A metric made of means. columns: Tokens -> (n,) arrays for means over tokens, or (s,) for
    means over sequences. statistic: the smooth function of the means that is studentised."""

    columns: Callable[[Tokens], list[np.ndarray]]
    statistic: Smooth
    scale: Scale
    event: bool = False  # a share of events that may not have been seen at all


def _mean(column: Column, **scale: Any) -> Definition:
    return Definition(lambda t: [column(t)], stats.MEAN, Scale(**scale))


def _share(column: Column, **scale: Any) -> Definition:
    return _mean(column, least=0.0, most=1.0, **scale)


def _event(column: Column, **scale: Any) -> Definition:
    """A share of rare events: none seen does not say none there."""
    return replace(_share(column, **scale), event=True)


def _extreme(tau: float) -> Definition:
    """P[max(r, 1/r) > tau], in logs: r itself may overflow."""
    return _event(lambda t: t.abs_d > math.log(tau))


def _one_plus(column: Column, least: float = -1.0) -> Definition:
    """The mean of something whose column holds it less 1, which keeps small d exact."""
    return _mean(column, show=lambda x, _: 1 + x, least=least)


def _std(column: Column) -> Definition:
    """ddof 1: undefined for one observation."""
    scale = Scale(lambda x, n: math.sqrt(x * n / (n - 1)) if n > 1 else math.nan, least=0.0)
    return Definition(lambda t: stats.variance_columns(column(t)), stats.variance, scale)


def _ess(log_weight: Column) -> Definition:
    """(Σw)²/(nΣw²) = 1/(1 + cv²) of the weights (Kong 1992), in [0, 1] as cv² >= 0."""
    scale = Scale(lambda x, _: 1 / (1 + x), falls=True, least=0.0)
    return Definition(lambda t: stats.weight_columns(log_weight(t)), stats.squared_cv, scale)


def _length(nats: float) -> Definition:
    """The tokens over which k3 adds up to so many nats; undefined at k3 = 0."""
    return _mean(
        lambda t: t.k3, show=lambda x, _: nats / x if x > 0 else math.nan, falls=True, least=0.0
    )


DEFINITIONS: dict[str, Definition] = {
    "k1": _mean(lambda t: -t.d),
    "k2": _mean(lambda t: t.d**2 / 2, least=0.0),
    "k3": _mean(lambda t: t.k3, least=0.0),
    "k3_rev": _mean(lambda t: t.rho_rev + t.d, least=0.0),
    "abs_logprob_diff_mean": _mean(lambda t: t.abs_d, least=0.0),
    "abs_logprob_diff_std": _std(lambda t: t.abs_d),
    "logprob_diff_mean": _mean(lambda t: t.d),
    "rms_logprob_diff": _mean(lambda t: t.d**2, show=lambda x, _: math.sqrt(x), least=0.0),
    "prob_diff_mean": _mean(lambda t: t.prob_diff, least=0.0),
    "prob_diff_std": _std(lambda t: t.prob_diff),
    "prob_pearson": Definition(
        lambda t: stats.correlation_columns(t.p_train, t.p_infer),
        stats.fisher_z,
        Scale(lambda x, _: math.tanh(x)),
    ),
    "mult_prob_error": _one_plus(lambda t: np.maximum(t.rho, t.rho_rev), least=0.0),
    "ratio_mean": _one_plus(lambda t: t.rho),
    **{f"extreme_fraction_{tau}": _extreme(tau) for tau in (1.1, 2, 3, 5, 10)},
    "chi2_token": _mean(lambda t: t.rho * (t.rho + 2), least=-1.0),
    "ess_token": _ess(lambda t: t.d),
    "exact_fraction": _share(lambda t: t.d == 0),
    "confident_disagreement": _event(lambda t: (t.right >= LOG_HALF) & (t.d < -2)),
    "seq_log_ratio_mean": _mean(lambda t: t.log_ratio),
    "seq_log_ratio_std": _std(lambda t: t.log_ratio),
    "seq_log_ratio_slope_per_1k": Definition(
        lambda t: stats.slope_columns(t.clusters.lengths, t.log_ratio),
        stats.slope,
        Scale(lambda x, _: 1000 * x),
    ),
    "seq_k1": _mean(lambda t: -t.log_ratio),
    "seq_chi2": _mean(lambda t: np.expm1(2 * t.log_ratio), least=-1.0),
    "ess_seq": _ess(lambda t: t.log_ratio),
    "seq_geo_ratio": _one_plus(lambda t: np.expm1(t.mean_d)),
    "seq_max_prob_diff_mean": _mean(lambda t: t.max_prob_diff, least=0.0),
    "seq_prob_diff_gt_0.5": _event(lambda t: t.max_prob_diff > 0.5, show=lambda x, n: x * n),
    "log_ppl_diff": _mean(lambda t: -t.mean_d),
    "ppl_ratio": _one_plus(lambda t: np.expm1(-t.mean_d)),
    "seq_clamped_count": _event(lambda t: np.abs(t.log_ratio) > 20, show=lambda x, n: x * n),
    "ess_half_length": _length(math.log(2) / 2),
    "clamp_length": _length(20.0),
}
#: what is ordered -> key -> the share of it at or below the metric.
QUANTILES: dict[str, dict[str, float]] = {
    "abs_d": {
        "abs_logprob_diff_p50": 0.5,
        "abs_logprob_diff_p90": 0.9,
        "abs_logprob_diff_p99": 0.99,
    },
    "ratio": {"ratio_p01": 0.01, "ratio_p99": 0.99},
    "log_ratio": {"seq_log_ratio_p05": 0.05, "seq_log_ratio_p50": 0.5, "seq_log_ratio_p95": 0.95},
}
#: A few tokens make these: the value alone.
EXTREMES: dict[str, Callable[[Tokens], float]] = {
    "abs_logprob_diff_p999": lambda t: float(np.quantile(t.abs_d, 0.999)),
    "abs_logprob_diff_max": lambda t: float(np.max(t.abs_d)),
    "prob_diff_max": lambda t: float(np.max(t.prob_diff)),
    "ratio_min": lambda t: float(np.min(t.ratio)),
    "ratio_max": lambda t: float(np.max(t.ratio)),
}
#: No interval where one sequence carries over MAX_SHARE of ΣR. (A limit on ΣR², of which both are
#: made, would be worse: it keeps the very samples that missed the tail.)
DOMINATED = ("seq_chi2", "ess_seq")
MAX_SHARE = 0.2
EXCESS = ("k2", "k3")
FLOORS = ("repeat", "batch")
SIDES = ("train", "infer")


# ---------------------------------------------------------------- measuring


def measure(
    gap: Aligned,
    floors: Mapping[str, Mapping[str, Sequence[Aligned]]],
    *,
    seed: int = 0,
    resamples: int = 2000,
    keys: Collection[str] = METRICS.keys(),
) -> Measured:
    """All metrics of a pair, those of its floors, and the excess of the one over the other.

    floors: name -> side -> comparisons of capture 1 with another capture of the same condition;
    several are pooled. keys: which metrics; a number does not depend on what else is asked (the
    study of coverage asks for few). Equal input and seed give equal numbers. notes: what
    overflowed, and the tokens that a floor lost.
    """
    notes: list[str] = []
    given = {(n, s): floors[n][s] for n in FLOORS for s in SIDES if floors.get(n, {}).get(s)}
    rows = rows_of([gap, *(one for several in given.values() for one in several)])
    tokens, nan, inf = finite([gap], rows)
    parts = {"gap": _observe(tokens, keys)}
    of_floor = [key for key in token_keys() if key in keys]
    for (name, side), several in given.items():
        kept, *lost = finite(several, rows)
        parts[f"floor.{name}.{side}"] = replace(_observe(kept, of_floor), lost=sum(lost))
        if any(lost):
            notes.append(f"floor.{name}.{side}: {sum(lost)} tokens are NaN or infinite: no excess")
    found = _estimates(parts, seed, resamples, notes)
    floor = {
        name: {side: found[f"floor.{name}.{side}"] for n, side in given if n == name}
        for name, _ in given
    }
    size, excess = parts["gap"].sizes, found.get("excess")
    return Measured(
        size["token"], size["sequence"], nan, inf, found["gap"], floor or None, excess, notes
    )


def rows_of(parts: Sequence[Aligned]) -> np.ndarray:
    """The ids of all sequences, sorted."""
    return np.unique(np.concatenate([p.sequence[stats.begins(p.sequence)] for p in parts]))


def finite(parts: Sequence[Aligned], rows: np.ndarray) -> tuple[Tokens, int, int]:
    """The tokens finite on both sides, pooled per sequence; how many are NaN, how many infinite."""
    sequence = np.concatenate([p.sequence for p in parts])
    left = np.concatenate([p.lp_train for p in parts]).astype(np.float64)
    right = np.concatenate([p.lp_infer for p in parts]).astype(np.float64)
    kept = np.flatnonzero(np.isfinite(left) & np.isfinite(right))
    if len(parts) > 1:
        kept = kept[np.argsort(sequence[kept], kind="stable")]
    nan = int(np.count_nonzero(np.isnan(left) | np.isnan(right)))
    tokens = Tokens(Clusters(sequence[kept], rows), left[kept], right[kept])
    return tokens, nan, len(left) - nan - len(kept)


@dataclass(frozen=True, slots=True)
class _Observed:
    """What is kept of a comparison when its tokens are let go.

    sizes: observations of each level. unseen: the bound of an event of that level never seen.
    statistics: to be resampled. fixed: all others. shape: how its sequences differ, None without a
    token. lost: tokens left out as NaN or infinite. exact: d is 0 at every token.
    """

    keys: tuple[str, ...]
    sizes: dict[str, int]
    unseen: dict[str, float]
    statistics: dict[str, Statistic]
    fixed: dict[str, Estimate]
    shape: Shape | None = None
    lost: int = 0
    exact: bool = False


def _observe(tokens: Tokens, keys: Iterable[str]) -> _Observed:
    keys = tuple(keys)
    sizes = {"token": len(tokens.left), "sequence": len(tokens.clusters.starts)}
    if not sizes["token"]:
        return _Observed(keys, sizes, {}, {}, {})
    lengths = tokens.clusters.lengths
    unseen = {"token": stats.unseen(lengths), "sequence": stats.unseen(np.ones(len(lengths)))}
    with np.errstate(all="ignore"):
        statistics = {
            key: Statistic(tokens.clusters.means(d.columns(tokens)), d.statistic)
            for key, d in DEFINITIONS.items()
            if key in keys
        }
        fixed = dict(_fixed(tokens, keys))
        if stats.largest_share(tokens.log_ratio) > MAX_SHARE:
            dominated = [key for key in DOMINATED if key in statistics]
            fixed |= {key: Estimate(statistics.pop(key).value()) for key in dominated}
    shape, exact = trust.shape(tokens.d, tokens.clusters), not np.any(tokens.d)
    return _Observed(keys, sizes, unseen, statistics, fixed, shape, exact=exact)


def _fixed(tokens: Tokens, keys: Sequence[str]) -> Iterator[tuple[str, Estimate]]:
    """Quantiles and extremes."""
    for what, shares in QUANTILES.items():
        wanted = {key: share for key, share in shares.items() if key in keys}
        if wanted:
            found = tokens.clusters.quantiles(getattr(tokens, what), list(wanted.values()))
            yield from zip(wanted, found, strict=True)
    for key in (k for k in keys if k in EXTREMES):
        yield key, Estimate(EXTREMES[key](tokens))


def _estimates(
    parts: Mapping[str, _Observed], seed: int, resamples: int, notes: list[str]
) -> dict[str, dict[str, Json]]:
    """Part -> key -> {value, low, high}; "excess" is one more where both sides have a floor."""
    statistics = {(name, k): s for name, part in parts.items() for k, s in part.statistics.items()}
    keys = {name: part.keys for name, part in parts.items()}
    over = _noise(parts)
    if over:
        statistics |= {("excess", k): s for k, s in _excess(*(parts[n] for n in ("gap", *over)))}
        keys["excess"] = tuple(k for k in EXCESS if k in keys["gap"])
    raw = stats.bootstrap_t(statistics, seed=seed, resamples=resamples)
    raw |= {(name, k): e for name, part in parts.items() for k, e in part.fixed.items()}
    shown = {
        name: {k: _shown(name, k, raw.get((name, k)), parts.get(name), notes) for k in of}
        for name, of in keys.items()
    }
    found = {
        name: {k: trust.marked(e, k, [parts[name].shape]) for k, e in shown[name].items()}
        for name in parts
    }
    if over:
        gap, *floors = (
            {k: (shown[n][k], parts[n].shape) for k in shown["excess"]} for n in ("gap", *over)
        )
        found["excess"] = {
            k: trust.marked_excess(e, k, gap[k], [floor[k] for floor in floors])
            for k, e in shown["excess"].items()
        }
    return found


def _noise(parts: Mapping[str, _Observed]) -> list[str]:
    """The parts that are the two sides' noise: the batch floor where both have it, else the repeat
    floor; none where a side is only known to repeat itself bit for bit.
    """
    for name in reversed(FLOORS):
        sides = [f"floor.{name}.{side}" for side in SIDES]
        if all(side in parts for side in sides):
            silent = name == "repeat" and any(parts[side].exact for side in sides)
            return [] if silent else sides
    return []


def _excess(gap: _Observed, *floors: _Observed) -> Iterator[tuple[str, Statistic]]:
    """Gap less half of both floors: independent noise adds in d², and a repeat difference holds
    twice one capture's variance. None where one of the three has no token, or a floor lost some:
    what an engine could not score may be its worst."""
    parts = (gap, *floors)
    if any(floor.lost for floor in floors):
        return
    for key in EXCESS:
        if all(key in part.statistics for part in parts):
            means = tuple(part.statistics[key].means[0] for part in parts)
            yield key, Statistic(means, stats.linear(1.0, -0.5, -0.5))


def _shown(
    name: str, key: str, raw: Estimate | None, part: _Observed | None, notes: list[str]
) -> Json:
    """An estimate as summary.json has it: null where not finite, with a note where it overflowed.

    raw is None where there was no token. part is None for an excess, which is shown as it is.
    """
    label = key if name == "gap" else f"{name}.{key}"
    found = raw or Estimate(math.nan)
    if math.isinf(found.value):
        notes.append(f"{label} overflows: no value")
    elif found.low is not None and math.isnan(found.low):
        notes.append(f"{label} overflows: a value, but no interval")
    if part and key in DEFINITIONS and math.isfinite(found.value):
        definition, level = DEFINITIONS[key], METRICS[key][2]
        if definition.event and found.value == found.high == 0:
            found = found._replace(high=part.unseen[level])
        found = definition.scale.of(found, part.sizes[level])
    return stats.as_json(found)
