"""Every metric against a value computed by hand, and what may never happen to any of them."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mismatch.compare.breakdowns import breakdowns
from mismatch.compare.corrections import corrections, ess_by_length
from mismatch.compare.metrics import (
    DEFINITIONS,
    EXTREMES,
    QUANTILES,
    Aligned,
    Measured,
    measure,
)
from mismatch.glossary import METRICS, token_keys
from tests.unit.compare.samples import aligned, noisy, of_d

L = math.log(2.5)


@pytest.fixture(autouse=True)
def no_warning_leaks() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def only(key: str, gap: Aligned, **rest: Any) -> dict[str, float | None]:
    return measure(gap, {}, **rest).metrics[key]


# ---------------------------------------------------------------- values

#: r = 0.4, 1 in the first sequence and 2.5, 1, 6.25 in the second: d = -L, 0 and L, 0, 2L.
BY_HAND = {
    "k1": -0.4 * L,
    "k2": 0.6 * L**2,
    "k3": 1.23 - 0.4 * L,
    "k3_rev": 0.012 + 0.4 * L,
    "abs_logprob_diff_mean": 0.8 * L,
    "abs_logprob_diff_std": math.sqrt(0.7) * L,
    "abs_logprob_diff_p50": L,
    "abs_logprob_diff_p90": 1.6 * L,
    "abs_logprob_diff_p99": 1.96 * L,
    "abs_logprob_diff_p999": 1.996 * L,
    "abs_logprob_diff_max": 2 * L,
    "logprob_diff_mean": 0.4 * L,
    "rms_logprob_diff": math.sqrt(1.2) * L,
    "prob_diff_mean": 0.204,
    "prob_diff_max": 0.42,
    "prob_diff_std": math.sqrt(0.03708),
    "prob_pearson": -0.0324 / math.sqrt(0.108 * 0.14832),
    "mult_prob_error": 2.65,
    "ratio_mean": 2.23,
    "ratio_min": 0.4,
    "ratio_max": 6.25,
    "ratio_p01": 0.424,
    "ratio_p99": 6.1,
    "extreme_fraction_1.1": 0.6,
    "extreme_fraction_2": 0.6,
    "extreme_fraction_3": 0.2,
    "extreme_fraction_5": 0.2,
    "extreme_fraction_10": 0.0,
    "chi2_token": 8.4945,
    "ess_token": 11.15**2 / (5 * 47.4725),
    "exact_fraction": 0.4,
    "confident_disagreement": 0.0,
    "seq_log_ratio_mean": L,
    "seq_log_ratio_std": math.sqrt(8) * L,
    "seq_log_ratio_p05": -0.8 * L,
    "seq_log_ratio_p50": L,
    "seq_log_ratio_p95": 2.8 * L,
    "seq_log_ratio_slope_per_1k": 4000 * L,
    "seq_k1": -L,
    "seq_chi2": (0.4**2 + 15.625**2) / 2 - 1,
    "ess_seq": 16.025**2 / (2 * (0.4**2 + 15.625**2)),
    "seq_geo_ratio": (math.sqrt(0.4) + 2.5) / 2,
    "seq_max_prob_diff_mean": 0.36,
    "seq_prob_diff_gt_0.5": 0.0,
    "log_ppl_diff": -L / 4,
    "ppl_ratio": (math.sqrt(2.5) + 0.4) / 2,
    "seq_clamped_count": 0.0,
    "ess_half_length": math.log(2) / (2 * (1.23 - 0.4 * L)),
    "clamp_length": 20 / (1.23 - 0.4 * L),
}


@pytest.mark.parametrize("key", list(METRICS))
def test_each_metric_has_the_value_computed_by_hand(key: str) -> None:
    """Five tokens in two sequences give the number that pencil and paper give."""
    gap = aligned(
        np.log([0.2, 0.5, 0.5, 0.2, 0.5]), np.log([0.5, 0.5, 0.2, 0.2, 0.08]), lengths=[2, 3]
    )
    found = only(key, gap)
    assert found["value"] == pytest.approx(BY_HAND[key], rel=2e-6, abs=1e-12)
    assert found["low"] is found["high"] is None


def test_every_key_is_defined_once_and_in_the_order_of_the_table() -> None:
    """metrics of a pair has the keys of METRICS in its order, each with exactly one definition."""
    ordered = [key for shares in QUANTILES.values() for key in shares]
    assert sorted([*DEFINITIONS, *ordered, *EXTREMES]) == sorted(METRICS)
    assert list(measure(noisy(1, 2), {}).metrics) == list(METRICS)
    assert list(BY_HAND) == list(METRICS)
    assert {level for _, _, level in METRICS.values()} == {"token", "sequence"}
    assert all(METRICS[key][2] == "token" for key in token_keys())


def test_k3_and_k3_rev_differ_by_2000_on_one_confident_token() -> None:
    """Log-probabilities -5 (infer) against -15 (train) give k3 = 9 and k3_rev = 22 015."""
    found = measure(aligned([-15.0], [-5.0], [1]), {}).metrics
    assert found["k3"]["value"] == pytest.approx(9 + math.exp(-10))
    assert found["k3_rev"]["value"] == pytest.approx(22015.4658, rel=1e-8)


def test_k3_is_exact_where_float32_would_be_7000_times_off() -> None:
    """At d = 1e-6 k3 is d²/2 to nine digits."""
    d = float(np.float32(-1) - np.float32(-1 - 1e-6))
    found = only("k3", of_d([d], [1]))
    assert found["value"] == pytest.approx(d**2 / 2 + d**3 / 6, rel=1e-9)


def test_k1_less_k3_is_one_less_the_mean_ratio() -> None:
    """1 - mean r = k1 - k3, the check that E_infer[r] = 1 rests on."""
    found = {k: v["value"] for k, v in measure(noisy(2, size=0.5), {}).metrics.items()}
    assert found["k1"] - found["k3"] == pytest.approx(1 - found["ratio_mean"])  # type: ignore[operator]


def test_ess_and_chi2_are_two_faces_of_the_same_weights() -> None:
    """ess_token = (mean r)² / (1 + chi2_token)."""
    found = {k: v["value"] for k, v in measure(noisy(3, size=0.5), {}).metrics.items()}
    expected = found["ratio_mean"] ** 2 / (1 + found["chi2_token"])  # type: ignore[operator]
    assert found["ess_token"] == pytest.approx(expected)


def test_drift_with_length_has_the_sign_of_the_drift() -> None:
    """D = -0.002 per token gives a slope of -2 per 1 000 tokens, with an interval below 0."""
    rng = np.random.default_rng(4)
    lengths = rng.integers(50, 400, size=40)
    d = -0.002 + 0.01 * rng.normal(size=lengths.sum())
    found = only("seq_log_ratio_slope_per_1k", of_d(d, list(lengths)))
    assert found["value"] == pytest.approx(-2, abs=1)
    assert found["low"] < found["high"] < 0  # type: ignore[operator]


def test_equal_lengths_leave_the_slope_undefined() -> None:
    """A regression on one length is null, and that is no overflow."""
    found = measure(noisy(5), {})
    slope = found.metrics["seq_log_ratio_slope_per_1k"]
    assert slope == {"value": None, "low": None, "high": None}
    assert found.notes == []


def test_confident_disagreement_counts_p_of_exactly_one_half() -> None:
    """infer p >= 0.5 and d < -2, both read as float32 wrote them."""
    lp_infer = np.log([0.5, 0.5, 0.499, 0.9, 0.9])
    gap = aligned(lp_infer + np.array([-2.1, -1.9, -5, 2.1, -9]), lp_infer, [5])
    assert only("confident_disagreement", gap)["value"] == pytest.approx(0.4)


def test_counts_are_numbers_of_sequences() -> None:
    """One sequence with |Δp| > 0.5 and two with |D| > 20 are counted as 1 and 2."""
    gap = aligned([-0.1, -30, -40, -1], [-2.0, -5, -5, -1], [1, 1, 1, 1])
    assert only("seq_prob_diff_gt_0.5", gap)["value"] == 1
    assert only("seq_clamped_count", gap)["value"] == 2


# ---------------------------------------------------------------- what is not there


def test_zero_tokens_are_no_evidence() -> None:
    """Without a token every metric is null, there is no floor and no excess, and nothing warns."""
    found = measure(aligned([], [], []), {})
    assert (found.tokens, found.sequences, found.nan_tokens, found.inf_tokens) == (0, 0, 0, 0)
    assert all(v == {"value": None, "low": None, "high": None} for v in found.metrics.values())
    assert (found.floor, found.excess, found.notes) == (None, None, [])


def test_nan_and_infinite_tokens_are_counted_and_left_out() -> None:
    """NaN on either side is NaN, even beside an infinity; the rest is measured without them."""
    nan, inf = math.nan, math.inf
    gap = aligned([-1, nan, -inf, -1, inf, nan], [-1.5, -1, nan, -inf, -1, inf], [3, 1, 2])
    found = measure(gap, {})
    assert (found.tokens, found.sequences) == (1, 1)
    assert (found.nan_tokens, found.inf_tokens) == (3, 2)
    assert found.metrics["logprob_diff_mean"]["value"] == 0.5


def test_a_sequence_that_is_all_nan_changes_nothing_else() -> None:
    """Values and the count of sequences are those of the others."""
    gap = noisy(6)
    broken = replace(gap, lp_train=np.where(gap.sequence == 3, np.nan, gap.lp_train))
    rest = gap.sequence != 3
    other = Aligned(*(x[rest] for x in (gap.sequence, gap.position, gap.lp_train, gap.lp_infer)))
    left, right = measure(broken, {}, resamples=50), measure(other, {}, resamples=50)
    assert (left.sequences, left.nan_tokens) == (29, 20)
    for key in METRICS:
        assert left.metrics[key]["value"] == pytest.approx(right.metrics[key]["value"]), key


def test_overflow_is_null_with_a_note() -> None:
    """exp of 800 nats is null and named in the notes; what stays finite is shown."""
    found = measure(of_d([800.0, *[0.01] * 19], [2] * 10), {})
    for key in ("k3", "ratio_mean", "ratio_max", "chi2_token", "seq_chi2", "ess_half_length"):
        assert found.metrics[key] == {"value": None, "low": None, "high": None}, key
        assert any(note.startswith(f"{key} overflows") for note in found.notes), key
    assert found.metrics["k2"]["value"] == pytest.approx(800**2 / 40, rel=1e-3)
    assert found.metrics["ess_token"]["value"] == pytest.approx(1 / 20)
    assert found.metrics["ess_seq"]["value"] == pytest.approx(1 / 10)


def test_an_interval_that_overflows_is_null_with_a_note() -> None:
    """exp(2·300) is finite and its square is not: a value without an interval."""
    found = measure(of_d([300.0, *[0.01] * 19], [2] * 10), {})
    assert found.metrics["chi2_token"]["value"] == pytest.approx(math.exp(600) / 20, rel=1e-9)
    assert found.metrics["chi2_token"]["low"] is None
    assert "chi2_token overflows: a value, but no interval" in found.notes


def test_a_metric_made_of_k3_is_shown_as_itself_where_the_interval_overflows() -> None:
    """k3 of e^400 has no interval; 20 / k3 is then a tiny length, never k3 itself."""
    found = measure(of_d([400.0, *[0.01] * 19], [2] * 10), {}).metrics
    assert found["k3"]["value"] == pytest.approx(math.exp(400) / 20, rel=1e-9)
    assert found["k3"]["low"] is None
    assert found["clamp_length"]["value"] == pytest.approx(400 / math.exp(400), rel=1e-9)
    assert found["ess_half_length"]["value"] == pytest.approx(10 * math.log(2) / math.exp(400))


# ---------------------------------------------------------------- intervals


def test_equal_differences_have_degenerate_intervals() -> None:
    """With every d the same, every metric that may have an interval has [v, v]."""
    lengths = [5, 9, 11, 6, 7, 3, 8, 5, 4, 10]
    gap = of_d(np.full(sum(lengths), 0.125), lengths)
    for key, found in measure(gap, {}).metrics.items():
        if key in DEFINITIONS and METRICS[key][2] == "token" and not DEFINITIONS[key].event:
            assert found["low"] == found["high"] == found["value"], key
    assert only("abs_logprob_diff_std", gap)["value"] == 0.0
    assert only("ess_token", gap)["value"] == 1.0


@pytest.mark.parametrize("sequences", [10, 60, 300])
def test_an_event_never_seen_has_the_exact_upper_bound(sequences: int) -> None:
    """No hit in S sequences leaves 1 - 0.025^(1/S) possible: no tight limit passes on silence."""
    metrics = measure(of_d(np.full(6 * sequences, 0.01), [6] * sequences), {}).metrics
    bound = 1 - 0.025 ** (1 / sequences)
    for key in ("extreme_fraction_2", "confident_disagreement"):
        assert metrics[key] == {"value": 0.0, "low": 0.0, "high": pytest.approx(bound)}
    assert metrics["seq_clamped_count"]["high"] == pytest.approx(bound * sequences)
    assert metrics["exact_fraction"]["high"] == 0.0


def test_an_event_never_seen_may_hide_in_the_long_sequences() -> None:
    """9 short sequences and a long one of half the tokens: the bound of a token share is above the
    one of a sequence share."""
    metrics = measure(of_d(np.full(90, 0.01), [5] * 9 + [45]), {}).metrics
    of_sequences = 1 - 0.025 ** (1 / 10)
    assert metrics["seq_clamped_count"]["high"] == pytest.approx(10 * of_sequences)
    high = metrics["extreme_fraction_2"]["high"]
    assert high is not None
    assert high > 1.3 * of_sequences


def test_bit_equal_sides_are_exact_everywhere() -> None:
    """d = 0 gives exact_fraction 1 [1, 1], prob_pearson 1 [1, 1] and k3 0 [0, 0], never NaN."""
    gap = noisy(7, size=0.0)
    found = measure(gap, {}).metrics
    for key, value in {
        "exact_fraction": 1.0,
        "prob_pearson": 1.0,
        "k3": 0.0,
        "ess_seq": 1.0,
    }.items():
        assert found[key] == {"value": value, "low": value, "high": value}, key
    assert found["abs_logprob_diff_p99"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert found["ess_half_length"] == {"value": None, "low": None, "high": None}
    assert found["clamp_length"] == {"value": None, "low": None, "high": None}


def test_fewer_than_eight_sequences_have_values_alone() -> None:
    """Seven sequences: no metric has a bound; eight: k3 has both."""
    for found in measure(noisy(8, 7), {}).metrics.values():
        assert found["low"] is found["high"] is None
    assert None not in only("k3", noisy(8, 8)).values()


def test_extremes_have_values_alone() -> None:
    """Minima, maxima and p999 have no interval however many sequences there are."""
    found = measure(noisy(9, 100), {}).metrics
    for key in EXTREMES:
        assert found[key]["value"] is not None, key
        assert found[key]["low"] is found[key]["high"] is None, key


def test_mapped_metrics_have_mapped_bounds() -> None:
    """rms, k1 and the two lengths say the same as the metric they are made of."""
    found = measure(noisy(10), {}).metrics
    k1, k2, k3 = found["k1"], found["k2"], found["k3"]
    for end, other in (("value", "value"), ("low", "high"), ("high", "low")):
        assert found["rms_logprob_diff"][end] == pytest.approx(math.sqrt(2 * k2[end]))  # type: ignore[operator]
        assert found["logprob_diff_mean"][end] == pytest.approx(-k1[other])  # type: ignore[operator]
        assert found["clamp_length"][end] == pytest.approx(20 / k3[other])  # type: ignore[operator]
        half = math.log(2) / (2 * k3[other])  # type: ignore[operator]
        assert found["ess_half_length"][end] == pytest.approx(half)


def test_a_length_is_unbounded_where_k3_may_be_zero() -> None:
    """k3's bound cut at 0 leaves the upper bound of both lengths null."""
    found = measure(of_d([0.3, *[0.0] * 199], [10] * 20), {}).metrics
    assert found["k3"]["low"] == 0.0
    assert found["clamp_length"]["value"] is not None
    assert found["clamp_length"]["high"] is found["ess_half_length"]["high"] is None


