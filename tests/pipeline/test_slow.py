"""The slow rest: real engines killed and resumed, precision, a full disk."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mismatch import api, store
from tests import known
from tests.pipeline.conftest import Probe, toy_run

pytestmark = [pytest.mark.slow]

PROMPTS = known.SHIPPED.parent / "demo-prompts.jsonl"


def _words(out: Path) -> list[str]:
    return [
        "run", "--model", str(known.SHIPPED), "--train", "hf:dtype=bf16,attention=sdpa",
        "--infer", "vllm:dtype=bf16,eager=true", "--prompts", str(PROMPTS), "--limit", "8",
        "--max-tokens", "32", "--out", str(out),
    ]  # fmt: skip


@pytest.mark.real
def test_a_killed_vllm_resumes_to_the_same_bytes(tmp_path: Path, probe: Probe) -> None:
    """SIGKILL of the real engine between captures: siblings go on, a rerun mends, equal bytes."""
    out = tmp_path / "killed"
    program = str(Path(sys.executable).with_name("mismatch-probe"))
    process = subprocess.Popen([program, *_words(out)], stderr=subprocess.DEVNULL)
    events = out / ".work" / "infer-vllm-bf16-eager" / "events.jsonl"
    killed = False
    while process.poll() is None and not killed:
        if events.is_file() and 'decode-1"' in events.read_text():
            pids = subprocess.run(
                ["pgrep", "-f", f"mismatch.engines.guest {out}"],  # this run's, and no other's
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
            for pid in pids:
                os.kill(int(pid), signal.SIGKILL)
            killed = True
        time.sleep(0.02)
    assert killed and process.wait(timeout=600) in (0, 7)
    assert probe(*_words(out)).code == 0
    assert probe(*_words(tmp_path / "clean")).code == 0
    for name in ("summary.json", "report.html"):
        assert (out / name).read_bytes() == (tmp_path / "clean" / name).read_bytes()


@pytest.mark.real
def test_fp16_shrinks_the_gap(tmp_path: Path) -> None:
    """Three more mantissa bits on both sides: the mean gap falls several times (8 in theory)."""
    gaps = {}
    for dtype in ("bf16", "fp16"):
        summary = api.run(
            model=known.SHIPPED, train=f"hf:dtype={dtype}", infer=f"vllm:dtype={dtype},eager=true",
            prompts=PROMPTS, limit=12, max_tokens=96, floor="none", paths=["rollout"],
            out=tmp_path / dtype,
        )  # fmt: skip
        gaps[dtype] = summary["pairs"][0]["metrics"]["abs_logprob_diff_mean"]
    assert gaps["bf16"]["low"] > 3 * gaps["fp16"]["high"]


@pytest.mark.real
def test_padding_is_observed_where_it_happened(tmp_path: Path) -> None:
    """hf in left-padded batches: the observed padding confirms the condition."""
    summary = api.run(
        model=known.SHIPPED, train="hf:dtype=bf16,batch=4,padding=left", infer="toy",
        corpus=_corpus(tmp_path), paths=["prefill"], floor="none", out=tmp_path / "o",
    )  # fmt: skip
    assert summary["pairs"][0]["tokens"] and not api.failures(tmp_path / "o")
    facts = store.read_json(
        tmp_path / "o/traces/hf-bf16-batch4-padding_left/score-1/provenance.json"
    )["facts"]
    assert facts["observed"]["padding"] == "left" and facts["rows_per_forward"] == [4]


def _corpus(folder: Path) -> Path:
    path = folder / "corpus.jsonl"
    rows = [f'{{"token_ids": {ids}}}' for ids in known.sequences(12, 20)]
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_disk_that_fills_up_is_one_sentence_and_a_resume(
    attention: Path, tmp_path: Path, probe: Probe
) -> None:
    """When no more can be written the run says so, leaves no half trace, and resumes later."""
    out = tmp_path / "o"
    words = [str(w) for w in toy_run(attention, "--corpus", _corpus(tmp_path), "--out", out)]
    program = str(Path(sys.executable).with_name("mismatch-probe"))
    # A limit on the size of any file stands in for a full disk: writes fail the same way.
    limited = f"ulimit -f 2; exec {shlex.join([program, *words])}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, check=False)
    assert done.returncode in (2, 6, 7) and "Traceback" not in done.stderr, done.stderr
    assert "too large" in done.stderr or "No space" in done.stderr
    assert all((f / "MANIFEST.json").is_file() for f in out.glob("traces/*/*"))
    assert probe(*words).code == 0
