"""Interval machinery: standard errors against brute force, coverage, and the degenerate cases."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mismatch.compare import stats
from mismatch.compare.stats import Clusters, Estimate, Mean, Scale, Statistic


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def means(columns: list[np.ndarray], lengths: np.ndarray) -> tuple[Mean, ...]:
    """Per-token columns in sequences of these lengths."""
    rows = np.arange(len(lengths))
    return Clusters(np.repeat(rows, lengths), rows).means(columns)


def one(statistic: Statistic, seed: int = 0, resamples: int = 400) -> Estimate:
    return stats.bootstrap_t({"it": statistic}, seed=seed, resamples=resamples)["it"]


# ---------------------------------------------------------------- statistics


def smooth_cases() -> list[tuple[str, stats.Smooth, list[np.ndarray]]]:
    x, y = np.random.default_rng(5).normal(size=(2, 300))
    return [
        ("mean", stats.MEAN, [x]),
        ("linear", stats.linear(1.0, -0.5), [x, y]),
        ("variance", stats.variance, stats.variance_columns(x)),
        ("squared_cv", stats.squared_cv, stats.weight_columns(0.5 * x)),
        ("slope", stats.slope, stats.slope_columns(x, 2 * x + y)),
        ("fisher_z", stats.fisher_z, stats.correlation_columns(x, x + 0.3 * y)),
        ("fisher_z below 0", stats.fisher_z, stats.correlation_columns(x, y - x)),
    ]


@pytest.mark.parametrize(("name", "smooth", "columns"), smooth_cases(), ids=lambda v: str(v)[:16])
def test_partial_derivatives_are_those_of_the_statistic(
    name: str, smooth: stats.Smooth, columns: list[np.ndarray]
) -> None:
    """Each smooth function returns its own gradient, also away from the centred sample."""
    at = np.array([c.mean() for c in columns]) + 0.01
    value, partials = smooth(at)
    step = 1e-6
    for k in range(len(at)):
        up, down = (smooth(at + sign * step * np.eye(len(at))[k])[0] for sign in (1, -1))
        assert partials[k] == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-8)
    assert np.isfinite(value)


def test_statistics_agree_with_numpy(rng: np.random.Generator) -> None:
    """Variance, coefficient of variation, slope and correlation are numpy's own."""
    x, y = rng.normal(3, 1, size=200), rng.normal(size=200)
    z = x + y

    def value(smooth: stats.Smooth, columns: list[np.ndarray]) -> float:
        return float(smooth(np.array([c.mean() for c in columns]))[0])

    assert value(stats.variance, stats.variance_columns(x)) == pytest.approx(np.var(x))
    cv2 = np.var(np.exp(x)) / np.mean(np.exp(x)) ** 2
    assert value(stats.squared_cv, stats.weight_columns(x)) == pytest.approx(cv2)
    assert value(stats.slope, stats.slope_columns(x, z)) == pytest.approx(np.polyfit(x, z, 1)[0])
    r = math.tanh(value(stats.fisher_z, stats.correlation_columns(x, z)))
    assert r == pytest.approx(np.corrcoef(x, z)[0, 1])


def test_a_correlation_close_to_1_keeps_its_digits(rng: np.random.Generator) -> None:
    """1 - r of 5e-15 is resolved although r itself is one rounding away from 1."""
    x, y = rng.normal(size=5000), rng.normal(size=5000)
    columns = stats.correlation_columns(x, x + 1e-7 * y)
    z = float(stats.fisher_z(np.array([c.mean() for c in columns]))[0])
    assert 2 / (math.exp(2 * z) + 1) == pytest.approx(0.5e-14 * np.var(y) / np.var(x), rel=0.01)


