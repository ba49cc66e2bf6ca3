"""95% intervals over sequences: a cluster bootstrap-t for sums, test inversion for quantiles.

Tokens of one sequence are not independent, so the sequence is the unit that is resampled and the
unit of every standard error (cluster-robust: Liang & Zeger 1986). Nothing here knows a metric.

A statistic is a smooth function of means, each mean a ratio of two sums over sequences. Its
standard error is the delta method's: the function is linearised at the means, which gives every
sequence one residual, and the residuals are squared and summed. As the residual is linear in the
per-sequence sums, the standard errors of all resamples are quadratic forms in resampled products of
those sums, which makes the whole bootstrap one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from typing import NamedTuple, TypeVar

import numpy as np
from scipy.special import stdtrit

from mismatch.glossary import MIN_SEQUENCES

#: Outside a 95% interval on each side.
TAIL = 0.025
#: metrics.md: fewer sequences beyond a quantile leave it without an interval.
MIN_BEYOND = 20

#: A residual this small against its own terms is rounding: constant data must have no variance.
ROUNDING = 1e-13
#: tanh of it is 1 in float64.
PERFECT_Z = 40.0
#: Resamples x sequences held at a time, 8 bytes each.
CHUNK = 1 << 22
#: The same, of those drawn in one call: few enough to stay in the cache.
CACHED = 1 << 15

Key = TypeVar("Key", bound=Hashable)


class Estimate(NamedTuple):
    """A value and its interval.

    value: NaN where undefined (0/0), infinite where it overflows.
    low, high: None where a rule forbids an interval, NaN where it overflows, infinite where the
    resamples leave that end open.
    """

    value: float
    low: float | None = None
    high: float | None = None


def as_json(found: Estimate) -> dict[str, float | None]:
    """value, low and high; null where not finite. + 0.0 turns -0.0 into 0.0."""
    finite = (x + 0.0 if x is not None and math.isfinite(x) else None for x in found)
    return dict(zip(("value", "low", "high"), finite, strict=True))


@dataclass(frozen=True, slots=True)
class Scale:
    """How a statistic becomes the metric that is shown.

    show: (statistic, number of observations) -> metric, a monotone map, decreasing where `falls`;
    NaN is undefined. least, most: the statistic cannot leave them whatever the data (a share in
    [0, 1], d² >= 0, r > 0), so its bounds are cut there; open ends stay open.
    """

    show: Callable[[float, int], float] = lambda x, _: x
    falls: bool = False
    least: float = -math.inf
    most: float = math.inf

    def of(self, raw: Estimate, n: int) -> Estimate:
        """The metric with its interval, from those of the statistic over n observations."""
        low, high = (self._of(x, n) for x in (raw.low, raw.high))
        value = self.show(raw.value, n)
        return Estimate(value, high, low) if self.falls else Estimate(value, low, high)

    def _of(self, bound: float | None, n: int) -> float | None:
        if bound is None or not math.isfinite(bound):
            return bound
        return self.show(min(max(bound, self.least), self.most), n)


# ---------------------------------------------------------------- observations by sequence


def begins(sequence: np.ndarray) -> np.ndarray:
    """(n,) sorted sequence ids -> (s,) where each begins."""
    return np.flatnonzero(np.diff(sequence, prepend=sequence[:1] - 1))


@dataclass(frozen=True)
class Clusters:
    """Which sequence each of n observations belongs to.

    sequence: (n,) sorted ids. rows: (S,) sorted ids of all sequences that are resampled together;
    those without an observation here count nothing.
    """

    sequence: np.ndarray
    rows: np.ndarray

    @cached_property
    def starts(self) -> np.ndarray:
        return begins(self.sequence)

    @cached_property
    def lengths(self) -> np.ndarray:
        """(s,) observations of each sequence that has one."""
        return np.diff(self.starts, append=len(self.sequence))

    @cached_property
    def counts(self) -> tuple[np.ndarray, np.ndarray]:
        """(S,) observations, and 1 for each sequence that has one."""
        return self._on_rows(self.lengths), self._on_rows(np.ones(len(self.starts)))

    def totals(self, x: np.ndarray) -> np.ndarray:
        """(n,) -> (s,) sums; what is per sequence already stays."""
        if len(x) == len(self.starts):
            return x.astype(np.float64)
        return np.add.reduceat(x, self.starts, dtype=np.float64)

    def means(self, columns: Sequence[np.ndarray]) -> tuple[Mean, ...]:
        """Over observations for columns of (n,), over sequences for columns of (s,)."""
        return tuple(
            Mean(self._on_rows(self.totals(x)), self.counts[len(x) != len(self.sequence)])
            for x in columns
        )

    def quantiles(self, x: np.ndarray, shares: Sequence[float]) -> list[Estimate]:
        """Of observations (n,), or of sequences (s,)."""
        starts = self.starts if len(x) == len(self.sequence) else np.arange(len(x))
        return quantiles(x, starts, shares)

    def _on_rows(self, x: np.ndarray) -> np.ndarray:
        at = np.searchsorted(self.rows, self.sequence[self.starts])
        return np.bincount(at, x, minlength=len(self.rows))


@dataclass(frozen=True, eq=False)
class Mean:
    """Σ sums / Σ counts over S sequences; both (S,), counts 0 where a sequence has no observation.

    Means that are resampled together have their sequences in one order.
    """

    sums: np.ndarray
    counts: np.ndarray

    @cached_property
    def value(self) -> float:
        return float(np.sum(self.sums) / np.sum(self.counts))

    @property
    def key(self) -> Hashable:
        """Equal for the same arrays: what several statistics share is resampled once."""
        return id(self.sums), id(self.counts)

    def centred(self) -> np.ndarray:
        """(S,) sums less what the mean expects of them, so that quadratic forms do not cancel."""
        expected = self.value * self.counts
        off = self.sums - expected
        return np.where(np.abs(off) <= ROUNDING * np.abs(expected), 0.0, off)


# ---------------------------------------------------------------- statistics

#: Means (..., K) -> the statistic (...) and its partial derivatives (..., K).
Smooth = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Statistic:
    """A smooth function of K means."""

    means: tuple[Mean, ...]
    smooth: Smooth

    @property
    def counts(self) -> list[np.ndarray]:
        """What the means are taken over, each array once."""
        return list({id(m.counts): m.counts for m in self.means}.values())

    @property
    def keys(self) -> list[Hashable]:
        """Of its means, then of its counts."""
        return [*(m.key for m in self.means), *(id(c) for c in self.counts)]

    @property
    def at(self) -> np.ndarray:
        return np.array([m.value for m in self.means])

    def value(self) -> float:
        at = self.at
        return float(self.smooth(at)[0]) if np.isfinite(at).all() else math.inf

    def has_interval(self) -> bool:
        enough = all(np.count_nonzero(c) >= MIN_SEQUENCES for c in self.counts)
        return enough and math.isfinite(self.value())


def linear(*weights: float) -> Smooth:
    """Σ weight·mean."""
    partials = np.array(weights)
    return lambda means: (means @ partials, np.broadcast_to(partials, means.shape))


#: The mean itself.
MEAN = linear(1.0)


def ratio(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a / b, from the means of (a, b)."""
    a, b = np.moveaxis(means, -1, 0)
    return a / b, np.stack([1 / b, -a / b**2], axis=-1)


