"""Whether two traces are of one distribution, as their provenance tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mismatch.compare.compare import compare
from mismatch.compare.semantics import emulation, sampling_check
from mismatch.model import PairSpec, make_corpus
from tests import known
from tests.unit.compare.folders import run_folder


def _trace(**scored_as: float) -> dict[str, Any]:
    return {"facts": {"scored_as": scored_as}}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (_trace(), _trace()),
        (_trace(temperature=0.6), _trace(temperature=0.6, top_p=1.0, top_k=-1, min_p=0.0)),
        (_trace(top_k=0), _trace(top_k=-1)),
        ({"facts": {}}, _trace(temperature=0.6)),
        ({}, _trace(temperature=0.6)),
    ],
)
def test_one_distribution_or_an_unknown_one_is_no_failure(left: Any, right: Any) -> None:
    """Neutral settings may be stated or not; a dump that does not say is not accused."""
    assert sampling_check(left, right) is None


def test_values_of_two_distributions_fail_and_name_what_differs() -> None:
    """Raw against processed at T = 0.6 with a penalty: both are in the evidence."""
    found = sampling_check(_trace(), _trace(temperature=0.6, repetition_penalty=1.1, top_p=1.0))
    assert found is not None
    assert (found["rung"], found["verdict"]) == ("sampling", "fail")
    assert "temperature 1 against 0.6" in found["evidence"]
    assert "repetition_penalty 1 against 1.1" in found["evidence"]
    assert "top_p" not in found["evidence"]


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ({"quantization": "emulated: 4 linear layers"}, "emulated: 4 linear layers"),
        ({"quantization": "mismatch_fp8", "emulation": "emulated: 2"}, "emulated: 2"),
        ({"quantization": "fp8"}, None),
        ({"quantization": None}, None),
        ({}, None),
    ],
)
def test_an_emulation_is_told_as_its_engine_told_it(facts: Any, says: str | None) -> None:
    """hf and vllm say it in facts of two names; a real kernel's name is no emulation."""
    assert emulation({"facts": facts}) == says


def test_a_pair_says_which_side_emulated(tmp_path: Path) -> None:
    """summary.json names the side, and has no such key where both ran real kernels."""
    corpus = make_corpus([(ids, None) for ids in known.sequences(9, 6)])
    ends = ("hf/score-1", "vllm/decode-1", "plain/decode-1")
    pairs = [PairSpec(f"hf~{end}", "train-infer", "decode", ends[0], end, {}) for end in ends[1:]]
    facts = {ends[0]: {}, ends[1]: {"emulation": "emulated: 4"}, ends[2]: {}}
    found = compare(run_folder(tmp_path, corpus, facts, pairs))["pairs"]
    assert found[0]["emulated"] == {"infer": "emulated: 4"}
    assert "emulated" not in found[1]
