"""The three lines: never a pass without evidence, and every doubt has its own words."""

from __future__ import annotations

from typing import Any

import pytest

from mismatch.report.finding import who_sampled
from mismatch.report.noise import noise
from mismatch.report.pairs import Pair
from mismatch.report.tables import finding
from tests.unit.report import runs
from tests.unit.report.runs import failed_pair, inner_pair, pair, summary_of


def lines(*pairs: runs.Summary) -> list[str]:
    found = finding(summary_of(*pairs))
    assert len(found) == 3
    assert all(line and "\n" not in line for line in found)
    assert "pass" not in " ".join(found).lower()
    return found


def excess(low: float, high: float) -> dict[str, Any]:
    found = {"value": (low + high) / 2, "low": low, "high": high}
    return {"k2": found, "k3": found}


def test_the_gap_names_value_interval_pair_and_size() -> None:
    """Line one has k3 with its interval, the path, both conditions, tokens and sequences."""
    gap = lines(pair())[0]
    for said in ("1.00e-3 [8.00e-4, 1.20e-3] nats", "decode", runs.TRAIN, runs.INFER):
        assert said in gap
    assert "100 tokens in 10 sequences" in gap


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (1e-4, 3e-4, "more than noise."),
        (-3e-4, -1e-4, "not more than noise."),
        (-1e-4, 3e-4, "not resolved."),
        (0.0, 3e-4, "not resolved."),
    ],
)
def test_the_verdict_follows_the_interval_of_the_excess(
    low: float, high: float, verdict: str
) -> None:
    """More than noise only when the whole interval lies above 0."""
    noise = lines(pair(excess=excess(low, high)))[1]
    assert noise.startswith(f"Noise: {verdict}")
    assert "1.00e-4 (train) and 2.00e-4 (infer)" in noise


def test_k2_is_heard_where_it_disagrees_with_k3() -> None:
    """A verdict that rests on the tail alone says so."""
    both = excess(1e-4, 3e-4) | {"k2": excess(-1e-4, 3e-4)["k2"]}
    assert "says otherwise" in lines(pair(excess=both))[1]
    assert "says otherwise" not in lines(pair(excess=excess(1e-4, 3e-4)))[1]


def test_few_sequences_give_no_interval_and_no_verdict() -> None:
    """Below 8 sequences the lines say why there is no interval."""
    bare = runs.metrics(1e-3, spread=None)
    none = {"k2": runs.estimate(1e-3, None), "k3": runs.estimate(1e-3, None)}
    gap, noise, _ = lines(pair(sequences=4, metrics=bare, excess=none))
    assert "no interval (fewer than 8 sequences)" in gap
    assert noise.startswith("Noise: no interval.")
    assert "fewer than 8 sequences" in noise


def test_an_interval_that_is_not_trusted_gives_no_verdict() -> None:
    """An excess above 0 by such an interval is not `more than noise`, and the words say why."""
    marked = {key: {**entry, "trusted": False} for key, entry in excess(1e-4, 3e-4).items()}
    gap, noise, _ = lines(pair(excess=marked))
    assert noise.startswith("Noise: interval not trusted.")
    assert "[1.00e-4, 3.00e-4], interval not trusted" in noise
    assert "not trusted" not in gap


def test_a_unit_stands_before_what_is_said_of_the_interval() -> None:
    """Value, interval, nats, and only then that the interval is not trusted, or why there is
    none."""
    keys = ("k3", "abs_logprob_diff_mean")
    doubted = {key: {**runs.metrics(1e-3)[key], "trusted": False} for key in keys}
    bare = runs.metrics(1e-3, spread=None)
    gap, _, also = lines(pair(metrics=doubted), pair("prefill", metrics=doubted))
    assert "k3 = 1.00e-3 [8.00e-4, 1.20e-3] nats, interval not trusted, and mean |d| = 0." in gap
    assert "0.0379] nats, interval not trusted on decode" in gap
    assert "has k3 = 1.00e-3 [8.00e-4, 1.20e-3] nats, interval not trusted (" in also
    gap, _, also = lines(pair(metrics=bare), pair("prefill", metrics=bare))
    assert "k3 = 1.00e-3 nats and mean |d| = 0.0316 nats, no interval on decode" in gap
    assert "has k3 = 1.00e-3 nats, no interval (100 tokens" in also


def test_a_second_opinion_that_is_not_trusted_is_not_heard() -> None:
    """k2 speaks against k3 only by an interval that holds."""
    other = {**excess(-1e-4, 3e-4)["k2"], "trusted": False}
    assert "says otherwise" not in lines(pair(excess=excess(1e-4, 3e-4) | {"k2": other}))[1]


@pytest.mark.parametrize(
    ("floor", "said"),
    [
        (None, "No floor was captured (train and infer)"),
        ({"batch": {"train": runs.metrics(1e-4)}}, "No floor was captured (infer)"),
    ],
)
def test_without_a_floor_noise_is_not_known(floor: Any, said: str) -> None:
    """A missing floor is named by its side and never read as 0."""
    noise = lines(pair(floor=floor, excess=None))[1]
    assert noise.startswith("Noise: no floor.")
    assert said in noise


def test_a_deterministic_repeat_is_not_offered_as_the_noise() -> None:
    """With nothing but a repeat floor of 0 the excess is not a verdict."""
    still = {"train": runs.metrics(0.0), "infer": runs.metrics(0.0)}
    noise = lines(pair(floor={"repeat": still}, excess=excess(1e-4, 3e-4)))[1]
    assert noise.startswith("Noise: no floor.")
    assert "--floor batch" in noise


