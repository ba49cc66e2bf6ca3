"""The user's own code in real environments: the installed example package, and TRL's function."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mismatch import api, store
from mismatch.compare.align import Tokens, read_tokens
from tests import known
from tests.contract.conftest import ROOT, built_python, environment_on, install

pytestmark = pytest.mark.real

#: float32 in the scorer, float64 in the closed form.
TOLERANCE_NATS = 5e-4


def _corpus(folder: Path) -> Path:
    rows = [str({"token_ids": ids}).replace("'", '"') for ids in known.sequences(6, 20)]
    (folder / "corpus.jsonl").write_text("\n".join(rows) + "\n")
    return folder / "corpus.jsonl"


def _run(model: Path, train: str, out: Path) -> dict[str, Any]:
    return api.run(
        model=model, train=train, infer="toy", corpus=_corpus(out.parent), paths=["prefill"],
        out=out,
    )  # fmt: skip


def _trace(out: Path, name: str = "score-1") -> Path:
    (folder,) = out.glob(f"traces/python-*/{name}")
    return folder


def _check_known(trace: Tokens, model: Path) -> None:
    for number, ids in enumerate(known.sequences(6, 20)):
        got = trace.logprob[trace.sequence == number][1:]
        truth = known.expected(model, ids)[1:]
        np.testing.assert_allclose(got, truth, atol=TOLERANCE_NATS, rtol=0)


def test_an_installed_plugin_tells_where_it_came_from(
    attention: Path, tmp_path: Path, plugin_python: Path
) -> None:
    """Distribution, version, entry point and the digest of each of its files are provenance; torch
    is seen, and transformers, which it does without, was not imported."""
    _run(attention, f"python:plugin=plain-llama,python={plugin_python}", tmp_path / "o")
    facts = store.read_provenance(_trace(tmp_path / "o"))["facts"]
    code = facts["code"]
    assert (code["distribution"], code["version"]) == ("known-trainer", "1.2.3")
    assert code["entry_point"] == "known_trainer.scorer:Scorer"
    files = ROOT / "tests" / "plugins" / "known_trainer"
    assert len(code["files"]) == 3
    assert code["files"] == {name: store.sha256(files / name) for name in code["files"]}
    assert facts["imported"]["torch"] == facts["versions"]["torch"]
    assert "transformers" not in facts["imported"] and facts["torch"]["threads"] > 0


def test_the_example_scores_a_trained_checkpoint(tmp_path: Path, plugin_python: Path) -> None:
    """Trained weights, stored in bfloat16, score as a program in float64 scores them."""
    spec = f"python:plugin=plain-llama,python={plugin_python}"
    (pair,) = _run(known.SHIPPED, spec, tmp_path / "o")["pairs"]
    assert pair["tokens"] > 100
    assert pair["metrics"]["abs_logprob_diff_max"]["value"] < TOLERANCE_NATS


#: What trl 1.16 imports beside torch, transformers and accelerate.
TRL = ("trl==1.16.*", "datasets", "pandas", "pyarrow", "python-dateutil", "six", "dill",
       "multiprocess", "xxhash")  # fmt: skip


@pytest.mark.slow
def test_trl_scores_with_its_own_function(attention: Path, tmp_path: Path) -> None:
    """GRPOTrainer's own log-probabilities, from the real library, are the known ones, in batches of
    one and padded among others; at another temperature the two sides are told to differ in it."""
    python = environment_on(tmp_path / "env")
    install(python, *TRL)
    file = ROOT / "examples" / "trl_scorer.py"
    own = f"python:file={file},object=Scorer,python={python}"
    _run(attention, own, tmp_path / "o")
    for name in ("score-1", "score-batch"):
        _check_known(read_tokens(_trace(tmp_path / "o", name)), attention)
    facts = store.read_provenance(_trace(tmp_path / "o", "score-batch"))["facts"]
    assert facts["imported"]["trl"].startswith("1.16.") and facts["sequences_per_call"] == [6]
    hot = _run(attention, f"{own},arg.temperature=0.5", tmp_path / "hot")["pairs"][0]
    failed = [row["evidence"] for row in hot["preflight"] if row["verdict"] == "fail"]
    assert any("temperature 0.5 against 1" in evidence for evidence in failed)
    assert built_python() != python
