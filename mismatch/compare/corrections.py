"""What the field's corrections would do to these tokens, and how much of the sample they leave.

A correction gives each token, or each sequence, a weight made of its ratio: cut off (truncated), or
0 outside bounds (masked, rejected). Nothing is trained here: it is predicted from d alone. What is
left is the effective sample size (Σw)²/(nΣw²) of the weights (Kong 1992), whose n counts what was
dropped.

token-TIS, sequence-TIS: truncated importance sampling, w = min(r, 2); -MIS: masked, w = r up to 2,
else 0 (Yao et al. 2025; Liu, Li et al. 2025). IcePop: r in [0.5, 5] (Ring-1T, 2510.18855).
Geometric rejection: sequences whose exp(mean d) is in [0.999, 1.001] (verl). GSPO: the clip of the
same ratio at 1 - 3e-4 and 1 + 4e-4 (2507.18071); which of the clipped lose their
gradient depends on the sign of their advantage, so that the ESS is what is left where all do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mismatch.compare import stats
from mismatch.compare.breakdowns import TOKEN_BINS, TOKEN_EDGES
from mismatch.compare.metrics import MAX_SHARE, Aligned, Tokens, finite, rows_of
from mismatch.compare.stats import Clusters, Estimate, Mean, Scale, Statistic
from mismatch.glossary import MIN_SEQUENCES

#: Tokens of the shortest prefix whose ESS is told; the others are its doublings.
SHORTEST_PREFIX = 16


@dataclass(frozen=True, slots=True)
class Correction:
    """of: the log-ratio of metrics.Tokens that it looks at: a token's d, a sequence's D (log_ratio)
    or its mean_d.

    low, high: bounds of the ratio. cut: what is beyond has the bound for its weight, else 0.
    reweights: inside the ratio is the weight, else 1.
    """

    name: str
    of: str
    rule: str
    low: float = 0.0
    high: float = math.inf
    cut: bool = False
    reweights: bool = True

    @property
    def level(self) -> str:
        return "token" if self.of == "d" else "sequence"

    @property
    def touches_any(self) -> bool:
        return self.low > 0 or self.high < math.inf

    def touched(self, x: np.ndarray) -> np.ndarray:
        """(n,) log-ratios in nats -> which of them are beyond a bound."""
        above = x > math.log(self.high)
        return np.asarray(above | (x < math.log(self.low)) if self.low else above)

    def log_weight(self, x: np.ndarray) -> np.ndarray:
        """(n,) log-ratios in nats -> logs of the weights, -inf where dropped."""
        beyond = np.minimum(x, math.log(self.high)) if self.cut else np.full_like(x, -np.inf)
        return np.where(self.touched(x), beyond, x if self.reweights else 0.0)


CORRECTIONS = (
    Correction("none-token", "d", "w = r"),
    Correction("token-tis", "d", "w = min(r, 2)", high=2, cut=True),
    Correction("token-mis", "d", "w = r if r <= 2, else 0", high=2),
    Correction("icepop", "d", "w = r if 0.5 <= r <= 5, else 0", low=0.5, high=5),
    Correction("none-sequence", "log_ratio", "w = R"),
    Correction("sequence-tis", "log_ratio", "w = min(R, 2)", high=2, cut=True),
    Correction("sequence-mis", "log_ratio", "w = R if R <= 2, else 0", high=2),
    Correction(
        "geometric-rejection", "mean_d", "kept if 0.999 <= exp(mean d) <= 1.001",
        low=0.999, high=1.001, reweights=False,
    ),
    Correction(
        "gspo-clip", "mean_d", "clipped if exp(mean d) < 1 - 3e-4 or > 1 + 4e-4",
        low=1 - 3e-4, high=1 + 4e-4, reweights=False,
    ),
)  # fmt: skip


def _sample(gap: Aligned) -> Tokens:
    """The tokens finite on both sides; only sequences that have one are resampled."""
    found, _, _ = finite([gap], rows_of([gap]))
    return _part(found, np.ones(len(found.clusters.starts), bool))


def _part(sample: Tokens, at: np.ndarray) -> Tokens:
    """The sequences where `at`, (s,) bool, holds."""
    kept = np.repeat(at, sample.clusters.lengths)
    sequence = sample.clusters.sequence[kept]
    return Tokens(Clusters(sequence, np.unique(sequence)), sample.left[kept], sample.right[kept])


# ---------------------------------------------------------------- the table


def corrections(gap: Aligned, *, seed: int = 0, resamples: int = 2000) -> list[dict[str, Any]]:
    """One row for each correction: what it touches, and the ESS that it leaves, whole and by the
    length of the sequence. Intervals over sequences; no row without a token.
    """
    sample = _sample(gap)
    if not len(sample.d):
        return []
    lengths = sample.clusters.lengths
    bins = np.searchsorted(TOKEN_EDGES, lengths, side="right")
    whole = _rows(sample, seed, resamples)
    parts = {TOKEN_BINS[k]: _part(sample, bins == k) for k in np.unique(bins)}
    found = {name: (part, _rows(part, seed, resamples)) for name, part in parts.items()}
    return [
        {
            "name": c.name,
            "level": c.level,
            "rule": c.rule,
            **whole[c.name],
            "by_length": [
                {
                    "bin": name,
                    "tokens": len(part.d),
                    "sequences": len(part.clusters.rows),
                    **rows[c.name],
                }
                for name, (part, rows) in found.items()
            ],
        }
        for c in CORRECTIONS
    ]


@dataclass(frozen=True)
class _Weights:
    """A correction's sums of each sequence, (s,): counts, touched, and the weights' two columns.

    weight: (s,) what each sequence carries of Σw, times a constant.
    """

    counts: np.ndarray
    touched: np.ndarray
    columns: tuple[np.ndarray, ...]
    weight: np.ndarray

    @classmethod
    def of(cls, correction: Correction, sample: Tokens) -> _Weights:
        x, totals = getattr(sample, correction.of), sample.clusters.totals
        log_weight, touched = correction.log_weight(x), correction.touched(x)
        of_tokens = correction.level == "token"
        counts = sample.clusters.lengths if of_tokens else np.ones(len(x))
        with np.errstate(all="ignore"):  # all dropped: no weight, no ESS
            columns = tuple(totals(c) for c in stats.weight_columns(log_weight))
            weight = totals(np.exp(log_weight - np.max(log_weight)))
        return cls(counts.astype(float), totals(touched.astype(float)), columns, weight)


def _rows(sample: Tokens, seed: int, resamples: int) -> dict[str, dict[str, Any]]:
    """name -> {affected, ess}, all resampled together.

    Of the sample's own weights: over the mean of more sequences, those of long ones may be so small
    that their variance is lost in rounding.
    """
    parts = [(c, _Weights.of(c, sample)) for c in CORRECTIONS]
    statistics: dict[tuple[str, str], Statistic] = {}
    for c, w in parts:
        affected = Statistic((Mean(w.touched, w.counts),), stats.MEAN)
        statistics[c.name, "affected"] = affected
        two = tuple(Mean(column, w.counts) for column in w.columns)
        statistics[c.name, "ess"] = Statistic(two, stats.squared_cv)
    found = stats.bootstrap_t(statistics, seed=seed, resamples=resamples)
    return {
        c.name: {
            "affected": stats.as_json(_share(found[c.name, "affected"], c, w)),
            "ess": stats.as_json(_kept(found[c.name, "ess"], c, w)),
        }
        for c, w in parts
    }


def _share(found: Estimate, c: Correction, w: _Weights) -> Estimate:
    """A share of rare events: none seen does not say none there, nor do all seen say all."""
    if c.touches_any and found.value == found.high == 0:
        found = found._replace(high=stats.unseen(w.counts))
    elif found.value == found.low == 1:
        found = found._replace(low=1 - stats.unseen(w.counts))
    return Scale(least=0.0, most=1.0).of(found, 0)


def _kept(found: Estimate, c: Correction, w: _Weights) -> Estimate:
    """Where weights are 1 or 0 the ESS is the share of those kept; all kept is no bound either."""
    shown = _ess(found, w.weight)
    if not c.reweights and shown.value == shown.low == 1:
        return shown._replace(low=1 - stats.unseen(w.counts))
    return shown


def _ess(found: Estimate, weight: np.ndarray) -> Estimate:
    """No interval where one sequence carries too much of Σw to be resampled."""
    shown = Scale(lambda x, _: 1 / (1 + x), falls=True, least=0.0).of(found, 0)
    with np.errstate(all="ignore"):
        dominated = not np.max(weight) <= MAX_SHARE * np.sum(weight)
    return Estimate(shown.value) if dominated else shown


# ---------------------------------------------------------------- by length


def ess_by_length(
    gap: Aligned, k3: float | None, *, seed: int = 0, resamples: int = 2000
) -> list[dict[str, Any]]:
    """ESS of the weights exp(D) over the first T tokens of the sequences that have so many, for T
    in doublings as long as enough have; `predicted`: exp(-2 T k3), where d is small and independent
    (metrics.md, `ess_half_length`).
    """
    sample = _sample(gap)
    if not len(sample.d):
        return []
    lengths, starts = sample.clusters.lengths, sample.clusters.starts
    sums = np.concatenate([[0.0], np.cumsum(sample.d)])
    rows = []
    size = SHORTEST_PREFIX
    while (long := starts[lengths >= size]).size >= MIN_SEQUENCES:
        rows.append(_prefix(size, sums[long + size] - sums[long], k3, seed, resamples))
        size *= 2
    return rows


def _prefix(
    size: int, log_ratio: np.ndarray, k3: float | None, seed: int, resamples: int
) -> dict[str, Any]:
    each = np.arange(len(log_ratio))
    columns = stats.weight_columns(log_ratio)
    means = Clusters(each, each).means(columns)
    found = stats.bootstrap_t(
        {"ess": Statistic(means, stats.squared_cv)}, seed=seed, resamples=resamples
    )
    weights = np.exp(log_ratio - np.max(log_ratio))
    return {
        "length": size,
        "sequences": len(log_ratio),
        "tokens": size * len(log_ratio),
        "ess": stats.as_json(_ess(found["ess"], weights)),
        "predicted": None if k3 is None else math.exp(-2 * size * k3),
    }


def table(
    gap: Aligned, metrics: Mapping[str, Mapping[str, float | None]], seed: int
) -> dict[str, Any]:
    """What a pair of summary.json says of corrections."""
    k3 = (metrics.get("k3") or {}).get("value")
    return {
        "ess_by_length": ess_by_length(gap, k3, seed=seed),
        "corrections": corrections(gap, seed=seed),
    }
