"""Which environment serves which engine."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mismatch.capture import environment
from mismatch.engines import ENGINES, parse_condition
from mismatch.engines.base import Machine
from mismatch.engines.hf.engine import refuse
from mismatch.errors import MismatchError


def test_hf_and_vllm_share_one_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Equal requirements, once followed through -r, give the same folder in the cache."""
    monkeypatch.setenv("MISMATCH_CACHE", str(tmp_path))
    hf, vllm, toy = (environment.environment_dir(ENGINES[n]) for n in ("hf", "vllm", "toy"))
    assert hf == vllm != toy
    assert hf is not None and hf.is_relative_to(tmp_path)


def test_packages_built_for_cuda_are_overridden() -> None:
    """torchvision and its like are marked as never installed; without it `import vllm` dies."""
    for name in ("hf", "vllm"):
        requirements = ENGINES[name].requirements
        assert requirements is not None
        lines = environment._overrides(requirements)
        assert any(line.startswith("torchvision ;") and "never" in line for line in lines)


def test_the_named_interpreter_is_the_only_candidate() -> None:
    """What the user names is not second-guessed; else current comes before built."""
    named = list(environment.candidates(ENGINES["hf"], "/opt/x/bin/python"))
    assert [source for source, _ in named] == ["named"]
    assert next(environment.candidates(ENGINES["hf"], None))[0] == "current"


@pytest.mark.parametrize(
    ("spec", "gpus", "refused"),
    [
        ("hf:attention=flash_attention_2", 0, True),
        ("hf:attention=flash_attention_2", 1, False),
        ("hf:device=cuda", 0, True),
        ("hf:padding=left", 0, True),
        ("hf:padding=left,batch=4", 0, False),
        ("hf:dtype=bf16", 0, False),
    ],
)
def test_hf_refuses_what_cannot_run_here(spec: str, gpus: int, refused: bool) -> None:
    """A GPU kernel without a GPU, and padding without a batch, are refused with a reason."""
    assert bool(refuse(parse_condition(spec), Machine(gpus=gpus))) is refused


def test_a_plugin_is_looked_for_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that no entry point has, or two have, is an error that says which names there are;
    one that is there, and a file in its place, are none."""
    answers = {"-c": '["mine", "twice", "twice"]'}

    def child(python: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
        assert arguments[2] == "mismatch.trainers"
        return subprocess.CompletedProcess(arguments, 0, answers["-c"], "")

    monkeypatch.setattr(environment, "_child", child)
    monkeypatch.setattr(environment, "probe", lambda *_: environment.Probe(True, "", {"x": "1"}))

    def asked(spec: str) -> dict[str, str]:
        return environment.interpreter(ENGINES["python"], parse_condition(spec))[1]

    assert asked("python:plugin=mine") == {"x": "1"} == asked("python:file=a.py,object=A")
    for name, says in {"mien": "no entry point mien", "twice": "more than one entry point"}.items():
        with pytest.raises(MismatchError, match=says) as caught:
            asked(f"python:plugin={name}")
        assert "there are mine, twice" in caught.value.message
        assert "Name an interpreter that has it" in caught.value.hint
        assert "has been built" not in caught.value.message  # nothing can be built for it
    answers["-c"] = ""
    with pytest.raises(MismatchError, match="does not tell"):
        asked("python:plugin=mine")
