"""The preflight ladder: each fault is named, by its rung, from the damaged values alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mismatch.compare import distribution
from mismatch.compare.distribution import Top
from mismatch.compare.metrics import Aligned, measure
from mismatch.compare.preflight import kernels, scale, tokens, weights
from mismatch.compare.preflight.evidence import Evidence, Row, Side
from mismatch.compare.preflight.ladder import climb

SEQUENCES, LENGTH, VOCABULARY, K = 24, 60, 50, 8
RNG_SEED = 20


def log_softmax(x: np.ndarray) -> np.ndarray:
    return np.asarray(x - np.logaddexp.reduce(x, -1, keepdims=True))


def make(
    seed: int = RNG_SEED,
    noise: float = 0.01,
    temperature: float = 1.0,
    top: bool = False,
    spreads: tuple[float, ...] = (0.5, 3.0, 6.0),
) -> Evidence:
    """A clean pair: tokens drawn from right, whose logits are left's plus noise, over T.

    spreads: of the logits; at 6 few tokens compete, as in a trained model.
    """
    rng = np.random.default_rng(seed)
    n = SEQUENCES * LENGTH
    logits = rng.normal(0, 1, (n, VOCABULARY)) * rng.choice(spreads, (n, 1))
    one = log_softmax(logits)
    other = log_softmax((logits + rng.normal(0, noise, logits.shape)) / temperature)
    drawn = np.array([rng.choice(VOCABULARY, p=np.exp(row)) for row in other])
    best = np.argsort(-one, -1)[:, :K]
    at = np.arange(n)
    sides = [
        Side(
            name,
            table[at, drawn].astype(np.float32),
            {"path": "rollout"},
            Top(best, np.take_along_axis(table, best, -1)) if top else None,
            -(np.exp(table) * table).sum(-1).astype(np.float32),
        )
        for name, table in (("train", one), ("infer", other))
    ]
    sequence = np.repeat(np.arange(SEQUENCES), LENGTH)
    position = np.tile(np.arange(10, 10 + LENGTH), SEQUENCES)
    prompts = rng.integers(0, VOCABULARY, (SEQUENCES, 10))
    ids = tuple(
        np.concatenate([p, r])
        for p, r in zip(prompts, drawn.reshape(SEQUENCES, LENGTH), strict=True)
    )
    return measured(Evidence(*sides, sequence, position, drawn, ids, "infer", {}))


def measured(e: Evidence) -> Evidence:
    """With the metrics of its values as they are."""
    gap = Aligned(e.sequence, e.position, e.left.logprob, e.right.logprob)
    return replace(e, metrics=measure(gap, {}, seed=0).metrics)


def right(e: Evidence, change: Callable[[np.ndarray], np.ndarray]) -> Evidence:
    """The pair with right's (sequences, length) values changed."""
    values = change(e.right.logprob.reshape(SEQUENCES, LENGTH).copy())
    side = replace(e.right, logprob=values.reshape(-1).astype(np.float32), entropy=None)
    return measured(replace(e, right=side))


def faults(e: Evidence) -> list[str]:
    return [row["fault"] for row in climb(e) if row["verdict"] == "fail"]


def rung(e: Evidence, name: str) -> Row:
    return next(row for row in climb(e) if row["rung"].startswith(name))


# ---------------------------------------------------------------- clean pairs


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("noise", [1e-6, 0.01, 0.05])
def test_a_clean_pair_raises_nothing(seed: int, noise: float) -> None:
    """Rounding alone, small or large, with or without top-k, fails no rung."""
    assert faults(make(seed, noise, top=seed % 2 == 0)) == []


def test_every_rung_answers_once_and_a_dump_is_never_passed_on_what_it_cannot_show() -> None:
    """L0 to L5 in order; without facts, weights, sampling, routing, kernels and shape are open."""
    rows = climb(make())
    assert [row["rung"][:2] for row in rows] == ["L0", "L1", "L2", "L3", "L4", "L5"]
    assert [row["verdict"] for row in rows] == ["not checked", "pass", *["not checked"] * 4]


# ---------------------------------------------------------------- named faults


