"""The installed program as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests import known


@dataclass(frozen=True)
class Result:
    """One finished command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Probe = Callable[..., Result]


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    """Run `mismatch-probe ARGS...` in an empty folder; no traceback may ever reach the user."""

    def run(*words: object, env: dict[str, str] | None = None, timeout: float = 600) -> Result:
        done = subprocess.run(
            [str(Path(sys.executable).with_name("mismatch-probe")), *map(str, words)],
            cwd=tmp_path,
            env={**os.environ, "COLUMNS": "160", **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert "Traceback" not in done.stderr, done.stderr
        assert done.returncode != 70, done.stderr
        return Result(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """Twelve prompts as ids, for the known-answer checkpoints."""
    path = tmp_path / "prompts.jsonl"
    rows = [json.dumps({"token_ids": ids}) for ids in known.sequences(12, 6)]
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """Twelve sequences of ids with a mask."""
    path = tmp_path / "corpus.jsonl"
    rows = [
        json.dumps({"token_ids": ids, "loss_mask": [0] * 5 + [1] * (len(ids) - 5)})
        for ids in known.sequences(12, 20)
    ]
    path.write_text("\n".join(rows) + "\n")
    return path


def toy_run(model: Path, *more: object) -> list[object]:
    """A run of toy against toy with noise on one side: quick, and with a gap."""
    drawn = [] if "--corpus" in more else ["--max-tokens", 12]
    return [
        "run", "--model", model, "--train", "toy:noise=0.05", "--infer", "toy", *drawn, *more,
    ]  # fmt: skip
