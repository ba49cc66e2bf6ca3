"""Ask a checkpoint's own tokenizer and chat template, in an interpreter that has transformers.

No weight is loaded. Each question and answer: see mismatch.engines.hf.roundtrip.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mismatch import store, wire
from mismatch.capture import environment, launch
from mismatch.engines import find
from mismatch.errors import MismatchError
from mismatch.model import Condition

TIMEOUT_S = 1800
#: The engine in whose environment a tokenizer is loaded.
ENGINE = "hf"


@dataclass(frozen=True, slots=True)
class Tokenizer:
    """A checkpoint's tokenizer. template: the text of a chat template; None = the checkpoint's."""

    checkpoint: Path
    template: str | None
    trust_remote_code: bool = False

    def ask(self, questions: Sequence[dict[str, Any]]) -> tuple[list[Any], dict[str, Any]]:
        """Answers in the order of the questions, and facts of the tokenizer.

        Raises `no-tokenizer`, `no-chat-template` or `template-failed` with the guest's reason.
        """
        python, _ = environment.interpreter(find(ENGINE), Condition(ENGINE, {}))
        with tempfile.TemporaryDirectory(prefix="mismatch-") as place:
            folder = Path(place)
            asked = {
                "model": str(self.checkpoint.absolute()),
                "trust_remote_code": self.trust_remote_code,
                "chat_template": self.template,
                "questions": list(questions),
            }
            wire.write_json(folder / "ask.json", asked)
            said = _run(folder, python)
            if (folder / "answer.json").is_file():
                answer = store.read_json(folder / "answer.json")
                return answer["answers"], answer["about"]
            raise _failure(folder, self.checkpoint, said)


def _run(folder: Path, python: Path) -> str:
    """The last line of what the guest said outside of its files."""
    guest = launch.stage_guest(folder, ENGINE)
    try:
        done = subprocess.run(
            [str(python), "-P", "-m", f"mismatch.engines.{ENGINE}.roundtrip", str(folder)],
            env=launch.guest_environment(guest, {}),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"no answer within {TIMEOUT_S} s"
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


#: Where the guest stopped -> the error that says it.
CODES = {"load": "no-tokenizer", "template": "no-chat-template", "encode": "template-failed"}


def _failure(folder: Path, checkpoint: Path, said: str) -> MismatchError:
    error = {"boundary": "load", "message": said}
    if (folder / "error.json").is_file():
        error = store.read_json(folder / "error.json")
    reason = " ".join(str(error["message"]).split())[:400]
    return MismatchError(CODES[error["boundary"]], folder=checkpoint, reason=reason)