def test_a_noisy_repeat_floor_serves_where_there_is_no_batch_floor() -> None:
    """A repeat floor that is not 0 is compared with, by its name."""
    noisy = {"train": runs.metrics(1e-4), "infer": runs.metrics(1e-4)}
    noise = lines(pair(floor={"repeat": noisy}, excess=excess(1e-4, 3e-4)))[1]
    assert noise.startswith("Noise: more than noise. The repeat floors")


@pytest.mark.parametrize("counts", [{"nan_tokens": 3}, {"inf_tokens": 3}])
def test_nan_or_infinite_tokens_are_no_evidence(counts: dict[str, int]) -> None:
    """The counts stand in line two, and the excess beside them is not a verdict."""
    noise = lines(pair(**counts))[1]
    assert noise.startswith("Noise: no evidence.")
    assert "3 " in noise


def test_a_failed_check_comes_before_the_numbers() -> None:
    """A gap under a failed check is not called numerics."""
    failed = {"rung": "shift scan", "verdict": "fail", "evidence": "best at shift 1", "todo": "X."}
    assert "shift scan" in lines(pair(preflight=[failed]))[1]
    also = lines(pair(), pair("prefill", preflight=[failed]))[2]
    assert "best at shift 1. X." in also


def test_bit_equal_is_said_only_when_every_token_is() -> None:
    """exact_fraction of 1 is bit-equal; a tiny gap is not."""
    assert "bit-equal" in lines(pair(k3=0.0, excess=None))[1]
    assert "bit-equal" not in lines(pair(k3=1e-12))[1]


def test_the_third_line_tells_of_a_failed_pair_first() -> None:
    """A failure is told before decode against rollout is."""
    also = lines(pair(), failed_pair(), inner_pair())[2]
    assert also.startswith("Also: 1 of 3 pairs has no evidence;")
    assert "no sgl_kernel" in also


def test_the_third_line_tells_what_one_engine_does_with_itself() -> None:
    """rollout..decode bit-equal and decode..prefill with its size."""
    also = lines(pair(), inner_pair(), inner_pair("decode..prefill", 1e-4))[2]
    assert "rollout and decode of vllm-bf16-eager are bit-equal on 100 tokens" in also
    assert "decode and prefill of vllm-bf16-eager differ by mean |d| = 0.0100" in also


def test_the_third_line_falls_back_to_the_largest_other_gap() -> None:
    """With train-infer pairs alone it is the largest of the others; with one pair, nothing."""
    also = lines(pair(), pair("prefill", 2e-3), pair("rollout", 5e-4))[2]
    assert "prefill has k3 = 2.00e-3" in also
    assert lines(pair())[2] == "Also: nothing else was compared."


def test_nan_in_another_pair_is_counted_in_the_third_line() -> None:
    """Line two speaks of the first pair; NaN elsewhere must not be lost."""
    assert "4 NaN" in lines(pair(), pair("prefill", nan_tokens=4))[2]


@pytest.mark.parametrize("pairs", [(), (failed_pair(),)])
def test_nothing_compared_is_no_evidence(pairs: tuple[runs.Summary, ...]) -> None:
    """No pair, or failed pairs alone: the lines say no evidence and show no number."""
    gap, noise, _ = lines(*pairs)
    assert "no evidence" in gap
    assert "no evidence" in noise


def test_an_all_nan_pair_says_so() -> None:
    """Zero finite tokens with NaN counted is told as NaN, not as an empty comparison."""
    also = lines(pair(tokens=0, nan_tokens=100, metrics=None, floor=None, excess=None))[2]
    assert "100 tokens NaN" in also


def test_null_metrics_are_dashes_not_zeros() -> None:
    """A metric that overflowed is no evidence; the verdict does not come from it."""
    none = dict.fromkeys(("k2", "k3"), runs.estimate(None))
    gap, noise, _ = lines(pair(metrics=runs.metrics(1e-3) | none, excess=none))
    assert "k3 = — nats" in gap
    assert noise.startswith("Noise: no evidence.")


@pytest.mark.parametrize(
    ("reasons", "verdict"),
    [
        (["a/score-1 is unsupported: it needs a GPU"], "unsupported"),
        (["a/score-1 is unsupported: it needs a GPU", "b/decode-1 failed at load"], "failed"),
        (["b/decode-1 failed at load"], "failed"),
    ],
)
def test_what_cannot_run_here_is_not_called_failed(reasons: list[str], verdict: str) -> None:
    """A cell of another machine is unsupported; only what was tried has failed."""
    checks = [
        {"rung": "capture", "verdict": "fail", "evidence": why, "todo": ""} for why in reasons
    ]
    found = noise(Pair(runs.pair(tokens=0, preflight=checks)))
    assert found.verdict == verdict and reasons[0] in found.reason


def test_how_many_pairs_failed_a_check_is_told() -> None:
    """The headline speaks of one pair; that others failed a check must not be missed."""
    check = {"rung": "sampling", "verdict": "fail", "evidence": "two distributions", "todo": ""}
    bad = [pair(path, preflight=[check]) for path in ("rollout", "prefill")]
    assert "failed on 2 of 3 pairs, among them" in lines(pair(), *bad)[2]
    assert "among them" not in lines(pair(), bad[0])[2]


def test_two_samplers_of_one_path_are_told_apart() -> None:
    """Where pairs of one path were sampled differently, each sentence says whose pairs it means."""
    other = pair(infer="sglang/decode-1", id="x", sampled_by="other")
    both = who_sampled([Pair(pair()), Pair(other), Pair(pair("prefill"))])
    assert both[0].startswith(f"decode of {runs.INFER}; prefill: infer sampled")
    assert both[1].startswith("decode of sglang: something else sampled")
    apart = who_sampled([Pair(pair()), Pair(pair("prefill", sampled_by="other"))])
    assert [line.split(": ")[0] for line in apart] == ["decode", "prefill"]
