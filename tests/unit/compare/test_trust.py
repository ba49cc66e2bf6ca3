"""Which intervals are marked: the shape of data whose shape is known, and the rule on it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mismatch.compare import trust
from mismatch.compare.metrics import Aligned, measure
from mismatch.compare.stats import Clusters
from mismatch.compare.trust import Shape, trusted


def shape(d: np.ndarray, lengths: np.ndarray) -> Shape:
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    return trust.shape(d, Clusters(sequence, np.arange(len(lengths))))


def aligned(d: np.ndarray, lengths: np.ndarray) -> Aligned:
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    infer = np.full(len(d), -1.0)
    at = np.arange(len(d))
    return Aligned(sequence, at, (infer + d).astype(np.float32), infer.astype(np.float32))


# ---------------------------------------------------------------- the shape


def test_independent_tokens_have_a_design_effect_of_one() -> None:
    """Clustering is 1 / sequences where the sequences do not matter, here within 15%."""
    d = np.random.default_rng(1).normal(size=400 * 30)
    assert shape(d, np.full(400, 30)).clustering * 400 == pytest.approx(1.0, rel=0.15)


def test_equal_tokens_have_the_design_effect_of_their_number() -> None:
    """30 equal tokens in each of 10 sequences: as if each sequence were one token."""
    d = np.repeat(np.arange(10.0), 30)
    assert shape(d, np.full(10, 30)).clustering == pytest.approx(30 / 10 * 10 / 9)


@pytest.mark.parametrize("rho", [0.0, 0.1, 0.4])
def test_bias_is_the_squared_correlation_times_the_tokens(rho: float) -> None:
    """2,000 sequences of 30 tokens whose correlation is known, within 0.15."""
    rng = np.random.default_rng(4)
    bias = np.repeat(rng.normal(size=2000), 30)
    d = np.sqrt(rho) * bias + np.sqrt(1 - rho) * rng.normal(size=len(bias))
    assert shape(d, np.full(2000, 30)).bias == pytest.approx(30 * rho**2, abs=0.15, rel=0.1)


def test_one_token_a_sequence_shows_no_bias() -> None:
    """Nothing tells the token from its sequence, and the sequences are what is resampled."""
    d = np.random.default_rng(3).normal(size=20)
    assert shape(d, np.ones(20, int)).bias == 0.0


def test_kurtosis_is_that_of_the_sequences_means() -> None:
    """One sequence of ten stands alone: the kurtosis of ten values, nine equal, is 8.11."""
    d = np.repeat([1.0, *[0.0] * 9], 5)
    assert shape(d, np.full(10, 5)).kurtosis == pytest.approx((0.9**4 + 9e-4) / 10 / 0.09**2)


def test_short_sequences_do_not_pass_for_heavy_ones() -> None:
    """Means over 2 tokens vary more than means over 400; each is held against its own spread."""
    rng = np.random.default_rng(2)
    lengths = np.where(np.arange(300) % 10 == 0, 2, 400)
    d = rng.normal(size=lengths.sum())
    means = np.add.reduceat(d, np.cumsum(lengths) - lengths) / lengths
    plain = np.mean((means - means.mean()) ** 4) / np.var(means) ** 2
    assert plain > 10
    assert shape(d, lengths).kurtosis < trust.MOST_KURTOSIS


@pytest.mark.parametrize("value", [0.0, 0.3])
def test_what_does_not_vary_has_no_shape_to_distrust(value: float) -> None:
    """Equal sides, or sides apart by a constant: the degenerate interval is exact."""
    found = shape(np.full(90, value), np.full(9, 10))
    assert (found.bias, found.clustering, found.kurtosis) == (0.0, 0.0, 0.0)
    assert trusted("k3", found)


def test_the_largest_float32_does_not_overflow() -> None:
    """A shape that were NaN would compare as false, and pass for heavy or light by accident."""
    d = np.where(np.arange(80) == 3, 2 * float(np.finfo(np.float32).max), 0.01)
    found = shape(d, np.full(8, 10))
    assert np.isfinite([found.bias, found.clustering, found.kurtosis]).all()
    assert not trusted("k3", found)


# ---------------------------------------------------------------- the rule

LIKE = Shape(sequences=20, bias=0.05, clustering=0.1, kurtosis=3.0)


@pytest.mark.parametrize(
    ("key", "changes", "holds"),
    [
        ("k3", {}, True),
        ("k3", {"bias": 4.0}, False),
        ("k3", {"clustering": 0.4}, False),
        ("k3", {"bias": 4.0, "sequences": 49}, False),
        ("k3", {"bias": 4.0, "clustering": 0.4, "sequences": 50}, True),
        ("k3", {"kurtosis": 6.0, "sequences": 200}, False),
        ("k1", {"bias": 4.0, "clustering": 0.9, "sequences": 8}, True),
        ("k1", {"kurtosis": 6.0}, False),
        ("seq_k1", {"bias": 4.0, "kurtosis": 6.0}, True),
    ],
)
def test_the_rule(key: str, changes: dict[str, float], holds: bool) -> None:
    """Sizes need 50 sequences or ones that hardly differ; nothing holds with heavy sequences; what
    was not studied is not marked."""
    assert trusted(key, replace(LIKE, **changes)) is holds


def test_a_metric_is_as_good_as_the_worst_it_is_made_of() -> None:
    """An excess is trusted where its gap and both floors are."""
    assert trusted("k3", LIKE, LIKE, LIKE)
    assert not trusted("k3", LIKE, LIKE, replace(LIKE, bias=4.0))


# ---------------------------------------------------------------- in measure

LENGTHS = np.full(12, 40)


def draw(effect: float, seed: int) -> Aligned:
    rng = np.random.default_rng(seed)
    bias = np.repeat(effect * rng.normal(size=len(LENGTHS)), LENGTHS)
    return aligned(bias + 0.02 * rng.normal(size=LENGTHS.sum()), LENGTHS)


def test_measure_marks_sizes_of_few_sequences_that_differ() -> None:
    """k3 of 12 biased sequences is marked, k1 is not, and a metric that is trusted has no key."""
    found = measure(draw(0.03, 1), {}, resamples=50).metrics
    assert found["k3"]["trusted"] is False
    assert found["rms_logprob_diff"]["trusted"] is False
    assert "trusted" not in found["k1"]
    assert "trusted" not in found["exact_fraction"]


def test_measure_marks_nothing_where_sequences_hardly_matter() -> None:
    """The same number of sequences, without a bias of their own."""
    found = measure(draw(0.0, 7), {}, resamples=50).metrics
    assert not [key for key, entry in found.items() if "trusted" in entry]


def test_a_floor_that_is_not_trusted_marks_the_excess_and_not_the_gap() -> None:
    """The gap's own interval does not rest on the floors."""
    floors = {"batch": {"train": [draw(0.03, 3)], "infer": [draw(0.0, 4)]}}
    found = measure(draw(0.0, 5), floors, resamples=50)
    assert found.excess is not None and found.floor is not None
    assert found.excess["k3"]["trusted"] is False
    assert found.floor["batch"]["train"]["k3"]["trusted"] is False
    assert "trusted" not in found.floor["batch"]["infer"]["k3"]
    assert "trusted" not in found.metrics["k3"]


