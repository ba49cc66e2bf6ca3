"""What the README and the documents tell a reader to type is what the program takes."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import typer.main

from mismatch.cli import app
from mismatch.corpus.recorded import READERS
from mismatch.engines import parse_condition
from mismatch.study_file import AttributionTable, StudyFile

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
STUDIES = (ROOT / "docs/studies.md").read_text(encoding="utf-8")
TRAINER = (ROOT / "docs/your-trainer.md").read_text(encoding="utf-8")


def _commands() -> list[list[str]]:
    """Every `mismatch-probe ...` line of their indented blocks, continuations joined."""
    documents = [README, *(p.read_text(encoding="utf-8") for p in sorted(ROOT.glob("docs/*.md")))]
    text = "\n".join(documents).replace("\\\n", " ")
    lines = re.findall(r"^    mismatch-probe (.+)$", text, re.MULTILINE)
    return [line.split("#")[0].split() for line in dict.fromkeys(lines)]


@pytest.mark.parametrize("words", _commands(), ids=" ".join)
def test_every_command_and_flag_exists(words: list[str]) -> None:
    """A verb or a flag that the program does not know would be a lie."""
    command = typer.main.get_command(app).commands[words[0]]  # type: ignore[attr-defined]
    known = {flag for parameter in command.params for flag in parameter.opts}
    assert {w for w in words if w.startswith("--")} <= known


def test_the_first_two_command_lines_are_demo_and_test() -> None:
    """Two commands to a first result."""
    block = re.findall(r"^    (.+)$", README, re.MULTILINE)
    assert [line.split("#")[0].strip() for line in block[:2]] == ["make demo", "make test"]


@pytest.mark.parametrize("key", [*StudyFile.model_fields, *AttributionTable.model_fields])
def test_every_key_of_a_study_is_named(key: str) -> None:
    """A key that the section on studies leaves out would be found in the code alone."""
    assert re.search(rf"(`|^|\[|# or ){key}\b", STUDIES, re.MULTILINE)


@pytest.mark.parametrize(
    ("spec", "word"),
    [("toy:batch=4", "batch4"), ("vllm:eager=false", "no_eager"),
     ("toy:temperature=0.6", "temperature_0.6"), ("toy:batch=all", "batch_all")],
)  # fmt: skip
def test_ids_are_made_as_the_readme_says(spec: str, word: str) -> None:
    """A reader guesses an id from these."""
    assert parse_condition(spec).id.endswith(f"-{word}") and f"`{word}`" in STUDIES


def _trainer_values() -> dict[str, np.ndarray]:
    """Two left-padded prompts of 2 and 3 tokens, responses of 3 and 2, in the trainers' shapes."""
    mask = np.array([[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 0]])
    logprobs = -np.arange(1.0, 7.0).reshape(2, 3)
    return {
        "ids": np.arange(12).reshape(2, 6),
        "mask": mask,
        "response_mask": mask[:, 3:],
        "infer": logprobs,
        "train": logprobs - 0.5,
    }


def _scope(name: str, step: int) -> dict[str, object]:
    v = _trainer_values()
    if name == "verl":
        batch = {
            "input_ids": v["ids"], "attention_mask": v["mask"],
            "response_mask": v["response_mask"], "rollout_log_probs": v["infer"],
            "old_log_probs": v["train"],
        }  # fmt: skip
        return {"data": SimpleNamespace(batch=batch), "step": step}
    inputs = {
        "prompt_ids": v["ids"][:, :3], "completion_ids": v["ids"][:, 3:],
        "prompt_mask": v["mask"][:, :3], "completion_mask": v["mask"][:, 3:],
        "sampling_per_token_logps": v["infer"], "old_per_token_logps": v["train"],
    }  # fmt: skip
    torch = SimpleNamespace(cat=lambda parts, dim: np.concatenate(parts, axis=dim))
    this = SimpleNamespace(state=SimpleNamespace(global_step=step))
    return {"inputs": inputs, "torch": torch, "self": this}


@pytest.mark.parametrize("name", ["verl", "TRL"])
def test_the_recorder_snippets_write_what_import_reads(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ten lines for each trainer run as printed, and d comes back with its sign."""
    monkeypatch.chdir(tmp_path)
    snippet = re.findall(rf"\*\*{name}\*\*.*?```python\n(.*?)```", TRAINER, re.DOTALL)[0]
    exec(snippet, _scope(name, step=4))
    dump = READERS["jsonl"]([tmp_path / "mismatch-4.jsonl"])
    assert [len(ids) for ids in dump.corpus.token_ids] == [5, 5]
    assert dump.corpus.scored_tokens == 5
    for infer, train, scored in zip(dump.infer, dump.train, dump.corpus.scored, strict=True):
        assert np.allclose((train - infer)[scored], -0.5)
