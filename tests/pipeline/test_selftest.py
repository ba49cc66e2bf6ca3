"""The self-test as a user runs it: on toy engines, and on the real ones."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from mismatch import store
from mismatch.engines.base import this_machine
from mismatch.selftest.captures import VLLM
from mismatch.selftest.exhibit import Exhibit, read_values
from mismatch.selftest.faults import Fault
from mismatch.selftest.run import _judged, markdown
from tests import known
from tests.pipeline.conftest import Probe


def test_every_fault_in_values_is_found_in_toy_traces(
    probe: Probe, attention: Path, tmp_path: Path
) -> None:
    """A shift, a mask, padding and their like are named; the clean pairs raise nothing."""
    prompts = tmp_path / "prompts.jsonl"
    rows = [json.dumps({"token_ids": ids}) for ids in known.sequences(12, 6)]
    prompts.write_text("\n".join(rows) + "\n")
    done = probe(
        "selftest", "--quick", "--train", "toy:dtype=fp64,noise=0.003", "--infer",
        "toy:dtype=fp64", "--model", attention, "--prompts", prompts, "--out", "o", "--json",
    )  # fmt: skip
    assert done.code == 0, done.out
    was = {row["fault"]: row["verdict"] for row in done.json["results"]}
    assert was["shift by one"] == was["padding counted"] == was["mask contamination"] == "named"
    assert set(was.values()) == {"quiet", "named", "flagged", "not run"}
    assert "| shift by one | named | **named** |" in (tmp_path / "o" / "selftest.md").read_text()


def test_a_fault_that_is_not_named_is_missed(tmp_path: Path, bigram: Path, probe: Probe) -> None:
    """A table that cannot fail proves nothing: an undamaged pair under a fault's name is missed,
    unless the ladder said that it could not climb the one rung that could see it.
    """
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"token_ids": i}) + "\n" for i in known.sequences(12, 6)))
    probe(
        "run", "--model", bigram, "--train", "toy", "--infer", "toy", "--prompts", prompts,
        "--max-tokens", 12, "--paths", "rollout", "--floor", "none", "--out", "o",
    )  # fmt: skip
    clean = _exhibit(tmp_path / "o")
    root = tmp_path / "shown"
    result = _judged(Fault("nothing was done", ("shift",)), lambda: clean, root)
    assert result.verdict == "missed" and result.said == "nothing" and not result.good
    facts = {n: v for n, v in clean.left_about["facts"].items() if n != "weights"}
    blind = replace(clean, left_about={**clean.left_about, "facts": facts})
    told = _judged(Fault("too small to see", ("weights",), "L0 weights"), lambda: blind, root)
    assert told.verdict == "not checked" and "show" in told.said and told.good
    row = {"fault": "x", "must": "named", "verdict": "missed", "said": "a|b<c"}
    found = {"train": "a", "infer": "b", "sequences": 1, "passed": False, "results": [row]}
    assert "FAILED" in markdown(found) and "a\\|b&lt;c" in markdown(found)


def _exhibit(root: Path) -> Exhibit:
    (folder,) = (root / "corpus").iterdir()
    corpus, about, _ = store.load_corpus(folder)
    (_, left, one), (_, right, other) = (
        read_values(root, f"toy/{capture}") for capture in ("score-1", "rollout-1")
    )
    return Exhibit(corpus.token_ids, corpus.scored, left, right, one, other, about)


def test_preflight_shows_the_rungs_of_a_folder_and_of_a_study_in_small(
    probe: Probe, attention: Path, tmp_path: Path
) -> None:
    """0 where no rung fails, 5 where one does, with the fault's name."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"token_ids": i}) + "\n" for i in known.sequences(20, 6)))
    study = tmp_path / "study.toml"
    study.write_text(
        f'model = "{attention}"\nprompts = "prompts.jsonl"\npaths = ["rollout"]\n'
        '[train]\nengine = "toy"\nnoise = 0.003\n[infer]\nengine = "toy"\n'
    )
    done = probe("preflight", study, "--json")
    assert done.code == 0, done.err
    (pair,) = done.json["pairs"]
    assert pair["sequences"] == 16
    assert [row["rung"][:2] for row in pair["preflight"]] == ["L0", "L1", "L2", "L3", "L4", "L5"]
    told = {row["rung"][:2]: row["verdict"] for row in pair["preflight"]}
    assert told == {**dict.fromkeys(told, "pass"), "L4": "not checked"}  # toy is in fp64
    assert "L0 weights" in probe("preflight", "study-preflight").out
    study.write_text(study.read_text().replace("noise = 0.003", "temperature = 0.5"))
    hot = probe("preflight", study, "--out", "hot", "--json")
    assert hot.code == 5
    failed = [row for row in hot.json["pairs"][0]["preflight"] if row["verdict"] == "fail"]
    assert [row["fault"] for row in failed] == ["sampling"]


@pytest.mark.real
def test_the_quick_self_test_passes_on_real_engines(probe: Probe) -> None:
    """hf against vllm on the shipped checkpoint: faults in values are named, clean pairs quiet."""
    done = probe("selftest", "--quick", "--out", "o", "--json", timeout=1200)
    assert done.code == 0, done.out + done.err


@pytest.mark.real
@pytest.mark.slow
def test_the_whole_self_test_passes_on_real_engines(probe: Probe) -> None:
    """Faults in live engines too: stale weights, a wrong rope, a broken attention merge.

    Two of vllm's need a CPU with wide instructions, and are told as not run on any other.
    """
    done = probe("selftest", "--seeds", 5, "--out", "o", "--json", timeout=3000)
    assert done.code == 0, done.out + done.err
    not_run = {r["fault"] for r in done.json["results"] if r["verdict"] == "not run"}
    assert not_run == (set() if this_machine().wide else {fault.title for fault in VLLM})
