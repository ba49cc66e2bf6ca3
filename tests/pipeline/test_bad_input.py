"""Bad input: one clear sentence, the right exit code, nothing started, never a pass."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import known
from tests.pipeline.conftest import Probe, toy_run


def _write(path: Path, *rows: object) -> Path:
    text = "\n".join(r if isinstance(r, str) else json.dumps(r) for r in rows)
    path.write_text(text + "\n" if rows else "")
    return path


@pytest.mark.parametrize(
    ("rows", "code", "says"),
    [
        ([], 3, "holds no rows"),
        (["{"], 2, "in.jsonl, line 1"),
        ([{"prompt": "a"}, "nope"], 2, "in.jsonl, line 2"),
        ([{"text": "a"}], 2, "in.jsonl, line 1"),
        ([{"token_ids": [1, 99]}], 2, "token id 99 is outside the vocabulary of 64"),
        ([{"token_ids": [1] * 300}], 2, "the checkpoint allows 256"),
    ],
)
def test_bad_prompts(
    probe: Probe, bigram: Path, tmp_path: Path, rows: list, code: int, says: str
) -> None:
    """Empty, not JSON, no prompt in it, an id outside the vocabulary, too long."""
    file = _write(tmp_path / "in.jsonl", *rows)
    done = probe(*toy_run(bigram, "--prompts", file, "--out", "o"))
    assert done.code == code and says in done.err
    assert not (tmp_path / "o").exists(), "nothing was started, so nothing is left"


@pytest.mark.parametrize(
    ("rows", "code", "says"),
    [
        ([], 3, "holds no rows"),
        ([{"token_ids": [1, 2], "loss_mask": [1]}], 2, "line 1"),
        ([{"token_ids": [1, 2], "loss_mask": [0, 0]}], 3, "no token to score"),
        ([{"token_ids": [1, 64]}], 2, "token id 64"),
        ([{"token_ids": [1] * 257}], 2, "needs 257 positions"),
    ],
)
def test_bad_corpora(
    probe: Probe, bigram: Path, tmp_path: Path, rows: list, code: int, says: str
) -> None:
    """Refused before any engine starts, with file and row."""
    file = _write(tmp_path / "in.jsonl", *rows)
    done = probe(*toy_run(bigram, "--corpus", file, "--out", "o"))
    assert done.code == code and says in done.err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"--train": "tyo"}, "Did you mean 'toy'?"),
        ({"--train": "toy:nose=1"}, "Did you mean 'noise'?"),
        ({"--train": "toy:dtype=fp23"}, "Did you mean 'fp32'?"),
        ({"--train": "toy:noise=-1"}, "a number >= 0"),
        ({"--infer": "hf"}, "cannot be the infer side"),
        ({"--infer": "sglang:url=http://127.0.0.1:1", "--paths": "decode"}, "rollout and prefill"),
        ({"--paths": "decod"}, "Did you mean 'decode'?"),
        ({"--paths": "rollout"}, "has none"),
        ({"--floor": "btach"}, "batch|none"),
        ({"--train": "hf:python=/nowhere/python"}, "engines build hf"),
        ({"--train": "python:plugin=x,python=/nowhere/python"}, "\nName an interpreter"),
        ({"--model": "nowhere"}, "there is no such folder"),
        ({"--corpus": "nowhere.jsonl"}, "does not exist"),
        ({"--repeats": "0"}, "--help"),
        ({"--samples": "2"}, "--corpus gives them"),
        ({"--nonsense": "1"}, "--help"),
    ],
)
def test_bad_words(
    probe: Probe, bigram: Path, corpus: Path, tmp_path: Path, change: dict, says: str
) -> None:
    """Unknown engine, option, value, path, flag; no interpreter, no checkpoint: exit 2."""
    words = {
        "--model": bigram,
        "--train": "toy",
        "--infer": "toy",
        "--corpus": corpus,
        "--out": "o",
    }
    flat = [x for pair in {**words, **change}.items() for x in pair]
    done = probe("run", *flat)
    assert done.code == 2 and says in done.err, done.err
    assert not (tmp_path / "o").exists()


def test_errors_are_json_on_stdout_when_asked(probe: Probe, bigram: Path) -> None:
    """{"error": {code, message, hint}}: one document, the same exit code."""
    done = probe(*toy_run(bigram, "--corpus", "nowhere.jsonl", "--out", "o", "--json"))
    assert done.code == 2 and set(done.json["error"]) == {"code", "message", "hint"}


def test_an_output_folder_with_other_content_is_left_alone(
    probe: Probe, bigram: Path, corpus: Path, tmp_path: Path
) -> None:
    """Another file, or another command's run, is exit 2."""
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "x").write_text("mine")
    assert probe(*toy_run(bigram, "--corpus", corpus, "--out", "o")).code == 2
    assert probe(*toy_run(bigram, "--corpus", corpus, "--out", "p")).code == 0
    again = probe(*toy_run(bigram, "--corpus", corpus, "--limit", 3, "--out", "p"))
    assert again.code == 2 and "other ids or prompts" in again.err