@pytest.mark.parametrize(("one", "has"), [(0.0, True), (1.7, True), (2.2, False)])
def test_a_dominating_sequence_takes_the_interval_of_ess_and_chi2(one: float, has: bool) -> None:
    """With over 20% of ΣR in one sequence of 30, ess_seq and seq_chi2 are values alone."""
    d = 0.02 * np.random.default_rng(0).normal(size=300)
    d[0] += one
    found = measure(of_d(d, [10] * 30), {}).metrics
    for key in ("ess_seq", "seq_chi2"):
        assert found[key]["value"] is not None
        assert (found[key]["low"] is not None) == has
    assert found["seq_k1"]["low"] is not None


def test_bounds_stay_where_the_metric_can_be() -> None:
    """Shares and ESS lie in [0, 1], k2 and k3 above 0, correlations in [-1, 1]."""
    for seed in range(5):
        found = measure(noisy(seed, 9, size=1.0), {}, resamples=200).metrics
        for key in METRICS:
            low, high = found[key]["low"], found[key]["high"]
            if key.startswith(("extreme", "exact", "ess_t", "ess_s", "confident")):
                assert low is None or low >= 0, key
                assert high is None or high <= 1, key
            if key in ("k2", "k3", "k3_rev", "abs_logprob_diff_mean"):
                assert low is None or low >= 0, key
        assert -1 <= found["prob_pearson"]["low"] <= found["prob_pearson"]["high"] <= 1  # type: ignore[operator]


