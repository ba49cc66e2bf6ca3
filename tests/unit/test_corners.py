"""Knobs are what both ends accept, or `engine`; a corner is a condition that an engine takes."""

from __future__ import annotations

import pytest

from mismatch.corners import End, bits, corners, knobs_of
from mismatch.engines import parse_condition


def _ends(left: str, right: str) -> tuple[End, End]:
    def end(text: str) -> End:
        return End(parse_condition(text), "score" if text.startswith("hf") else "prefill")

    return end(left), end(right)


def test_engine_carries_what_only_one_engine_has() -> None:
    """padding is hf's and eager vllm's, and attention has other names in each; dtype is a knob."""
    ends = _ends(
        "hf:dtype=fp32,batch=4,padding=left,attention=sdpa",
        "vllm:dtype=bf16,batch=4,eager=true",
    )
    assert knobs_of(*ends) == ["engine", "dtype"]
    found = {b: e.condition.spec for b, e in corners(*ends, ["engine", "dtype"]).items()}
    assert found == {
        "00": "hf:attention=sdpa,batch=4,dtype=fp32,padding=left",
        "01": "hf:attention=sdpa,batch=4,dtype=bf16,padding=left",
        "10": "vllm:batch=4,dtype=fp32,eager=true",
        "11": "vllm:batch=4,dtype=bf16,eager=true",
    }


def test_one_engine_has_every_option_as_a_knob() -> None:
    """Two conditions of one engine differ in options alone; an absent one stays absent."""
    ends = _ends("hf:dtype=fp32,attention=eager", "hf:dtype=bf16,padding=left,batch=8")
    assert knobs_of(*ends) == ["attention", "batch", "dtype", "padding"]
    at = corners(*ends, ["attention", "batch", "dtype", "padding"])
    assert at["1000"].condition.spec == "hf:dtype=fp32"
    assert at["0110"].condition.spec == "hf:attention=eager,batch=8,dtype=bf16"


def test_an_option_of_one_engine_may_be_a_knob_of_its_own() -> None:
    """At the other engine's corners it is absent: toggling it there changes nothing."""
    ends = _ends("hf:dtype=fp32,attention=eager", "vllm:dtype=fp32")
    at = corners(*ends, ["engine", "attention"])
    assert at["00"].condition.spec == "hf:attention=eager,dtype=fp32"
    assert at["01"].condition.spec == "hf:dtype=fp32"
    assert at["10"].condition == at["11"].condition


def test_the_ends_stand_as_they_are() -> None:
    """The first and last corner are the given conditions, names included."""
    left, right = _ends("hf:dtype=fp32", "vllm:dtype=bf16")
    at = corners(left, right, ["engine", "dtype"])
    assert at["00"] is left and at["11"] is right and at["10"].path == "prefill"


@pytest.mark.parametrize(("knobs", "corners_wanted"), [(1, 2), (3, 8), (4, 16), (5, 10), (6, 12)])
def test_up_to_four_knobs_take_all_corners(knobs: int, corners_wanted: int) -> None:
    """Beyond four: one path (n + 1 corners) and each knob alone (n - 1 more)."""
    assert len(bits([str(k) for k in range(knobs)])) == corners_wanted


def test_an_option_left_out_of_the_knobs_goes_with_the_engine() -> None:
    """It stands at the value of the end whose engine the corner has."""
    ends = _ends("hf:dtype=fp32,autocast=bf16,batch=2", "vllm:dtype=bf16,batch=4")
    at = corners(*ends, ["engine", "batch"])
    assert at["01"].condition.spec == "hf:autocast=bf16,batch=4,dtype=fp32"
    assert at["10"].condition.spec == "vllm:batch=2,dtype=bf16"