@pytest.mark.parametrize("by", [-2, -1, 1, 2])
def test_a_shift_is_named_with_its_direction(by: int) -> None:
    """Right's value of a token stands `by` later: named, with how many sequences."""
    e = right(make(), lambda v: np.roll(v, by, axis=1))
    assert faults(e) == ["shift"]
    where = "later" if by > 0 else "earlier"
    said = rung(e, "L1")["evidence"]
    assert f"shifted by {abs(by)}: in {SEQUENCES} of {SEQUENCES}" in said and where in said


def test_a_shift_in_two_sequences_is_named() -> None:
    """A shift in some rows only must not drown in the mean of all."""

    def change(v: np.ndarray) -> np.ndarray:
        v[3:5] = np.roll(v[3:5], 1, axis=1)
        return v

    e = right(make(), change)
    assert faults(e) == ["shift"]
    assert f"in 2 of {SEQUENCES}" in rung(e, "L1")["evidence"]


def test_shifts_of_two_kinds_are_counted_apart() -> None:
    """Three rows one later, two rows two earlier: the commoner is told with its own number."""

    def change(v: np.ndarray) -> np.ndarray:
        v[:3], v[3:5] = np.roll(v[:3], 1, axis=1), np.roll(v[3:5], -2, axis=1)
        return v

    said = rung(right(make(), change), "L1")["evidence"]
    assert f"shifted by 1: in 3 of {SEQUENCES}" in said


@pytest.mark.parametrize("value", [0.0, -1.0, -100.0])
def test_prompt_tokens_in_the_mask_are_named(value: float) -> None:
    """Placeholders at the head of each scored stretch are a contaminated mask."""

    def change(v: np.ndarray) -> np.ndarray:
        v[:, :3] = value
        return v

    assert faults(right(make(), change)) == ["mask"]


def test_padding_that_is_counted_is_named() -> None:
    """A tail of one id with a placeholder on one side, or on both, is padding."""

    def padded(e: Evidence) -> Evidence:
        ids = e.token_id.reshape(SEQUENCES, LENGTH).copy()
        ids[:, -8:] = 7
        return replace(e, token_id=ids.reshape(-1))

    def change(v: np.ndarray) -> np.ndarray:
        v[:, -8:] = 0.0
        return v

    one = padded(right(make(), change))
    assert faults(one) == ["padding"]
    both = replace(one, left=replace(one.left, logprob=one.right.logprob))
    assert faults(both) == ["padding"]


def test_a_model_that_loops_is_not_padding() -> None:
    """A repeated id that becomes certain after a few tokens is a rollout as models make them."""
    e = make()
    ids = e.token_id.reshape(SEQUENCES, LENGTH).copy()
    ids[:, -8:] = 7
    values = e.right.logprob.reshape(SEQUENCES, LENGTH).copy()
    values[:, -8:] = [-1.2, -0.3, -0.01, 0, 0, 0, 0, 0]
    sides = [replace(s, logprob=values.reshape(-1)) for s in (e.left, e.right)]
    e = measured(replace(e, left=sides[0], right=sides[1], token_id=ids.reshape(-1)))
    assert "padding" not in faults(e)


def test_values_of_another_row_are_named() -> None:
    """Two rows swapped on one side are found by whose values they fit."""

    def change(v: np.ndarray) -> np.ndarray:
        v[[2, 9]] = v[[9, 2]]
        return v

    e = right(make(), change)
    assert faults(e) == ["rows"]
    assert f"2 of {SEQUENCES}" in rung(e, "L1")["evidence"]