def test_equal_input_and_seed_give_equal_numbers() -> None:
    """A run repeats itself exactly, and another seed moves the bounds but no value."""
    gap = noisy(11)
    floors = {"batch": {"train": [noisy(12)], "infer": [noisy(13)]}}
    assert measure(gap, floors, seed=3) == measure(gap, floors, seed=3)
    other = measure(gap, floors, seed=4)
    assert other.metrics["k3"] != measure(gap, floors, seed=3).metrics["k3"]
    assert other.metrics["k3"]["value"] == measure(gap, floors, seed=3).metrics["k3"]["value"]


def test_asking_for_few_metrics_changes_no_number() -> None:
    """What the study of coverage measures is what a report shows."""
    rng = np.random.default_rng(9)
    gap, one, other = (of_d(rng.normal(0, 0.03, 90), [9] * 10) for _ in range(3))
    floors = {"batch": {"train": [one], "infer": [other]}}
    whole = measure(gap, floors, resamples=60)
    few = measure(gap, floors, resamples=60, keys=("k2", "k3"))
    assert few.metrics == {key: whole.metrics[key] for key in ("k2", "k3")}
    assert few.excess == whole.excess


def test_floors_do_not_touch_the_gap_and_their_order_is_nothing() -> None:
    """The gap's bounds are the same with no floor, with any, and in any order of them."""
    a, b, c, d = ([noisy(seed)] for seed in (14, 15, 16, 17))
    gap = noisy(11)
    one = measure(gap, {"batch": {"train": a, "infer": b}, "repeat": {"train": c, "infer": d}})
    two = measure(gap, {"repeat": {"infer": d, "train": c}, "batch": {"infer": b, "train": a}})
    assert one == two
    alone = measure(gap, {}).metrics
    for key in METRICS:
        assert one.metrics[key] == pytest.approx(alone[key]), key


