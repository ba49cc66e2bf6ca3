"""Which intervals are not trusted: where known truth showed that a 95% interval does not hold it.

reports/coverage measures that with this program's own `measure`. An interval fails there where it
covers less than 92%, or misses on one side more than 5%. Two things make it fail, and of both
something can be seen in the data at hand:

- Too few sequences that differ, in bias or in size. The per-sequence sums of d² are then skewed,
  and a small sample does not show by how much. Seen in the correlation of d inside a sequence, and
  in the design effect of d².
- Sequences whose own bias is heavy-tailed. Seen in the kurtosis of the sequences' mean d.

A rule that reads the sample clears the luckier samples, and those are the ones that miss. That does
no harm where it catches nearly all, as the correlation does. A sample that happens to hold none of
the heavy sequences looks like any other: of those the rule catches a part, and reports/coverage
prints which.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from mismatch.compare.stats import ROUNDING, Clusters
from mismatch.glossary import MIN_SEQUENCES

#: From here on the skewed sums of like sequences are resolved by the resamples.
ENOUGH_SEQUENCES = 50
#: Below ENOUGH_SEQUENCES: the most of `Shape.bias`, and of `Shape.clustering`.
MOST_BIAS = 0.3
MOST_CLUSTERING = 0.25
#: With any number of sequences: the most of `Shape.kurtosis` (normal: 3).
MOST_KURTOSIS = 5.0
#: A floor below this share of the half-width of its gap's interval cannot spoil the excess, however
#: unlike its sequences are: twice what was seen would move the bounds by an eighth of that width.
MATERIAL = 0.25

#: Metrics of the size of d over tokens: those in the study, what is mapped from them, and those
#: that equal one of them to first order in d.
SIZES = (
    "k2", "k3", "k3_rev", "abs_logprob_diff_mean", "rms_logprob_diff", "mult_prob_error",
    "ess_half_length", "clamp_length",
)  # fmt: skip
#: Means of d itself: like sequences do not skew them.
SIGNED = ("k1", "logprob_diff_mean")


@dataclass(frozen=True, slots=True)
class Shape:
    """What can be seen of how the sequences differ.

    sequences: those with a token. bias: squared correlation of d inside a sequence, times tokens a
    sequence: the variance that the sequences' own bias gives to their mean d², over that of the
    token noise, were both normal. clustering: the design effect of mean d² (Kish 1965: its variance
    over that of as many independent tokens) over the number of sequences. kurtosis: of the
    sequences' mean d, each over its standard deviation under a normal bias, so that short sequences
    do not pass for heavy ones.
    """

    sequences: int
    bias: float
    clustering: float
    kurtosis: float


def shape(d: np.ndarray, clusters: Clusters) -> Shape:
    """d: (n,) nats of the tokens of `clusters`, differences of float32, whose fourth powers do not
    overflow. 0 where d does not vary, and below the sequences that an interval takes."""
    count = len(clusters.starts)
    if count < MIN_SEQUENCES:
        return Shape(count, 0.0, 0.0, 0.0)
    bias, kurtosis = _bias(d, clusters)
    return Shape(count, bias, _design_effect(d * d, clusters) / count, kurtosis)


def trusted(key: str, *shapes: Shape) -> bool:
    """Whether a metric's interval holds, from the shapes of all comparisons it is made of. Metrics
    that are in neither list were not studied and are not marked."""
    if key not in (*SIZES, *SIGNED):
        return True
    return all(_holds(key, s) for s in shapes)


def marked_excess(
    entry: dict[str, float | None],
    key: str,
    gap: tuple[dict[str, float | None], Shape | None],
    floors: Iterable[tuple[dict[str, float | None], Shape | None]],
) -> dict[str, float | None]:
    """`marked` of an excess, from the entries and shapes of its gap and its floors of that metric.

    Most engines in another batch differ from themselves in a few sequences only: a heavy tail that
    is asked about where it is large enough to matter.
    """
    least = immaterial(gap[0]["low"], gap[0]["high"])
    large = (shape for floor, shape in floors if not (floor["value"] or 0.0) < least)
    return marked(entry, key, [gap[1], *large])


def immaterial(low: float | None, high: float | None) -> float:
    """The size below which a floor cannot spoil the excess of a gap with that interval."""
    return 0.0 if low is None or high is None else MATERIAL * (high - low) / 2


def marked(
    entry: dict[str, float | None], key: str, shapes: Iterable[Shape | None]
) -> dict[str, float | None]:
    """{value, low, high}, with `trusted` False where it has an interval that is not trusted."""
    known = [s for s in shapes if s is not None]
    has_interval = entry["low"] is not None or entry["high"] is not None
    return {**entry, "trusted": False} if has_interval and not trusted(key, *known) else entry


def _holds(key: str, s: Shape) -> bool:
    differ = s.bias > MOST_BIAS or s.clustering > MOST_CLUSTERING
    too_few = key in SIZES and s.sequences < ENOUGH_SEQUENCES and differ
    return s.kurtosis <= MOST_KURTOSIS and not too_few


def _design_effect(x: np.ndarray, clusters: Clusters) -> float:
    off, count = x - np.mean(x), len(clusters.starts)
    tokens = float(np.sum(off**2))
    if not tokens > ROUNDING * float(np.sum(x**2)):
        return 0.0
    between = float(np.sum(clusters.totals(off) ** 2)) * count / (count - 1)
    return between / tokens


def _bias(d: np.ndarray, clusters: Clusters) -> tuple[float, float]:
    """`bias` and `kurtosis` of a Shape.

    One-way analysis of variance (Searle, Casella & McCulloch 1992, chapter 3) gives the variance
    of a token about its sequence, and of a sequence's mean about the mean of all."""
    lengths, count, n = clusters.lengths, len(clusters.starts), len(d)
    means = clusters.totals(d) / lengths
    token = float(np.sum((d - np.repeat(means, lengths)) ** 2)) / max(n - count, 1)
    size = float(n - np.sum(lengths**2) / n) / (count - 1)
    spread = float(np.sum(lengths * (means - np.mean(d)) ** 2)) / (count - 1)
    if n == count:  # one token each: whose variance it is cannot be told
        token = spread
    effect = max(0.0, (spread - token) / size)
    expected = effect + token / lengths
    if not np.max(expected) > ROUNDING * float(np.mean(d**2)):
        return 0.0, 0.0
    z = (means - np.sum(means / expected) / np.sum(1 / expected)) / np.sqrt(expected)
    return (effect / (effect + token)) ** 2 * size, float(np.mean(z**4) / np.mean(z**2) ** 2)
