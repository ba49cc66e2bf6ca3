"""compare A B: the traces named, and nothing that only looks like their floors."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mismatch.capture.run import seal_recorded_trace
from mismatch.errors import MismatchError
from mismatch.model import make_corpus
from mismatch.verbs.traces import compare_traces

IDS = make_corpus([(np.arange(6) + k, None) for k in range(9)])


def seal(root: Path, trace: str, shift: float, **about: Any) -> Path:
    """A trace whose every log-probability is -1 + shift."""
    values = [np.full(6, -1 + shift, np.float32) for _ in range(len(IDS))]
    made = {"condition": "vllm:dtype=bf16", "model": "m1", **about}
    seal_recorded_trace(root, trace, IDS, values, "test", {}, **made)
    return root / "traces" / trace


@pytest.fixture
def score(tmp_path: Path) -> Path:
    return seal(tmp_path / "a", "hf/score-1", 0.0, condition="hf")


def pair(left: Path, right: Path, out: Path) -> dict[str, Any]:
    (found,) = compare_traces(left, right, out)["pairs"]
    return dict(found)


def test_the_folder_named_is_compared_whatever_its_name(score: Path, tmp_path: Path) -> None:
    """decode-1 was renamed and another capture took its name: the renamed data count."""
    old = seal(tmp_path / "b", "vllm/decode-1", 0.25)
    kept = old.rename(old.with_name("before_the_upgrade"))
    seal(tmp_path / "b", "vllm/decode-1", 0.0)
    found = pair(score, kept, tmp_path / "out")
    assert found["metrics"]["logprob_diff_mean"]["value"] == pytest.approx(-0.25)


@pytest.mark.parametrize("about", [{"condition": "vllm:dtype=fp16"}, {"model": "m2"}])
def test_a_sibling_made_otherwise_is_no_floor(
    score: Path, tmp_path: Path, about: dict[str, str]
) -> None:
    """decode-2 beside decode-1 is a repeat only under one condition and one checkpoint."""
    first = seal(tmp_path / "b", "vllm/decode-1", 0.25)
    seal(tmp_path / "b", "vllm/decode-2", 0.5)
    alike = pair(score, first, tmp_path / "alike")
    assert alike["floor"]["repeat"]["infer"]["k2"]["value"] == pytest.approx(0.25**2 / 2)
    shutil.rmtree(first.with_name("decode-2"))
    seal(tmp_path / "b", "vllm/decode-2", 0.5, **about)
    assert pair(score, first, tmp_path / "other")["floor"] is None


def test_a_capture_that_only_has_the_name_is_no_floor(score: Path, tmp_path: Path) -> None:
    """A copy of decode-1 named decode-2 would be a floor of 0."""
    first = seal(tmp_path / "b", "vllm/decode-1", 0.25)
    shutil.copytree(first, first.with_name("decode-2"))
    assert pair(score, first, tmp_path / "out")["floor"] is None


def test_a_trace_outside_any_run_is_compared(
    score: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copied out of its run folder, named from where it lies: there is no corpus to bring along."""
    lone = tmp_path / "lone"
    shutil.copytree(seal(tmp_path / "b", "vllm/decode-1", 0.25), lone)
    monkeypatch.chdir(tmp_path)
    assert pair(score, Path("lone"), Path("out"))["tokens"] == 45


def test_a_changed_trace_is_refused(score: Path, tmp_path: Path) -> None:
    """Its hashes are proven before anything is copied."""
    other = seal(tmp_path / "b", "vllm/decode-1", 0.25)
    (other / "provenance.json").write_text("{}")
    with pytest.raises(MismatchError) as caught:
        pair(score, other, tmp_path / "out")
    assert caught.value.code == "artifact-changed"