# ---------------------------------------------------------------- floors and excess


def test_floors_carry_the_token_metrics() -> None:
    """A floor has every token-level key, its interval too, and only the sides that were given."""
    found = measure(noisy(18), {"repeat": {"infer": [noisy(19)]}, "batch": {}})
    assert found.floor is not None
    assert {name: list(sides) for name, sides in found.floor.items()} == {"repeat": ["infer"]}
    assert list(found.floor["repeat"]["infer"]) == token_keys()
    assert found.floor["repeat"]["infer"] == {
        key: pytest.approx(value)
        for key, value in measure(noisy(19), {}).metrics.items()
        if key in token_keys()
    }


def test_several_captures_of_a_floor_are_pooled() -> None:
    """Two comparisons count as one with their tokens side by side in each sequence."""
    a, b = noisy(20), noisy(21)
    order = np.argsort(np.concatenate([a.sequence, b.sequence]), kind="stable")
    both = Aligned(
        *(
            np.concatenate([getattr(a, name), getattr(b, name)])[order]
            for name in ("sequence", "position", "lp_train", "lp_infer")
        )
    )
    found = measure(a, {"batch": {"train": [a, b]}}).floor
    assert found is not None
    whole = measure(both, {}).metrics
    for key in token_keys():
        assert found["batch"]["train"][key] == pytest.approx(whole[key]), key


