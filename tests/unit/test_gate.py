"""The gate: what passes, what fails, and above all what must not pass."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mismatch.compare.metrics import Aligned, measure
from mismatch.errors import MismatchError
from mismatch.gate import EXIT_CODES, SIGNED, VERDICTS, Rule, judge, parse_rule

KNOWN = ("k1", "k2", "k3", "abs_logprob_diff_p99", "abs_logprob_diff_max", "extreme_fraction_1.1")
K3 = Rule("k3", "max", 1e-3, False)


def a_pair(**changes: Any) -> dict[str, Any]:
    """A healthy train-infer pair with k3 = 4e-4 [3e-4, 5e-4]."""
    pair = {
        "id": "hf~vllm.decode",
        "kind": "train-infer",
        "tokens": 5000,
        "sequences": 32,
        "nan_tokens": 0,
        "inf_tokens": 0,
        "metrics": {"k3": {"value": 4e-4, "low": 3e-4, "high": 5e-4}},
        "excess": {"k2": None, "k3": {"value": 1e-4, "low": -1e-4, "high": 2e-4}},
        "preflight": [],
    }
    return {**pair, **changes}


def k3(value: Any, low: Any, high: Any) -> dict[str, Any]:
    return {"k3": {"value": value, "low": low, "high": high}}


def verdict_of(pair: dict[str, Any], rule: Rule = K3) -> tuple[str, str]:
    """(verdict, reason) of one rule on one pair; the document must agree with itself."""
    found = judge({"pairs": [pair]}, [rule])
    assert found["verdict"] == found["rules"][0]["verdict"]
    assert found["exit_code"] == EXIT_CODES[found["verdict"]]
    return found["verdict"], found["rules"][0]["reason"]


# ---------------------------------------------------------------- rules


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("k3=1e-3", Rule("k3", "max", 1e-3, False)),
        (" k3 = 0.001 ", Rule("k3", "max", 1e-3, False)),
        ("excess.k3=5e-4", Rule("k3", "max", 5e-4, True)),
        ("extreme_fraction_1.1=.2", Rule("extreme_fraction_1.1", "max", 0.2, False)),
        ("k2=-2", Rule("k2", "max", -2.0, False)),
    ],
)
def test_a_rule_is_read_from_its_text(text: str, rule: Rule) -> None:
    """KEY=NUMBER and excess.KEY=NUMBER become rules; dots inside a key are part of it."""
    assert parse_rule(text, "max", KNOWN) == rule


@pytest.mark.parametrize(
    "text",
    ["", "k3", "k3=", "=1", "k3=nan", "k3=inf", "k3=-inf", "k3=1e999", "k3=1=2", "k3=x", "k1=-2"],
)
def test_text_that_is_no_rule_is_refused(text: str) -> None:
    """A missing key or limit, a limit that is not finite, and a size below 0 are bad rules."""
    with pytest.raises(MismatchError) as caught:
        parse_rule(text, "max", KNOWN)
    assert (caught.value.code, caught.value.exit_code) == ("bad-rule", 2)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("k33", "k3"), ("abs_logprob_dif_p99", "abs_logprob_diff_p99"), ("exces.k3", "excess.k3")],
)
def test_an_unknown_metric_is_answered_with_the_near_one(name: str, meant: str) -> None:
    """A misspelt metric names the one that was probably meant."""
    with pytest.raises(MismatchError) as caught:
        parse_rule(f"{name}=1", "max", KNOWN)
    assert caught.value.code == "unknown-metric"
    assert f"Did you mean '{meant}'?" in caught.value.hint


def test_excess_exists_for_k2_and_k3_alone() -> None:
    """excess.k1 is refused although k1 is a metric, and the hint says which have one."""
    with pytest.raises(MismatchError) as caught:
        parse_rule("excess.k1=1", "max", KNOWN)
    assert caught.value.code == "unknown-metric"
    assert "k2 and k3 alone" in caught.value.hint


# ---------------------------------------------------------------- against the interval


@pytest.mark.parametrize(
    ("bound", "limit", "verdict"),
    [
        ("max", 6e-4, "pass"),
        ("max", 5e-4, "pass"),
        ("max", 4e-4, "inconclusive"),
        ("max", 3e-4, "inconclusive"),
        ("max", 2e-4, "fail"),
        ("min", 2e-4, "pass"),
        ("min", 3e-4, "pass"),
        ("min", 4e-4, "inconclusive"),
        ("min", 5e-4, "inconclusive"),
        ("min", 6e-4, "fail"),
    ],
)
def test_the_whole_interval_must_keep_to_the_limit(bound: Any, limit: float, verdict: str) -> None:
    """Inside passes, outside fails, across is inconclusive; an end on the limit keeps to it."""
    assert verdict_of(a_pair(), Rule("k3", bound, limit, False))[0] == verdict


def test_an_absolute_limit_needs_no_floor() -> None:
    """Without any floor a rule on the metric itself is still judged."""
    assert verdict_of(a_pair(floor=None, excess=None))[0] == "pass"


def test_an_excess_rule_is_held_against_the_excess() -> None:
    """excess.k3 reads the excess, which may be negative, and not the metric."""
    assert verdict_of(a_pair(), Rule("k3", "max", 2e-4, True))[0] == "pass"
    assert verdict_of(a_pair(), Rule("k3", "min", 2e-4, True))[0] == "inconclusive"


def test_a_reason_names_pair_key_numbers_and_n() -> None:
    """The sentence of a verdict can be read without the rest of the document."""
    _, reason = verdict_of(a_pair())
    for word in ("hf~vllm.decode", "k3", "0.0004", "0.0003", "0.0005", "0.001", "5000", "32"):
        assert word in reason


@pytest.mark.parametrize("limit", [2e-4, 4e-4, 1.0])
def test_an_interval_that_is_not_trusted_neither_passes_nor_fails(limit: float) -> None:
    """Inconclusive on either side of the limit, with exit code 4 and the report's words."""
    marked = a_pair(metrics={"k3": {**k3(4e-4, 3e-4, 5e-4)["k3"], "trusted": False}})
    verdict, reason = verdict_of(marked, Rule("k3", "max", limit, False))
    assert (verdict, EXIT_CODES[verdict]) == ("inconclusive", 4)
    assert "interval not trusted" in reason