@pytest.mark.parametrize(("name", "smooth", "columns"), smooth_cases(), ids=lambda v: str(v)[:16])
def test_errors_of_all_resamples_are_those_of_the_residuals(
    name: str, smooth: stats.Smooth, columns: list[np.ndarray]
) -> None:
    """The quadratic forms give, in every resample, the delta-method error computed the long way."""
    lengths = np.array([10, 30, 20, 40, 50, 25, 35, 45, 15, 30])
    statistic = Statistic(means(columns, lengths), smooth)
    drawn = stats._draw([statistic], 3, 20)
    theta, error = stats._linearised(statistic, drawn)
    rng = np.random.default_rng(3)
    sums = np.stack([m.sums for m in statistic.means], axis=1)
    for k in range(1, 21):
        chosen = rng.integers(10, size=10)
        n, s = lengths[chosen].astype(float), sums[chosen]
        at = s.sum(axis=0) / n.sum()
        value, partials = smooth(at)
        residuals = (s - at * n[:, None]) @ partials / n.sum()
        assert theta[k] == pytest.approx(float(value), rel=1e-9)
        assert error[k] == pytest.approx(np.sqrt(np.sum(residuals**2)), rel=1e-6)


# ---------------------------------------------------------------- bootstrap-t


def test_the_interval_is_the_textbook_bootstrap_t(rng: np.random.Generator) -> None:
    """For plain means the bounds are mean - t·se with t from the resamples' own errors."""
    x = rng.exponential(size=30)
    found = one(Statistic(means([x], np.ones(30, int)), stats.MEAN), resamples=2000)
    rng, t = np.random.default_rng(0), []
    for _ in range(2000):
        drawn = x[rng.integers(30, size=30)]
        t.append((drawn.mean() - x.mean()) / np.std(drawn))
    t.sort()
    assert found.low == pytest.approx(x.mean() - t[-50] * np.std(x))
    assert found.high == pytest.approx(x.mean() - t[49] * np.std(x))


def test_statistics_do_not_disturb_each_other(rng: np.random.Generator) -> None:
    """A statistic has the same interval alone and among others: one draw serves all."""
    lengths = np.full(20, 5)
    a, b = means([rng.normal(size=100), rng.normal(size=100)], lengths)
    both = stats.bootstrap_t(
        {"a": Statistic((a,), stats.MEAN), "b": Statistic((b,), stats.MEAN)}, seed=1, resamples=200
    )
    assert both["a"] == pytest.approx(one(Statistic((a,), stats.MEAN), 1, 200))
    assert both["b"] == pytest.approx(one(Statistic((b,), stats.MEAN), 1, 200))