def test_the_excess_is_the_gap_less_half_of_both_floors() -> None:
    """excess.k3 = k3(gap) - (k3(train) + k3(infer)) / 2, and likewise k2; a negative one stays."""
    gap, train, infer = noisy(22, size=0.03), noisy(23, size=0.05), noisy(24, size=0.08)
    found = measure(gap, {"batch": {"train": [train], "infer": [infer, infer]}})
    assert found.excess is not None
    for key in ("k2", "k3"):
        g, t, i = (only(key, x)["value"] for x in (gap, train, infer))
        assert found.excess[key]["value"] == pytest.approx(g - (t + i) / 2)  # type: ignore[operator]
        assert found.excess[key]["high"] < 0  # type: ignore[operator]


def test_equal_gap_and_floors_have_an_excess_of_exactly_nothing() -> None:
    """Resampled together, what is common to gap and floors cancels in every resample."""
    gap = noisy(25)
    found = measure(gap, {"batch": {"train": [gap], "infer": [gap]}}).excess
    assert found is not None
    assert found["k3"] == pytest.approx({"value": 0, "low": 0, "high": 0}, abs=1e-15)


def test_a_floor_of_zero_leaves_the_gap_as_the_excess() -> None:
    """Over deterministic engines the excess is k3 with k3's interval; their floors are 0 [0, 0]."""
    gap, zero = noisy(26), noisy(26, size=0.0)
    found = measure(gap, {"batch": {"train": [zero], "infer": [zero]}})
    assert found.excess is not None
    assert found.floor is not None
    assert found.excess["k3"] == pytest.approx(found.metrics["k3"])
    assert found.floor["batch"]["train"]["k3"] == {"value": 0.0, "low": 0.0, "high": 0.0}