def test_an_excess_has_a_mark_of_its_own() -> None:
    """A floor may spoil the excess and leave the gap."""
    excess = {"k3": {**k3(1e-4, 5e-5, 2e-4)["k3"], "trusted": False}}
    assert verdict_of(a_pair(excess=excess), Rule("k3", "max", 1.0, True))[0] == "inconclusive"
    assert verdict_of(a_pair(excess=excess), Rule("k3", "max", 1.0, False))[0] == "pass"


def test_an_open_end_never_passes_the_bound_it_faces() -> None:
    """A bound that is null reaches without end: it can keep to a limit on its other side only."""
    upward = a_pair(metrics=k3(4e-4, 3e-4, None))
    assert verdict_of(upward)[0] == "inconclusive"
    assert verdict_of(upward, Rule("k3", "min", 1e-4, False))[0] == "pass"


@pytest.mark.parametrize("key", SIGNED)
@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (-0.05, 0.02, "pass"),
        (-6.0, -4.0, "fail"),
        (4.0, 6.0, "fail"),
        (-6.0, 0.05, "inconclusive"),
        (None, 0.05, "inconclusive"),
    ],
)
def test_a_maximum_of_a_signed_metric_holds_its_size(
    key: str, low: float | None, high: float, verdict: str
) -> None:
    """A gap of -5 nats is no smaller than one of 5: neither passes a maximum of 0.1."""
    pair = a_pair(metrics={key: {"value": high, "low": low, "high": high}})
    found, reason = verdict_of(pair, Rule(key, "max", 0.1, False))
    assert found == verdict
    assert "within ±0.1" in reason or found == "inconclusive"