def test_rows_are_searched_that_are_far_off_wherever_they_lie(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The limit is on rows that may be swapped, not on the first ones of a long run."""

    def change(v: np.ndarray) -> np.ndarray:
        v[[20, 23]] = v[[23, 20]]
        return v

    monkeypatch.setattr(tokens, "MOST_ROWS", 4)
    e = right(make(), change)
    assert faults(e) == ["rows"] and f"2 of {SEQUENCES}" in rung(e, "L1")["evidence"]


def test_a_sequence_that_is_there_twice_is_named() -> None:
    """The same ids again, too unlikely for chance, are one rollout counted twice."""
    e = make()
    ids = (*e.ids[:-1], e.ids[0])
    assert faults(replace(e, ids=ids)) == ["duplicates"]


def test_a_conversation_with_a_row_for_each_turn_is_not_there_twice() -> None:
    """The same ids of which each row scores another half: no token is counted twice."""
    e = make()
    first, last = e.sequence == 0, e.sequence == SEQUENCES - 1
    keep = ~(first & (e.position >= 40)) & ~(last & (e.position < 40))
    left, other = (replace(s, logprob=s.logprob[keep], entropy=None) for s in e.sides)
    at = {name: getattr(e, name)[keep] for name in ("sequence", "position", "token_id")}
    e = replace(e, left=left, right=other, ids=(*e.ids[:-1], e.ids[0]), **at)
    assert faults(measured(e)) == []


def test_a_likely_sequence_may_be_drawn_twice() -> None:
    """A response that a sure model always gives is no mistake."""
    e = make()
    sure = np.full(len(e.sequence), -1e-3, np.float32)
    sides = [replace(s, logprob=sure) for s in (e.left, e.right)]
    e = replace(e, left=sides[0], right=sides[1], ids=(*e.ids[:-1], e.ids[0]))
    assert "duplicates" not in faults(e)


def test_worst_tokens_at_the_edges_of_the_mask_are_named() -> None:
    """Random wrong values at the first token of each row point to the mask, not to a kernel."""

    def change(v: np.ndarray) -> np.ndarray:
        v[:, 0] = np.random.default_rng(1).uniform(-12, -8, len(v))
        return v

    assert faults(right(make(), change)) == ["edges"]


@pytest.mark.parametrize("divisor", [0.6, 0.9, 1.3])
def test_values_divided_by_t_are_named(divisor: float) -> None:
    """lp / T is no distribution; the divisor is told."""
    e = right(make(noise=0.003), lambda v: v / divisor)
    assert faults(e) == ["divided"]
    assert f"divided by {divisor:.3g}" in rung(e, "L2")["evidence"]


@pytest.mark.parametrize("temperature", [0.6, 0.8, 1.3])
def test_another_temperature_is_named_and_its_size_is_exact_from_top_k(temperature: float) -> None:
    """Scored at T on one side: from top-k T is known to 1%, from the tokens' odds roughly."""
    e = make(temperature=temperature, top=True)
    assert faults(e) == ["temperature"]
    said = rung(e, "L2")["evidence"]
    assert float(said.split("at temperature ")[1].split()[0]) == pytest.approx(
        temperature, rel=0.01
    )
    bare = make(temperature=temperature, spreads=(6.0, 12.0))
    assert faults(bare) == ["temperature"]


def test_clamped_values_are_named_with_the_limit() -> None:
    e = right(make(), lambda v: np.maximum(v, -3.0))
    assert faults(e) == ["clamped"]
    assert "clamped at -3" in rung(e, "L2")["evidence"]


def test_a_column_of_one_drawable_token_is_not_called_made_up() -> None:
    """Values taken after top_k=1 are 0, and rightly so: what to do is to take them before."""
    e = right(make(), np.zeros_like)
    side = replace(e.right, provenance={"facts": {"scored_as": {"top_k": 1}}})
    row = rung(replace(e, right=side), "L2")
    assert row["fault"] == "constant" and "top_k=1 leaves one token" in row["evidence"]
    assert "raw_logprobs" in row["todo"]


def test_a_greedy_rollout_is_not_judged_by_its_mean_ratio() -> None:
    """Its tokens are no draws of the whole distribution: nothing fails, and the words say so."""
    e = replace(make(), sampled_by="reshaped")
    assert faults(e) == []
    assert "at T = 1 without a cut" in rung(e, "L2")["evidence"]


def test_a_constant_column_is_named() -> None:
    assert faults(right(make(), lambda v: np.full_like(v, -1.0))) == ["constant"]


def test_values_rounded_to_bf16_are_named() -> None:
    """Log-probabilities kept in bf16 on one side, which float32 would tell apart."""

    def change(v: np.ndarray) -> np.ndarray:
        return (v.view(np.uint32) & 0xFFFF0000).view(np.float32)

    assert faults(right(make(), change)) == ["precision"]


def test_logits_rounded_to_bf16_are_named_where_more_bits_are_claimed() -> None:
    """Seen in top-k differences; a model that says bf16 is what it says, and one in fp16 has such
    steps by itself where its logits are large."""
    e = make(top=True)
    assert e.right.top is not None
    rounded = np.round(np.sort(e.right.top.logprobs, -1)[:, ::-1] * 32) / 32
    top = Top(e.right.top.ids, rounded)
    for dtype, named in (("fp32", ["precision"]), ("bf16", []), ("fp16", [])):
        facts = {"facts": {"observed": {"dtype": dtype}}}
        side = replace(e.right, top=top, provenance={**e.right.provenance, **facts})
        assert faults(replace(e, right=side)) == named


def test_tokens_that_were_drawn_from_another_distribution_are_named() -> None:
    """Drawn at T = 0.7 and recorded raw: each value is right, and their mean is not the entropy."""
    e = make(temperature=0.7)
    raw = replace(e.right, logprob=e.left.logprob, entropy=e.left.entropy)
    assert faults(measured(replace(e, right=raw))) == ["draws"]


def test_columns_of_another_rollout_are_named() -> None:
    """Tokens that right says it drew, drawn by something sharper: the mean ratio is not 1."""
    e = make(noise=1.0)
    turned = replace(
        e, left=replace(e.right, name="train"), right=replace(e.left, name="infer", entropy=None)
    )
    assert faults(measured(turned)) in (["ratio"], ["weights"])


# ---------------------------------------------------------------- what the engines said


def with_facts(e: Evidence, left: dict[str, Any], other: dict[str, Any]) -> Evidence:
    sides = [
        replace(s, provenance={"path": "score", "condition": "x", **s.provenance, "facts": f})
        for s, f in ((e.left, left), (e.right, other))
    ]
    return replace(e, left=sides[0], right=sides[1])


def facts(**more: Any) -> dict[str, Any]:
    tensor = {"dtype": "bf16", "bf16": "a", "fp16": "b"}
    return {
        "observed": {"dtype": "bf16", **more.pop("observed", {})},
        "scored_as": {},
        "experts": 0,
        "weights": {"tensors": {"w": tensor}, "unread": {}},
        **more,
    }


def test_two_engines_that_show_all_pass_every_rung() -> None:
    rows = climb(with_facts(make(), facts(), facts()))
    assert {row["verdict"] for row in rows} == {"pass"}


def test_weights_that_differ_are_named_whatever_the_values() -> None:
    """One tensor of another digest is stale or different weights."""
    other = {"tensors": {"w": {"dtype": "bf16", "bf16": "z", "fp16": "z"}}, "unread": {}}
    e = with_facts(make(), facts(), facts(weights=other))
    assert faults(e) == ["weights"]
    assert "1 of 1 tensors differ" in rung(e, "L0")["evidence"]


def test_weights_that_one_side_quantises_are_not_called_stale() -> None:
    """They differ as asked: not checked, with the reason."""
    other = {"tensors": {"w": {"dtype": "bf16", "bf16": "z", "fp16": "z"}}, "unread": {}}
    quantised = facts(weights=other, observed={"quantization": "fp8"})
    row = rung(with_facts(make(), facts(), quantised), "L0")
    assert row["verdict"] == "not checked" and "fp8" in row["evidence"]


FP32 = {"dtype": "fp32", "fp32": "a", "bf16": "b", "fp16": "c"}
BF16 = {"dtype": "bf16", "bf16": "b", "fp16": "c"}


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (FP32, {**BF16, "fp16": "d"}, True),
        (FP32, {**BF16, "bf16": "x"}, False),
        (BF16, {"dtype": "fp16", "fp16": "c", "bf16": "b"}, True),
        (BF16, {"dtype": "fp16", "fp16": "d", "bf16": "e"}, None),
    ],
)
def test_tensors_are_compared_after_rounding_to_one_dtype(
    one: dict[str, str], other: dict[str, str], equal: bool | None
) -> None:
    """The wider is rounded to the narrower; bf16 and fp16 prove equality only."""
    assert weights.same(one, other) is equal and weights.same(other, one) is equal