@pytest.mark.parametrize(
    ("sides", "over"),
    [
        ({}, None),
        ({"repeat": ["train"]}, None),
        ({"repeat": ["train"], "batch": ["infer"]}, None),
        ({"repeat": ["train", "infer"]}, "repeat"),
        ({"repeat": ["train", "infer"], "batch": ["train"]}, "repeat"),
        ({"repeat": ["train", "infer"], "batch": ["train", "infer"]}, "batch"),
    ],
)
def test_the_excess_is_over_one_floor_that_has_both_sides(
    sides: dict[str, list[str]], over: str | None
) -> None:
    """batch where both sides have it, else repeat, else null; sides of two floors never mix."""
    sizes = {"repeat": 0.01, "batch": 0.02}
    floors = {
        name: {side: [noisy(27, size=sizes[name])] for side in given}
        for name, given in sides.items()
    }
    found = measure(noisy(28), floors, resamples=50).excess
    if over is None:
        assert found is None
        return
    assert found is not None
    floor = only("k2", noisy(27, size=sizes[over]))["value"]
    assert found["k2"]["value"] == pytest.approx(only("k2", noisy(28))["value"] - floor)  # type: ignore[operator]


def test_a_repeat_that_is_bit_equal_is_no_noise_to_subtract() -> None:
    """A deterministic engine is not a noiseless one: of one such side there is no excess."""
    some, none = noisy(27, size=0.01), noisy(27, size=0.0)
    found = measure(noisy(28), {"repeat": {"train": [some], "infer": [none]}}, resamples=50)
    assert found.excess is None
    assert found.floor is not None and set(found.floor["repeat"]) == {"train", "infer"}


def test_a_floor_that_lost_tokens_to_nan_has_no_excess() -> None:
    """The floor shows its other tokens, with a note; an excess over the few left is a guess."""
    gap, floor = noisy(29), noisy(30)
    some = replace(floor, lp_infer=np.where(np.arange(600) < 3, np.nan, floor.lp_infer))
    found = measure(gap, {"batch": {"train": [some], "infer": [floor]}})
    assert found.notes == ["floor.batch.train: 3 tokens are NaN or infinite: no excess"]
    assert found.floor is not None
    assert found.floor["batch"]["train"]["k3"]["value"] is not None
    assert found.excess is not None
    assert found.excess["k3"] == {"value": None, "low": None, "high": None}
    none = replace(floor, lp_infer=np.full(600, np.nan, np.float32))
    found = measure(gap, {"batch": {"train": [none], "infer": [floor]}})
    assert found.excess is not None
    assert found.excess["k3"] == {"value": None, "low": None, "high": None}