def test_signed_metrics_are_those_whose_sign_turns_with_the_sides() -> None:
    """Swapping the sides negates these metrics, and no other."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(5, 40, size=64)
    left, right = rng.normal(-3, 1, size=(2, lengths.sum())).astype(np.float32)
    sequence = np.repeat(np.arange(64), lengths)
    position = np.arange(len(sequence))
    one, other = (
        measure(Aligned(sequence, position, *sides), {}, resamples=10).metrics
        for sides in ((left, right), (right, left))
    )
    quantile = {"seq_log_ratio_p05": "seq_log_ratio_p95", "seq_log_ratio_p95": "seq_log_ratio_p05"}
    turned = {
        key
        for key in one
        if one[key]["value"] == pytest.approx(-other[quantile.get(key, key)]["value"])
    }
    assert {k for k in turned if one[k]["value"]} == set(SIGNED)


# ---------------------------------------------------------------- no evidence


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tokens": 0}, "no token"),
        ({"nan_tokens": 3}, "3 tokens are NaN"),
        ({"inf_tokens": 2}, "2 infinite"),
        ({"nan_tokens": None}, "NaN"),
        ({"sequences": 7}, "takes 8 sequences"),
        ({"metrics": {}}, "k3 is null"),
        ({"metrics": {"k3": None}}, "k3 is null"),
        ({"metrics": k3(None, None, None)}, "k3 is null"),
        ({"metrics": k3(math.nan, 1e-9, 1e-9)}, "k3 is null"),
        ({"metrics": k3(1e-9, None, None)}, "has no interval"),
        ({"metrics": k3(1e-9, math.nan, math.nan)}, "has no interval"),
        ({"metrics": k3(False, False, False)}, "k3 is null"),
    ],
)
def test_what_is_not_known_is_no_evidence(changes: dict[str, Any], said: str) -> None:
    """Nothing scored, NaN, infinities, nulls and missing intervals each exit 4 and say why."""
    verdict, reason = verdict_of(a_pair(**changes))
    assert verdict == "no_evidence"
    assert said in reason


def test_no_train_infer_pair_is_no_evidence() -> None:
    """An empty summary, or one with pairs of other kinds alone, never passes."""
    for pairs in ([], [a_pair(kind="infer-infer")]):
        found = judge({"pairs": pairs}, [K3])
        assert (found["verdict"], found["exit_code"]) == ("no_evidence", 4)
        assert "no train-infer pair" in found["rules"][0]["reason"]


def test_a_failed_capture_gives_its_own_reason() -> None:
    """A cell that was never captured says what its capture said."""
    check = {"rung": "capture", "verdict": "fail", "evidence": "vllm/decode-1 failed at load: boom"}
    verdict, reason = verdict_of(a_pair(tokens=0, metrics={}, preflight=[check]))
    assert verdict == "no_evidence"
    assert "failed at load: boom" in reason


@pytest.mark.parametrize("excess", [None, {}, {"k2": None, "k3": None}])
def test_an_excess_without_a_floor_is_no_evidence(excess: Any) -> None:
    """A null excess says that a side has no floor and how to capture one."""
    verdict, reason = verdict_of(a_pair(excess=excess), Rule("k3", "max", 1.0, True))
    assert verdict == "no_evidence"
    assert "--floor batch" in reason


def test_a_value_only_metric_names_one_that_has_an_interval() -> None:
    """A maximum cannot be gated on; the reason offers the quantile beside it, or what there is."""
    rule = Rule("abs_logprob_diff_max", "max", 9.0, False)
    maximum = {"abs_logprob_diff_max": {"value": 1.0, "low": None, "high": None}}
    with_p99 = {"abs_logprob_diff_p99": {"value": 0.1, "low": 0.1, "high": 0.2}}
    for others, offered in ((with_p99, "abs_logprob_diff_p99"), (k3(1e-4, 1e-5, 1e-3), "k3")):
        verdict, reason = verdict_of(a_pair(metrics={**maximum, **others}), rule)
        assert verdict == "no_evidence"
        assert f"gate on {offered} instead" in reason


NUMBER = st.none() | st.floats() | st.booleans() | st.text(max_size=3)


FINITE = st.floats(allow_nan=False, allow_infinity=False)  # the only limits a rule can have


@given(value=NUMBER, low=NUMBER, high=NUMBER, limit=FINITE)
def test_a_pass_rests_on_finite_numbers(value: Any, low: Any, high: Any, limit: float) -> None:
    """Whatever the summary holds, a maximum passes only on a finite value and upper bound."""
    pair = a_pair(metrics=k3(value, low, high))
    if verdict_of(pair, Rule("k3", "max", limit, False))[0] == "pass":
        assert isinstance(value, float)
        assert isinstance(high, float)
        assert math.isfinite(value)
        assert math.isfinite(high)
        assert high <= limit


# ---------------------------------------------------------------- pairs, and the worst verdict


def test_a_failed_check_makes_the_pair_not_comparable() -> None:
    """A preflight rung that failed outranks every number: exit 5 with its evidence."""
    check = {"rung": "alignment", "verdict": "fail", "evidence": "shifted by 1"}
    found = judge({"pairs": [a_pair(preflight=[check])]}, [K3])
    assert (found["verdict"], found["exit_code"]) == ("not_comparable", 5)
    assert "alignment" in found["rules"][0]["reason"]
    assert "shifted by 1" in found["rules"][0]["reason"]


def test_checks_that_did_not_fail_change_nothing() -> None:
    """Rungs that passed, or were not checked, leave the verdict to the numbers."""
    checks = [{"rung": "numerics", "verdict": v, "evidence": ""} for v in ("pass", "not checked")]
    assert verdict_of(a_pair(preflight=checks))[0] == "pass"


def test_every_train_infer_pair_is_judged_unless_one_is_named() -> None:
    """Other kinds are judged by name only, and then alone."""
    summary = {"pairs": [a_pair(), a_pair(id="b"), a_pair(id="c", kind="infer-infer")]}
    assert [r["pair"] for r in judge(summary, [K3])["rules"]] == ["hf~vllm.decode", "b"]
    assert [r["pair"] for r in judge(summary, [K3], pair="c")["rules"]] == ["c"]


def test_an_unknown_pair_is_answered_with_the_near_one() -> None:
    """A misspelt pair is an error, not an empty pass."""
    with pytest.raises(MismatchError) as caught:
        judge({"pairs": [a_pair()]}, [K3], pair="hf~vllm.decod")
    assert caught.value.code == "no-such-pair"
    assert "Did you mean 'hf~vllm.decode'?" in caught.value.hint


def test_no_rule_is_a_usage_error() -> None:
    """A gate that asks nothing would always pass."""
    with pytest.raises(MismatchError) as caught:
        judge({"pairs": [a_pair()]}, [])
    assert caught.value.exit_code == 2


PASSING = a_pair(id="passing")
UNCLEAR = a_pair(id="unclear", metrics=k3(9e-4, 5e-4, 2e-3))
UNKNOWN = a_pair(id="unknown", tokens=0)
FAILING = a_pair(id="failing", metrics=k3(9e-3, 8e-3, 1e-2))
WRONG = a_pair(id="wrong", preflight=[{"rung": "mask", "verdict": "fail", "evidence": "off"}])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_the_worst_verdict_decides(count: int) -> None:
    """Adding a worse pair changes the verdict to its own, in the stated order."""
    pairs = [PASSING, UNCLEAR, UNKNOWN, FAILING, WRONG][:count]
    found = judge({"pairs": pairs[::-1]}, [K3])
    assert found["verdict"] == VERDICTS[count - 1]
    assert found["exit_code"] == (0, 4, 4, 1, 5)[count - 1]


def test_a_row_says_which_rule_it_judged() -> None:
    """Each row carries the rule's bound, its key as written, its limit and the numbers it saw."""
    row = judge({"pairs": [a_pair()]}, [Rule("k3", "max", 2e-4, True)])["rules"][0]
    expected = {
        "pair": "hf~vllm.decode",
        "rule": "max",
        "key": "excess.k3",
        "value": 1e-4,
        "low": -1e-4,
        "high": 2e-4,
        "limit": 2e-4,
        "verdict": "pass",
    }
    assert {k: row[k] for k in row if k != "reason"} == expected
