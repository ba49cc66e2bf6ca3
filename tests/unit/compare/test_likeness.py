"""Corners of one engine must have been taken alike: a version is no knob."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mismatch.compare.compare import check, compare
from mismatch.compare.likeness import unlike
from mismatch.model import make_corpus
from mismatch.report.shares import shares_of
from tests import known
from tests.unit.compare.folders import run_folder

CORPUS = make_corpus([(ids, None) for ids in known.sequences(9, 6)])


def _trace(condition: str, device: str = "Xeon", **versions: str) -> dict[str, Any]:
    return {"condition": condition, "facts": {"versions": versions, "device": device}}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (_trace("hf", torch="2.11"), _trace("hf:dtype=bf16", torch="2.11")),
        (_trace("hf", torch="2.11"), _trace("vllm", torch="2.12", device="EPYC")),
        (_trace("hf:device=cpu"), _trace("hf:device=cuda", device="H100")),
        ({"condition": "hf"}, {"condition": "hf:dtype=bf16"}),
    ],
)
def test_what_may_differ(left: dict[str, Any], right: dict[str, Any]) -> None:
    """Options, another engine's versions and machine, and a device that is a knob."""
    assert unlike({"a/score-1": left, "b/score-1": right}) == []


@pytest.mark.parametrize(
    ("right", "says"),
    [
        (_trace("hf", torch="2.13"), "torch was 2.11 (a/score-1) and 2.13 (b/score-1)"),
        (_trace("hf"), "torch was 2.11 (a/score-1) and not there (b/score-1)"),
        (_trace("hf", "EPYC", torch="2.11"), "the device was Xeon (a/score-1) and EPYC"),
    ],
)
def test_what_must_not_differ_is_named(right: dict[str, Any], says: str) -> None:
    """A version or a device of one engine's corners, with a trace that has each."""
    (found,) = unlike({"a/score-1": _trace("hf", torch="2.11"), "b/score-1": right})
    assert found.startswith("the corners of hf were not taken alike") and says in found


def test_an_attribution_over_two_versions_has_no_share(tmp_path: Path) -> None:
    """The summary says what differs and gives no number; it is believed as it stands."""
    facts = {f"hf/{n}-1": {"versions": {"torch": n}} for n in ("score", "other")}
    run_folder(tmp_path, CORPUS, facts, [])
    run = json.loads((tmp_path / "run.json").read_text())
    one = {"id": "why", "knobs": ["dtype"], "left": "hf", "right": "hf"}
    run["attributions"] = [{**one, "corners": {"0": "hf/score-1", "1": "hf/other-1"}}]
    (tmp_path / "run.json").write_text(json.dumps(run))
    (found,) = compare(tmp_path)["attributions"]
    assert found["tokens"] == 0 and found["knobs"] == [] and "torch was" in found["unlike"][0]
    (shown,) = shares_of(check(tmp_path))
    assert shown.finding.startswith("No evidence: the corners of hf were not taken alike: torch")