# ---------------------------------------------------------------- never


def numbers(found: Measured) -> list[dict[str, float | None]]:
    floors = [side for sides in (found.floor or {}).values() for side in sides.values()]
    groups = [found.metrics, found.excess or {}, *floors]
    return [entry for group in groups for entry in group.values()]


LOGPROBS = st.one_of(
    st.floats(-30, 0, width=32),
    st.sampled_from([0.0, -1.0, -1.0, -1.0, -1e-7, -200.0, -800.0, math.nan, -math.inf, math.inf]),
    st.floats(width=32),
)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=12).flatmap(
        lambda n: st.tuples(
            st.just(n), *[arrays(np.float32, sum(n), elements=LOGPROBS) for _ in range(3)]
        )
    )
)
def test_no_number_is_ever_nan_or_infinite(case: Any) -> None:
    """Whatever the engines say, every number is finite or null, and low <= value <= high."""
    lengths, left, right, again = case
    gap, floor = aligned(left, right, lengths), aligned(left, again, lengths)
    found = measure(gap, {"batch": {"train": [floor], "infer": [gap]}}, resamples=40)
    entries = numbers(found)
    for rows in breakdowns(gap, resamples=40).values():
        entries += [entry for row in rows for entry in row["metrics"].values()]
    for row in corrections(gap, resamples=40):
        entries += [part[n] for part in (row, *row["by_length"]) for n in ("affected", "ess")]
    entries += [row["ess"] for row in ess_by_length(gap, 1e-3, resamples=40)]
    for entry in entries:
        assert entry.get("trusted", False) is False
        assert list(entry)[:3] == ["value", "low", "high"]
        known = [entry[k] for k in ("value", "low", "high") if entry[k] is not None]
        assert all(type(x) is float and math.isfinite(x) for x in known)
        low, value, high = (entry[k] for k in ("low", "value", "high"))
        assert value is not None or (low is None and high is None)
        slack = 1e-9 * (1 + abs(value or 0))
        assert low is None or low <= value + slack  # type: ignore[operator]
        assert high is None or high >= value - slack  # type: ignore[operator]
    total = found.tokens + found.nan_tokens + found.inf_tokens
    assert total == len(left)


# ---------------------------------------------------------------- coverage


def test_intervals_cover_the_truth() -> None:
    """95% intervals of clustered tokens in 50 sequences hold the truth in 90 to 99% of trials."""
    rng, trials = np.random.default_rng(32), 150
    shift, size, noise = 0.03, 0.05, 0.02
    keys = ("k1", "k2", "k3", "abs_logprob_diff_mean", "abs_logprob_diff_p90")
    inside = dict.fromkeys([*keys, "excess.k2"], 0)

    def draw(between: float, within: float, lengths: np.ndarray) -> Aligned:
        d = np.repeat(between * rng.normal(size=50), lengths) + within * rng.normal(
            size=sum(lengths)
        )
        return of_d(d, list(lengths))

    spread = math.hypot(shift, size)
    truth = {
        "k1": 0.0,
        "k2": spread**2 / 2,
        "k3": math.expm1(spread**2 / 2),
        "abs_logprob_diff_mean": spread * math.sqrt(2 / math.pi),
        "abs_logprob_diff_p90": spread * 1.6448536269514722,
        "excess.k2": spread**2 / 2 - noise**2 / 2,
    }
    for trial in range(trials):
        lengths = rng.integers(10, 50, size=50)
        floors = {"batch": {s: [draw(0, noise, lengths)] for s in ("train", "infer")}}
        found = measure(draw(shift, size, lengths), floors, seed=trial, resamples=200)
        assert found.excess is not None
        entries = {**found.metrics, "excess.k2": found.excess["k2"]}
        for key in inside:
            low, high = entries[key]["low"], entries[key]["high"]
            inside[key] += low <= truth[key] <= high  # type: ignore[operator]
    for key, count in inside.items():
        assert 0.90 <= count / trials <= 0.99, (key, count / trials)