def test_a_sampler_setting_that_nobody_asked_for_is_named() -> None:
    """generation_config leaks into a rollout."""
    e = with_facts(make(), facts(), facts(sampling={"temperature": 0.6, "top_k": -1}))
    assert faults(e) == ["leak"]


@pytest.mark.parametrize(
    ("kept", "named"),
    [("fp8_e5m2", True), ("int8", True), ("nvfp4", True), ("fp4_e2m1", True),
     ("bfloat16", False), ("auto", False)],
)  # fmt: skip
def test_a_cache_of_fewer_bits_that_nobody_asked_for_is_named(kept: str, named: bool) -> None:
    e = with_facts(make(), facts(), facts(observed={"kv_cache_dtype": kept}))
    assert faults(e) == ["kv_cache"] * named


def test_a_gap_beyond_rounding_with_equal_weights_is_a_kernel() -> None:
    """bf16 kernels reach 25 roundoffs; much more is another function."""
    assert faults(with_facts(make(noise=0.6), facts(), facts())) == ["size"]


def test_a_gap_is_not_judged_by_a_precision_that_no_side_shows() -> None:
    """4 bits have no roundoff here, and a side that says nothing is not taken for fp32."""
    e = make(noise=0.6)
    for quantization in ("awq", "mxfp4"):
        four = facts(observed={"quantization": quantization})
        assert faults(with_facts(e, facts(), four)) == []
        assert rung(with_facts(e, facts(), four), "L4")["verdict"] == "not checked"
    silent = {**facts(), "observed": {}}
    row = rung(with_facts(e, silent, silent), "L4")
    assert row["verdict"] == "not checked" and "not known" in row["evidence"]
    single = facts(observed={"dtype": "fp32"})
    assert faults(with_facts(make(noise=0.05), single, silent)) == []
    assert faults(with_facts(e, single, silent)) == ["size"]


