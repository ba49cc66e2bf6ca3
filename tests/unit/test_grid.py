"""The cells of a study: each corner of an attribution has a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mismatch.errors import MismatchError
from mismatch.study import read_study
from mismatch.verbs.grid import of_study
from mismatch.verbs.request import Request

Make = Callable[[str], Request]

HEAD = """
model = "{model}"
corpus = "corpus.jsonl"
paths = ["decode"]
floor = "none"
"""


@pytest.fixture
def request_of(tmp_path: Path, attention: Path) -> Make:
    """The request of a study file's text below its head."""

    def make(text: str) -> Request:
        (tmp_path / "corpus.jsonl").write_text(json.dumps({"token_ids": [1, 2, 3]}) + "\n")
        path = tmp_path / "study.toml"
        path.write_text(HEAD.format(model=attention) + text)
        return of_study(read_study(path))

    return make


def condition(side: str, name: str, spec: str) -> str:
    return f'[[condition]]\nside = "{side}"\nid = "{name}"\nspec = "{spec}"\n'


def attribute(left: str, right: str, more: str = "") -> str:
    return f'[[attribute]]\nleft = "{left}"\nright = "{right}"\npath = "decode"\n{more}\n'


def test_a_corner_and_a_condition_of_the_other_side_have_two_ids(request_of: Make) -> None:
    """toy stands on both sides: its corner there must not share a folder with the one here."""
    request = request_of(
        condition("train", "left", "toy:dtype=fp64")
        + condition("train", "right", "toy:dtype=fp16,temperature=0.6")
        + condition("infer", "toy-fp16", "toy:dtype=fp64")
        + attribute("left", "right")
    )
    ids = [c.condition.id for c in request.cells]
    assert len(set(ids)) == len(ids) == len(request.asked["conditions"])
    assert "toy-fp16-train" in ids


def test_a_corner_never_takes_the_id_of_a_condition_of_the_other_side(request_of: Make) -> None:
    """hf is a trainer alone, so that its corners say no side: a clash is told."""
    with pytest.raises(MismatchError, match="has the id of toy:dtype=fp64"):
        request_of(
            condition("train", "left", "hf:dtype=fp32,attention=eager")
            + condition("train", "right", "hf:dtype=bf16,attention=sdpa")
            + condition("infer", "hf-fp32-sdpa", "toy:dtype=fp64")
            + attribute("left", "right")
        )


def test_an_end_is_read_from_its_own_captures(request_of: Make) -> None:
    """Of two conditions with the same options the one that was named is the end, at each corner
    that it stands at."""
    request = request_of(
        condition("train", "train", "hf:attention=eager,dtype=fp32")
        + condition("infer", "one", "toy:dtype=fp32")
        + condition("infer", "two", "toy:dtype=fp32")
        + attribute("train", "two", 'knobs = ["engine", "attention"]')
    )
    corners = request.attributions[0].corners
    assert corners["11"] == corners["10"] == "two/decode-1"


MIXED = (
    condition("train", "trainer", "hf:dtype=fp32,autocast=bf16")
    + condition("infer", "sampler", "vllm:dtype=bf16")
    + attribute("trainer", "sampler", "{knobs}")
)


def test_options_that_exclude_each_other_may_go_with_the_engine(request_of: Make) -> None:
    """autocast has no meaning over bf16 weights, so that such a corner exists nowhere; with dtype
    left out of the knobs there is none, and the spec says what engine carries."""
    with pytest.raises(MismatchError, match=r"no machine: autocast.* out of knobs") as refused:
        request_of(MIXED.format(knobs=""))
    assert "Capture" not in str(refused.value)
    (spec,) = request_of(MIXED.format(knobs='knobs = ["engine"]')).attributions
    assert spec.folded == ("dtype",) and set(spec.corners) == {"0", "1"}


def test_an_end_that_exists_nowhere_is_told_so(request_of: Make) -> None:
    """Leaving a knob out does not mend an end."""
    with pytest.raises(MismatchError, match=r"no machine: padding and packing.*Choose ends"):
        request_of(
            condition("train", "left", "hf:batch=4,padding=left,packing=true")
            + condition("infer", "right", "toy")
            + attribute("left", "right")
        )


def test_what_this_machine_lacks_is_no_contradiction(request_of: Make) -> None:
    """Another machine takes such a corner: the cell says why this one cannot."""
    request = request_of(
        condition("train", "left", "hf:dtype=fp32,tp=1024")
        + condition("train", "right", "hf:dtype=bf16")
        + condition("infer", "toy", "toy")
        + attribute("left", "right")
    )
    assert any(cell.refused for cell in request.cells)