def variance(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of x, from the means of (x, x²); x is centred on the whole sample beforehand."""
    x, x2 = np.moveaxis(means, -1, 0)
    return x2 - x**2, np.stack([-2 * x, np.ones_like(x)], axis=-1)


def squared_cv(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Variance over squared mean of 1 + x, from the means of (x, x²)."""
    x, x2 = np.moveaxis(means, -1, 0)
    mean, spread = 1 + x, x2 - x**2
    by_x = -2 * x / mean**2 - 2 * spread / mean**3
    return spread / mean**2, np.stack([by_x, 1 / mean**2], axis=-1)


def slope(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least squares of y on x with intercept, from the means of (x, y, x², xy)."""
    x, y, x2, xy = np.moveaxis(means, -1, 0)
    spread = x2 - x**2
    b = (xy - x * y) / spread
    by = [(2 * b * x - y) / spread, -x / spread, -b / spread, 1 / spread]
    return b, np.stack(by, axis=-1)


def fisher_z(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """atanh of the correlation of u and u + w, from the means of (u, w, u², uw, w²).

    Two engines correlate at 1 - 1e-6 and closer, where 1 - correlation² must come from w and not
    from a difference of moments. Perfect correlation is PERFECT_Z, with no variance.
    """
    u, w, uu, uw, ww = np.moveaxis(means, -1, 0)
    a, c, d = uu - u**2, uw - u * w, ww - w**2
    v = a + 2 * c + d
    r, rest = (a + c) / np.sqrt(a * v), a * d - c**2
    z = np.log1p(r) - 0.5 * np.log(rest / (a * v))
    turn = 1 / (1 + r)
    by_a = turn * (1 / np.sqrt(a * v) - r / 2 * (1 / a + 1 / v)) - 0.5 * (d / rest - 1 / a - 1 / v)
    by_c = turn * (1 / np.sqrt(a * v) - r / v) + c / rest + 1 / v
    by_d = turn * -r / (2 * v) - 0.5 * (a / rest - 1 / v)
    by = [-2 * u * by_a - w * by_c, -u * by_c - 2 * w * by_d, by_a, by_c, by_d]
    perfect = rest <= 1e-28 * a * v
    z = np.where(perfect, PERFECT_Z * np.sign(r), z)
    return z, np.where(perfect[..., None], 0.0, np.stack(by, axis=-1))


def unseen(weights: np.ndarray) -> float:
    """The upper bound of a mean of events that none of S sequences showed; 0 is no bound, since
    resampling what has no event never draws one.

    weights: (S,) what each sequence counts (its tokens, or 1). Where sequence i shows events with
    probability p_i, nothing is seen with probability Π(1 - p_i); the bound is the largest
    Σ weight·p_i / Σ weight that leaves this at 2.5%. With c_i = -ln(1 - p_i) it is a concave
    problem of fixed Σ c_i = -ln 0.025, solved by c_i = max(0, ln(weight_i / level)) (water-filling:
    Boyd & Vandenberghe 2004, example 5.2). Equal weights give the exact binomial bound
    1 - 0.025^(1/S) (Clopper & Pearson 1934).
    """
    weight = np.sort(weights / np.sum(weights))[::-1]
    logs = np.log(weight)
    levels = (np.cumsum(logs) + math.log(TAIL)) / np.arange(1, len(logs) + 1)
    used = np.flatnonzero(logs > levels)[-1] + 1  # the heaviest, down to the level they share
    return float(np.sum(weight[:used] - math.exp(levels[used - 1])))


# ---------------------------------------------------------------- observations made ready


def centred(x: np.ndarray) -> np.ndarray:
    """x - mean x: a variance made of raw squares would cancel. Exactly 0 where x is constant."""
    return np.zeros(len(x)) if np.min(x) == np.max(x) else x - np.mean(x)


def standardised(x: np.ndarray) -> np.ndarray:
    """Mean 0 and variance 1; all 0 where x is constant."""
    off = centred(x)
    scale = np.sqrt(np.mean(off**2))
    return off / scale if scale else off


def variance_columns(x: np.ndarray) -> list[np.ndarray]:
    """What `variance` takes."""
    x = centred(x)
    return [x, x**2]


def weight_columns(log_weight: np.ndarray) -> list[np.ndarray]:
    """What `squared_cv` takes: w / mean w - 1, w shifted by its maximum so that none overflows."""
    weight = np.exp(log_weight - np.max(log_weight))
    x = weight / np.mean(weight) - 1
    return [x, x**2]


def slope_columns(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """What `slope` takes."""
    x, y = centred(x), centred(y)
    return [x, y, x**2, x * y]


def correlation_columns(x: np.ndarray, y: np.ndarray) -> list[np.ndarray]:
    """What `fisher_z` takes: u is x, and u + w is y, both standardised."""
    u = standardised(x)
    w = standardised(y) - u
    return [u, w, u**2, u * w, w**2]


def largest_share(log_weight: np.ndarray) -> float:
    """Of the sum of the weights, what the largest one carries."""
    return float(1 / np.sum(np.exp(log_weight - np.max(log_weight))))


# ---------------------------------------------------------------- bootstrap-t


def bootstrap_t(
    statistics: Mapping[Key, Statistic], *, seed: int, resamples: int
) -> dict[Key, Estimate]:
    """Every statistic with its studentised interval (Efron & Tibshirani 1993, chapter 12.5).

    All are resampled together, one draw of sequences for each resample. A statistic with fewer than
    MIN_SEQUENCES sequences under any of its means has no interval.
    """
    with np.errstate(all="ignore"):
        found = {key: Estimate(s.value()) for key, s in statistics.items()}
        usable = {key: s for key, s in statistics.items() if s.has_interval()}
        if usable:
            drawn = _draw(list(usable.values()), seed, resamples)
            found |= {k: _studentised(s, drawn, found[k].value) for k, s in usable.items()}
    return found


@dataclass(frozen=True)
class _Drawn:
    """Resampled sums; row 0 is the sample itself.

    sums: (1 + B, K) of centred columns and counts, in the order of index. products: (1 + B, P) of
    pairs of them, in the order of pairs.
    """

    sums: np.ndarray
    products: np.ndarray
    index: Mapping[Hashable, int]
    pairs: Mapping[tuple[int, int], int]

    def second(self, where: list[int]) -> np.ndarray:
        """(1 + B, k, k) sums of products of these columns."""
        cells = [self.pairs[min(i, j), max(i, j)] for i in where for j in where]
        return self.products[:, cells].reshape(-1, len(where), len(where))


def _draw(statistics: list[Statistic], seed: int, resamples: int) -> _Drawn:
    arrays: dict[Hashable, np.ndarray] = {}
    for s in statistics:
        arrays |= {m.key: m.centred() for m in s.means if m.key not in arrays}
        arrays |= {id(c): c for c in s.counts}
    index = {key: k for k, key in enumerate(arrays)}
    numbers = [sorted(index[key] for key in s.keys) for s in statistics]
    wanted = dict.fromkeys(pair for n in numbers for pair in combinations_with_replacement(n, 2))
    pairs = {pair: k for k, pair in enumerate(wanted)}
    left, right = np.array(list(pairs)).T
    columns = np.column_stack(list(arrays.values()))
    both = np.hstack([columns, columns[:, left] * columns[:, right]])
    sums = resampled_sums(both, seed, resamples)
    return _Drawn(sums[:, : len(index)], sums[:, len(index) :], index, pairs)


def resampled_sums(columns: np.ndarray, seed: int, resamples: int) -> np.ndarray:
    """(S, K) -> (1 + resamples, K): sums over the sample, then over S sequences drawn from it."""
    sequences = len(columns)
    rng = np.random.default_rng(seed)
    times = np.empty((max(1, min(resamples, CHUNK // sequences)), sequences))
    parts = [columns.sum(axis=0, keepdims=True)]
    for first in range(0, resamples, len(times)):
        rows = times[: resamples - first]
        step = max(1, CACHED // sequences)
        for at in range(0, len(rows), step):
            _draw_times(rng, rows[at : at + step])
        parts.append(rows @ columns)
    return np.concatenate(parts)


def _draw_times(rng: np.random.Generator, rows: np.ndarray) -> None:
    """Fill (B, S) with how often each of B resamples draws each of S sequences. The draw does not
    depend on B."""
    count, sequences = rows.shape
    drawn = rng.integers(sequences, size=rows.shape) + sequences * np.arange(count)[:, None]
    rows[:] = np.bincount(drawn.ravel(), minlength=rows.size).reshape(rows.shape)


def _studentised(statistic: Statistic, drawn: _Drawn, value: float) -> Estimate:
    """[value - t(97.5%)·se, value - t(2.5%)·se], widened to hold the value itself.

    Without any variance it is [value, value]. A resample without variance that misses the value
    has t = ±inf and one that hits it is dropped; where over 2.5% miss, that end stays open. (If
    they were dropped too, a rare event seen in one sequence would have its own share as its bound.)
    """
    theta, error = _linearised(statistic, drawn)
    if np.isnan(error[0]):
        return Estimate(value, math.nan, math.nan)
    if error[0] == 0:
        return Estimate(value, value, value)
    t = (theta[1:] - theta[0]) / error[1:]
    t = np.sort(t[~np.isnan(t)])
    if not t.size:
        return Estimate(value)
    cut = math.ceil(TAIL * len(t))
    low, high = value - t[-cut] * error[0], value - t[cut - 1] * error[0]
    return Estimate(value, min(float(low), value), max(float(high), value))


def _linearised(statistic: Statistic, drawn: _Drawn) -> tuple[np.ndarray, np.ndarray]:
    """(1 + B,) statistics and their standard errors: NaN where one overflows, or a resample leaves
    the statistic undefined.

    The S/(S - 1) of the cluster variance is left out: it cancels between t and the interval.
    """
    keys, k = statistic.keys, len(statistic.means)
    where = [drawn.index[key] for key in keys]
    owner = [keys.index(id(m.counts)) for m in statistic.means]
    counts = drawn.sums[:, where][:, owner]
    shift = drawn.sums[:, where[:k]] / counts
    theta, partials = statistic.smooth(statistic.at + shift)
    weights = np.zeros((len(theta), len(where)))
    weights[:, :k] = partials / counts
    for column, at in enumerate(owner):
        weights[:, at] -= weights[:, column] * shift[:, column]
    parts = weights[:, :, None] * weights[:, None, :] * drawn.second(where)
    square, size = parts.sum(axis=(1, 2)), np.abs(parts).sum(axis=(1, 2))
    error = np.sqrt(np.where(square <= ROUNDING * size, 0.0, square))
    return theta, np.where(np.isfinite(size), error, math.nan)


# ---------------------------------------------------------------- quantiles


def quantiles(x: np.ndarray, starts: np.ndarray, shares: Sequence[float]) -> list[Estimate]:
    """The quantiles of x (n,) at these shares, each interval inverting that of P[x <= q].

    starts: (S,) where each sequence begins in x. Woodruff (1952), with the cluster-robust standard
    error of the share at Student's t with S - 1 degrees of freedom. Inverting the test at each q,
    or the share's interval in logits, covers p99 of heavy tails at 0.88 to 0.90; this at 0.92 to
    0.94.
    """
    with np.errstate(all="ignore"):
        # Between two infinities numpy's interpolation is NaN.
        values = [float(v) if v == v else math.inf for v in np.quantile(x, shares)]
        if len(starts) < MIN_SEQUENCES:
            return [Estimate(v) for v in values]
        if np.min(x) == np.max(x):
            return [Estimate(v, v, v) for v in values]
        reaches = [_share_bounds(x, starts, p, v) for p, v in zip(shares, values, strict=True)]
        ends = np.array([p for reach in reaches for p in reach])
        found = np.quantile(x, np.clip(ends, 0, 1))
    found[ends < 0], found[ends > 1] = -math.inf, math.inf
    bounds = iter(found.tolist())
    return [
        Estimate(v, next(bounds), next(bounds)) if reach else Estimate(v)
        for v, reach in zip(values, reaches, strict=True)
    ]


def _share_bounds(x: np.ndarray, starts: np.ndarray, p: float, value: float) -> tuple[float, ...]:
    """Interval of P[x <= value]; empty where fewer than MIN_BEYOND sequences go beyond it."""
    beyond, inside = (x > value if p >= 0.5 else x < value), x <= value
    if np.count_nonzero(np.logical_or.reduceat(beyond, starts)) < MIN_BEYOND:
        return ()
    hits, counts = np.add.reduceat(inside, starts, dtype=np.int64), np.diff(starts, append=len(x))
    off = (hits - np.mean(inside) * counts) / len(x)
    clustered = np.sum(off**2) * len(starts) / (len(starts) - 1)
    # Sequences that happen to hold the same number inside would leave no variance at all.
    error = math.sqrt(max(clustered, p * (1 - p) / len(x)))
    reach = float(stdtrit(len(starts) - 1, 1 - TAIL) * error)
    return p - reach, p + reach