@pytest.mark.parametrize(
    ("observed", "coarsest"),
    [
        ({"dtype": "bf16"}, "bf16"),
        ({"dtype": "bfloat16"}, "bf16"),
        ({"dtype": "fp16", "kv_cache_dtype": "fp8_e4m3", "quantization": None}, "fp8"),
        ({"dtype": "bf16+float8_e4m3fn", "quantization": "none"}, "fp8"),
        ({"dtype": "fp32", "autocast": "bf16", "kv_cache_dtype": "auto"}, "bf16"),
        ({"dtype": "fp16+int32"}, None),
        ({"quantization": "w8a8_int8"}, "int8"),
        ({}, ""),
    ],
)
def test_the_coarsest_precision_of_a_side(observed: dict[str, Any], coarsest: str | None) -> None:
    """Weights, products and cache by the names that engines use; packed integers are not known."""
    side = replace(make().left, provenance={"facts": {"observed": observed}})
    assert kernels._roundoff(side) == coarsest


def test_an_interval_that_is_open_above_is_told_by_its_lower_end() -> None:
    """Few sequences, three of which are spoilt: the tail is named, and nothing breaks."""
    e = with_facts(make(spreads=(6.0,)), facts(), facts())
    found = {**e.metrics, "confident_disagreement": {"value": 0.035, "low": 0.002, "high": None}}
    e = replace(e, metrics=found)
    assert faults(e) == ["size"] and "from 0.20% on" in rung(e, "L4")["evidence"]


def test_a_gap_just_beyond_rounding_is_said_to_be_beyond() -> None:
    """25.1 roundoffs against a limit of 25 must not read as 25 against 25."""
    clean = with_facts(make(), facts(), facts())
    off = replace(clean.left, logprob=clean.right.logprob + np.float32(25.1 / 256))
    (row,) = kernels.too_far(measured(replace(clean, left=off)))
    assert "25.1 roundoffs of bf16" in row["evidence"]