def test_what_has_no_interval_has_no_mark() -> None:
    """Seven sequences are no evidence already."""
    d = np.repeat(np.arange(7.0), 9) * 0.01
    found = measure(aligned(d, np.full(7, 9)), {}, resamples=50).metrics
    assert not [key for key, entry in found.items() if "trusted" in entry]


# ---------------------------------------------------------------- an excess


@pytest.mark.parametrize(("floor", "holds"), [(1e-5, True), (3e-5, False)])
def test_an_excess_hears_of_a_floor_that_is_large_enough_to_matter(
    floor: float, holds: bool
) -> None:
    """Its heavy tail counts from a quarter of the half-width of the gap's interval on."""
    gap = {"value": 4e-4, "low": 3e-4, "high": 5e-4}
    calm, heavy = Shape(64, 0.0, 0.1, 3.0), Shape(64, 0.0, 0.1, 40.0)
    value = {"value": floor, "low": None, "high": None}
    entry = trust.marked_excess({**gap}, "k3", (gap, calm), [(value, heavy), (value, calm)])
    assert entry.get("trusted", True) is holds


def test_an_excess_of_a_gap_that_is_not_trusted_is_not() -> None:
    """Whatever its floors are; and a gap without an interval hears of every floor."""
    calm, heavy = Shape(64, 0.0, 0.1, 3.0), Shape(64, 0.0, 0.1, 40.0)
    gap = {"value": 4e-4, "low": 3e-4, "high": 5e-4}
    none = {"value": 0.0, "low": 0.0, "high": 0.0}
    assert trust.marked_excess({**gap}, "k3", (gap, heavy), [(none, calm)])["trusted"] is False
    assert trust.marked_excess({**gap}, "k3", (none, calm), [(none, heavy)])["trusted"] is False