def test_chunks_do_not_change_the_draw(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """The resamples are the same however few of them are held at a time."""
    x = rng.normal(size=(40, 2))
    whole = stats.resampled_sums(x, 0, 30)
    monkeypatch.setattr(stats, "CHUNK", 7 * 40)
    assert stats.resampled_sums(x, 0, 30) == pytest.approx(whole)
    assert whole[0] == pytest.approx(x.sum(axis=0))


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
def test_constant_data_have_a_degenerate_interval(value: float, rng: np.random.Generator) -> None:
    """Without variation the interval is [v, v], whatever rounding the unequal sums carry."""
    lengths = rng.integers(1, 60, size=25)
    found = one(Statistic(means([np.full(lengths.sum(), value)], lengths), stats.MEAN))
    assert found.value == pytest.approx(value)
    assert found.low == found.high == found.value


def test_an_event_seen_in_one_sequence_leaves_the_upper_end_open() -> None:
    """Resamples that miss the event say 'not known', and never 'no more than in this sample'."""
    x = np.zeros(40)
    x[7] = 1
    found = one(Statistic(means([x], np.ones(40, int)), stats.MEAN), resamples=2000)
    assert found.high == math.inf
    assert found.low is not None
    assert found.low <= 1 / 40


def test_an_event_seen_in_many_sequences_has_both_ends() -> None:
    """Ten hits in 40 are enough for a two-sided interval."""
    x = np.repeat([1.0, 0.0], [10, 30])
    found = one(Statistic(means([x], np.ones(40, int)), stats.MEAN), resamples=2000)
    assert 0 < found.low < 0.25 < found.high < 0.6  # type: ignore[operator]


@pytest.mark.parametrize(("sequences", "has"), [(7, False), (8, True)])
def test_fewer_than_eight_sequences_have_no_interval(
    sequences: int, has: bool, rng: np.random.Generator
) -> None:
    """Sequences are counted where they have an observation."""
    rows = np.arange(20)
    x = rng.normal(size=sequences)
    of = Clusters(rows[:sequences], rows).means([x])
    found = one(Statistic(of, stats.MEAN))
    assert found.value == pytest.approx(x.mean())
    assert (found.low is not None, found.high is not None) == (has, has)


def test_overflow_is_told_apart_from_no_interval() -> None:
    """An infinite mean is an infinite value; a finite one whose square overflows has NaN bounds."""
    ones = np.ones(10, int)
    assert one(Statistic(means([np.full(10, np.inf)], ones), stats.MEAN)).value == math.inf
    huge = one(Statistic(means([1e200 * np.arange(10.0)], ones), stats.MEAN))
    assert huge.value == pytest.approx(4.5e200)
    assert huge.low is not None
    assert math.isnan(huge.low)


def test_undefined_statistics_are_nan_without_interval(rng: np.random.Generator) -> None:
    """A slope on one length and a correlation with a constant are 0/0, not overflow."""
    ones, x = np.ones(10, int), rng.normal(size=10)
    for smooth, columns in (
        (stats.slope, stats.slope_columns(np.full(10, 3.0), x)),
        (stats.fisher_z, stats.correlation_columns(np.full(10, 0.5), x)),
        (stats.fisher_z, stats.correlation_columns(x, np.full(10, 0.5))),
    ):
        found = one(Statistic(means(columns, ones), smooth))
        assert math.isnan(found.value)
        assert found.low is None


def test_perfect_correlation_is_1_with_a_degenerate_interval(rng: np.random.Generator) -> None:
    """Identical sides give exactly 1 [1, 1], opposite ones -1."""
    x = rng.normal(size=20)
    for y, r in ((x, 1.0), (3 * x + 1, 1.0), (-x, -1.0)):
        columns = stats.correlation_columns(x, y)
        found = one(Statistic(means(columns, np.ones(20, int)), stats.fisher_z))
        assert [math.tanh(v) for v in found if v is not None] == [r, r, r]


def test_a_decreasing_map_swaps_the_bounds_and_a_cut_keeps_them_possible() -> None:
    """1/x of [-1, 4] cut at 0 is [0.25, undefined]; an open end stays open."""
    inverse = Scale(lambda x, _: 1 / x if x > 0 else math.nan, falls=True, least=0.0)
    found = inverse.of(Estimate(2.0, -1.0, 4.0), 1)
    assert (found.value, found.low) == (0.5, 0.25)
    assert found.high is not None
    assert math.isnan(found.high)
    assert Scale(most=1.0).of(Estimate(0.5, 0.1, math.inf), 1).high == math.inf
    assert Scale(most=1.0).of(Estimate(0.5, 0.1, 1.7), 1).high == 1.0


# ---------------------------------------------------------------- quantiles


FULL = np.full(60, 20)


def quantile(x: np.ndarray, lengths: np.ndarray, p: float) -> Estimate:
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    return stats.quantiles(x, starts, [p])[0]


def test_quantiles_are_numpys(rng: np.random.Generator) -> None:
    """The values are those of numpy's default interpolation."""
    x = rng.normal(size=997)
    found = stats.quantiles(x, np.arange(997), [0.05, 0.5, 0.99])
    assert [f.value for f in found] == pytest.approx(list(np.quantile(x, [0.05, 0.5, 0.99])))


def test_a_median_of_single_tokens_has_the_binomial_interval() -> None:
    """Without clustering the bounds are the order statistics near n/2 ± 1.96·sqrt(n)/2."""
    found = quantile(np.arange(10001.0), np.ones(10001, int), 0.5)
    assert found.low == pytest.approx(5000 - 98, abs=2)
    assert found.high == pytest.approx(5000 + 98, abs=2)


def test_clustering_widens_a_quantile_interval(rng: np.random.Generator) -> None:
    """Tokens that are copies within their sequence count once."""
    per_sequence = rng.normal(size=100)
    single = quantile(per_sequence, np.ones(100, int), 0.5)
    copied = quantile(np.repeat(per_sequence, 50), np.full(100, 50), 0.5)
    assert copied.low == pytest.approx(single.low, abs=0.1)
    assert copied.high == pytest.approx(single.high, abs=0.1)


@pytest.mark.parametrize(("p", "beyond", "has"), [(0.9, 19, False), (0.9, 20, True)])
def test_a_quantile_needs_twenty_sequences_beyond_it(p: float, beyond: int, has: bool) -> None:
    """Sequences, not tokens, are counted on the smaller side; the lower tail mirrors the upper."""
    x = np.random.default_rng(5).random((60, 20))
    for k in range(120):
        x[k % beyond, k // beyond] = 2 + k
    for found in (quantile(x.ravel(), FULL, p), quantile(-x.ravel(), FULL, 1 - p)):
        assert (found.low is not None) == has


def test_equal_tokens_have_a_degenerate_quantile() -> None:
    """A quantile of identical tokens is [v, v] from eight sequences on."""
    assert quantile(np.zeros(8), np.ones(8, int), 0.99) == (0.0, 0.0, 0.0)
    assert quantile(np.zeros(7), np.ones(7, int), 0.99) == (0.0, None, None)


def test_a_quantile_among_infinities_is_infinite() -> None:
    """numpy would say NaN between two infinities, which would read as undefined."""
    assert quantile(np.array([0.0, np.inf, np.inf]), np.ones(3, int), 0.9).value == math.inf


# ---------------------------------------------------------------- coverage


def test_the_bootstrap_t_covers_a_skewed_clustered_mean() -> None:
    """95% intervals of a skewed ratio hold the truth in 90 to 98% of 400 samples."""
    rng, inside = np.random.default_rng(11), 0
    for trial in range(400):
        lengths = rng.integers(5, 40, size=50)
        scale = np.repeat(rng.gamma(4, 0.25, size=50), lengths)
        x = scale * rng.exponential(size=len(scale))
        found = one(Statistic(means([x], lengths), stats.MEAN), trial, 300)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= 1.0 <= found.high
    assert 0.90 <= inside / 400 <= 0.98


def test_quantile_intervals_cover() -> None:
    """The 90th percentile of correlated tokens lies inside in 91 to 98.5% of 600 samples."""
    rng, inside = np.random.default_rng(12), 0
    truth = 1.2815515655446004 * math.sqrt(1.25)
    for _ in range(600):
        lengths = rng.integers(20, 60, size=50)
        x = np.repeat(rng.normal(0, 0.5, size=50), lengths) + rng.normal(size=lengths.sum())
        found = quantile(x, lengths, 0.9)
        assert found.low is not None
        assert found.high is not None
        inside += found.low <= truth <= found.high
    assert 0.91 <= inside / 600 <= 0.985


def test_the_bound_of_what_was_never_seen_is_the_worst_that_would_be_missed() -> None:
    """No chances p_i that go unseen with 2.5% give a larger weighted share; some reach it."""
    weights = np.array([1.0, 1, 2, 3, 8, 30])
    bound = stats.unseen(weights)
    draws = np.random.default_rng(0).dirichlet(np.full(6, 0.3), size=20000)
    chances = 1 - 0.025**draws  # Π(1 - p_i) = 0.025 in each
    shares = chances @ weights / weights.sum()
    assert shares.max() <= bound
    assert shares.max() > 0.98 * bound
    assert stats.unseen(np.ones(40)) == pytest.approx(1 - 0.025 ** (1 / 40))


def test_a_quantile_of_even_sequences_still_has_a_width() -> None:
    """Forty sequences with one of ten tokens beyond p90 each: the binomial spread remains."""
    x = np.tile(np.arange(10.0), 40) + np.random.default_rng(2).random(400)
    (found,) = stats.quantiles(x, np.arange(0, 400, 10), [0.9])
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high


def test_a_standard_error_that_overflows_is_no_interval_of_no_width() -> None:
    """Values of 1e200 have a mean, but the squares of their residuals do not exist."""
    x = np.array([1e200, *[1.0] * 39])
    found = one(Statistic(means([x], np.full(20, 2)), stats.MEAN))
    assert found.value == pytest.approx(1e200 / 40)
    assert found.low is not None
    assert math.isnan(found.low)


def test_a_resample_that_leaves_a_statistic_undefined_costs_no_interval() -> None:
    """One short sequence among forty of one length: a third of the resamples have no slope, and the
    others tell how far it may be off."""
    length = np.array([20.0] * 40 + [5.0])
    drift = 0.01 * length + np.random.default_rng(4).normal(0, 0.02, 41)
    columns = stats.slope_columns(length, drift)
    found = one(Statistic(means(columns, np.ones(41, int)), stats.slope))
    assert found.low is not None
    assert found.high is not None
    assert found.low < found.value < found.high