def test_few_tokens_that_are_wholly_off_are_a_kernel_too() -> None:
    """A tail that rounding does not make, under a mean that it could."""

    def change(v: np.ndarray) -> np.ndarray:
        sure = v > np.log(0.5)
        spoilt = sure & (np.random.default_rng(3).random(v.shape) < 0.01)
        return np.where(spoilt, v - 4, v).astype(np.float32)

    clean = with_facts(make(), facts(), facts())
    values = change(clean.left.logprob)
    e = measured(replace(clean, left=replace(clean.left, logprob=values)))
    assert faults(e) == ["size"]


def test_what_one_failure_explains_is_not_judged_again() -> None:
    """A shift makes a huge gap: kernels and sampling are open, not passed and not failed."""
    e = right(with_facts(make(), facts(), facts()), lambda v: np.roll(v, 1, axis=1))
    assert faults(e) == ["shift"]
    assert rung(e, "L4")["verdict"] == "not checked" and "shift" in rung(e, "L4")["evidence"]


def test_a_rung_that_was_not_judged_says_nothing_of_the_values() -> None:
    """Shifted columns of a dump have a mean ratio of 10: no row may say that it fits 1."""
    e = right(make(), lambda v: np.roll(v, 1, axis=1))
    assert faults(e) == ["shift"]
    assert rung(e, "L2")["evidence"] == "not judged: L1 tokens failed (shift)"


def test_without_a_token_nothing_passes_that_values_would_show() -> None:
    """No token scored, or none that is finite on both sides, is no evidence for L1, L2 and L4; what
    the engines said of themselves is still told."""
    none, ids = np.zeros(0, np.float32), np.zeros(0, np.int64)
    sides = [Side(name, none, {"path": "score"}) for name in ("train", "infer")]
    empty = with_facts(
        Evidence(*sides, ids, ids, ids, (np.arange(3),), "infer", {}), facts(), facts()
    )
    lost = right(with_facts(make(), facts(), facts()), lambda v: np.full_like(v, np.nan))
    for e in (empty, lost):
        assert faults(e) == []
        open_ = [row["rung"][:2] for row in climb(e) if row["verdict"] == "not checked"]
        assert open_ == ["L1", "L2", "L4"]
        stale = facts(weights={"tensors": {"w": {"dtype": "bf16", "bf16": "z"}}, "unread": {}})
        assert faults(with_facts(e, facts(), stale)) == ["weights"]


def test_a_dump_is_held_to_the_coarsest_precision_that_is_known() -> None:
    """What ran is not recorded; a gap that not even 8 bits make is no rounding all the same."""
    rng = np.random.default_rng(5)
    e = make()
    near = right(e, lambda v: np.minimum(v + rng.normal(0, 0.3, v.shape), 0))
    assert rung(near, "L4")["verdict"] == "not checked"
    far = replace(near, sampled_by="unknown")
    other = replace(far.right, logprob=-rng.uniform(2, 8, len(e.sequence)).astype(np.float32))
    rows = climb(measured(replace(far, right=other)))
    (size,) = (row for row in rows if row.get("fault") == "size")
    assert "fp8, the coarsest precision that is known" in size["evidence"]


def test_two_columns_that_are_one_are_told() -> None:
    """A dump whose sides are equal to the last bit may be one column recorded twice."""
    e = make()
    twin = measured(
        replace(e, right=replace(e.right, logprob=e.left.logprob), sampled_by="unknown")
    )
    assert "is one column there twice?" in rung(twin, "L2")["evidence"]
    assert "nothing says who drew" in rung(twin, "L2")["evidence"]
    assert "twice?" not in rung(e, "L2")["evidence"]


def test_what_an_engine_does_not_show_is_not_passed() -> None:
    """No tensor is not all tensors, and no word on sampling is not the same sampling."""
    bare = facts(weights={"tensors": {}, "unread": {}})
    assert rung(with_facts(make(), bare, bare), "L0")["verdict"] == "not checked"
    silent = facts()
    del silent["scored_as"]
    assert rung(with_facts(make(), facts(), silent), "L2")["verdict"] == "not checked"