def test_ids_survive_a_trainer_that_was_wrong(probe: Probe, bigram: Path, prompts: Path) -> None:
    """Another trainer needs another folder, and the error says how to draw nothing again there."""
    drawn = ["run", "--model", bigram, "--infer", "toy", "--max-tokens", 4, "--train"]
    assert probe(*drawn, "toy", "--prompts", prompts, "--out", "p").code == 0
    again = probe(*drawn, "toy:noise=0.1", "--prompts", prompts, "--out", "p")
    assert again.code == 2 and "train was toy, is toy:noise=0.1" in again.err
    ids = again.err.rpartition("--corpus ")[2].strip()
    words = ["run", "--model", bigram, "--infer", "toy", "--train", "toy:noise=0.1"]
    done = probe(*words, "--corpus", ids, "--paths", "rollout", "--out", "q", "--json")
    assert done.code == 0 and done.json["pairs"][0]["path"] == "rollout"


def test_the_module_of_the_command_line_is_the_program(bigram: Path) -> None:
    """`python -m mismatch.cli` refuses what the program refuses, and does not end in silence."""
    words = [sys.executable, "-m", "mismatch.cli", "run", "--model", str(bigram)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error: ")


def test_a_run_may_grow_by_captures(probe: Probe, bigram: Path, corpus: Path) -> None:
    """The same ends on the same ids with more repeats: what is there is kept, the rest is taken."""
    assert probe(*toy_run(bigram, "--corpus", corpus, "--out", "p")).code == 0
    again = probe(*toy_run(bigram, "--corpus", corpus, "--repeats", 2, "--out", "p"))
    assert again.code == 0 and "score-2 captured" in again.err
    assert "score-1 captured" not in again.err


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"token_ids": [1, 2], "loss_mask": [0, 1], "infer_logprobs": [0],
          "train_logprobs": [0, -1]}, "infer_logprobs"),
        ({"token_ids": [1, 2], "loss_mask": [0, 1], "infer_logprobs": [0, 0.5],
          "train_logprobs": [0, -1]}, "infer_logprobs[1] is 0.5"),
        ({"token_ids": [1, 2], "loss_mask": [0, 1]}, "infer_logprobs"),
    ],
)  # fmt: skip
def test_bad_dumps(probe: Probe, tmp_path: Path, row: dict, says: str) -> None:
    """Arrays of different length, an impossible value, a missing field: file, line and field."""
    file = _write(tmp_path / "dump.jsonl", row)
    done = probe("import", "--format", "jsonl", file, "--out", "o")
    assert done.code == 2 and says in done.err and "line 1" in done.err


def test_an_unknown_schema_names_the_known_ones(probe: Probe, tmp_path: Path) -> None:
    """A newer export is refused with what this release reads."""
    row = {"schema_version": 2, "token_ids": [1, 2], "loss_mask": [False, True],
           "inference_logprobs": [0, -1], "trainer_logprobs": [0, -1]}  # fmt: skip
    done = probe("import", "--format", "prime-rl", _write(tmp_path / "d.jsonl", row), "--out", "o")
    assert done.code == 2 and "schema_version 2" in done.err and "reads 1" in done.err


def test_an_import_needs_no_engine(probe: Probe, tmp_path: Path) -> None:
    """A dump goes to summary, report and gate with nothing but the core."""
    rows = [
        {
            "token_ids": ids,
            "loss_mask": [int(k > 0) for k in range(len(ids))],
            "infer_logprobs": [-1.0 - 0.2 * (k % 7) for k in range(len(ids))],
            "train_logprobs": [-1.0 - 0.2 * (k % 7) - 0.01 * (k % 3) for k in range(len(ids))],
        }
        for ids in known.sequences(12, 20)
    ]
    file = _write(tmp_path / "dump.jsonl", *rows)
    done = probe("import", "--format", "jsonl", file, "--out", "o")
    assert done.code == 0, done.err
    (pair,) = probe("compare", "o", "--json").json["pairs"]
    assert pair["sampled_by"] == "unknown" and pair["floor"] is None and pair["excess"] is None
    assert probe("gate", "o", "--max", "k3=0.1").code == 0
    assert probe("gate", "o", "--max", "excess.k3=0.1").code == 4
    assert probe("report", "o").code == 0


def test_an_unknown_metric_or_pair_suggests_the_right_one(
    probe: Probe, bigram: Path, corpus: Path
) -> None:
    """Did-you-mean for keys and pair ids; a rule that is none; no rule at all."""
    probe(*toy_run(bigram, "--corpus", corpus, "--out", "o"))
    for words, says in (
        (["--max", "k33=1"], "Did you mean 'k3'?"),
        (["--max", "k3"], "is not a rule"),
        (["--max", "k3=nan"], "nan"),
        (["--max", "k3=1", "--pair", "toy-noise_0.05~toy.decod"], "toy-noise_0.05~toy.decode"),
        ([], "--max"),
    ):
        done = probe("gate", "o", *words)
        assert done.code == 2 and says in done.err, (words, done.err)


def test_engines_are_listed_with_what_to_do(probe: Probe, tmp_path: Path) -> None:
    """Each engine with version and interpreter, or the reason and the command that mends it."""
    done = probe("engines", "--json", env={"MISMATCH_CACHE": str(tmp_path / "empty")})
    rows = {row["engine"]: row for row in done.json["engines"]}
    assert rows["toy"]["ok"] and rows["toy"]["versions"]["numpy"]
    assert not rows["vllm"]["ok"]
    assert rows["vllm"]["todo"] == "mismatch-probe engines build vllm"