def test_many_positions_of_top_k_are_read_by_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """K x K comparisons of a long run do not fit at once: parts find the same temperature."""
    e = make(temperature=0.8, top=True)
    whole = rung(e, "L2")["evidence"]
    sizes: list[int] = []
    differences = scale._differences

    def noted(one: Top, other: Top) -> Any:
        sizes.append(len(one.ids))
        return differences(one, other)

    monkeypatch.setattr(distribution, "CHUNK", 100)
    monkeypatch.setattr(scale, "_differences", noted)
    assert rung(e, "L2")["evidence"] == whole
    assert max(sizes) == 100 and sum(sizes) == SEQUENCES * LENGTH


def test_numbers_of_something_else_are_no_temperature() -> None:
    """A column that knows nothing of the tokens comes nearer too when it is stretched, and is no
    temperature; one that agrees on which tokens are likely is."""
    rng = np.random.default_rng(1)
    x, other = 1 + 0.3 * rng.normal(size=500), 3 + 0.9 * rng.normal(size=500)
    found = scale._fitted(x, 3 * x, "from odds")
    assert found is not None and found[0] == pytest.approx(1 / 3)
    assert scale._fitted(x, other, "from odds") is None


# ---------------------------------------------------------------- L3: routes


def routed(beyond: list[float | None], tokens: int = 2000) -> dict[str, Any]:
    """A pair's element `routes` whose layers agree so far beyond chance."""
    rate = {"value": 0.1, "low": 0.05, "high": 0.2}
    return {
        "tokens": tokens,
        "metrics": dict.fromkeys(("router_flip_rate", "token_flip_rate"), rate),
        "by_layer": [
            {"layer": k, "router_flip_rate": rate, "beyond_chance": b} for k, b in enumerate(beyond)
        ],
    }


def at_l3(e: Evidence) -> Row:
    (row,) = [row for row in climb(e) if row["rung"] == "L3 routing"]
    return row


def test_other_experts_by_rounding_pass_and_are_told() -> None:
    """With the shares, and the layer that agrees least."""
    row = at_l3(replace(make(), routes=routed([0.99, 0.9, 1.0])))
    assert row["verdict"] == "pass" and "10.00% of (token, layer)" in row["evidence"]
    assert "0.90 beyond chance" in row["evidence"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"routes": routed([1.0, 0.0]), "replayed": {"train": "all"}}, "its own router was not"),
        ({"routes": routed([0.99, 0.0], tokens=40)}, "40 tokens are too few"),
        ({"routes": routed([0.99, None])}, "1 of 2 layers send nearly all tokens alike"),
    ],
)
def test_routes_that_cannot_be_judged_are_not_checked(change: dict[str, Any], says: str) -> None:
    """A replay shows no router, few tokens show no rate, and tokens that all go one way agree."""
    row = at_l3(replace(make(), **change))
    assert row["verdict"] == "not checked" and says in row["evidence"]


def test_a_layer_that_agrees_by_chance_fails() -> None:
    """One of three is enough, and it is named; nothing else of the pair is judged after it."""
    e = replace(make(), routes=routed([0.99, 0.02, 0.97]))
    row = at_l3(e)
    assert row["verdict"] == "fail" and row["fault"] == "routing"
    assert "1 of 3" in row["evidence"] and "layer 1 agrees 0.02" in row["evidence"]
    assert faults(e) == ["routing"]


@pytest.mark.parametrize(
    ("captured", "says"),
    [
        ((False, False), "no side captured its routes"),
        ((True, False), "infer captured no routes"),
        ((True, True), "cannot be compared"),
    ],
)
def test_routes_that_were_not_captured_are_not_checked(
    captured: tuple[bool, bool], says: str
) -> None:
    """Silence is no pass: who was silent is said."""
    e = make()
    left, right_ = (
        replace(
            side,
            provenance={
                "path": "score",
                "facts": {"experts": 8, "observed": {"routes": True} if there else {}},
            },
        )
        for side, there in zip(e.sides, captured, strict=True)
    )
    row = at_l3(replace(e, left=left, right=right_))
    assert row["verdict"] == "not checked" and says in row["evidence"]
