"""What must hold whatever was fed in: no traceback, and no change outside the output folder."""

from __future__ import annotations

import hashlib
import os
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hypothesis import settings

from mismatch.errors import MismatchError

#: Kind of input -> how many were tried; conftest.py prints them at the end of the run.
TRIED: Counter[str] = Counter()


def inputs(quick: int, share: float = 1.0) -> settings:
    """How many inputs a test tries: `quick` of them, always the same ones; under the profile
    `fuzz` (make fuzz) `share` of its number, drawn anew each time.
    """
    if settings.get_current_profile_name() == "fuzz":
        return settings(max_examples=int(settings().max_examples * share))
    return settings(max_examples=quick, derandomize=True, database=None)


def outcome(verb: Callable[..., Any], *given: Any, **named: Any) -> Any:
    """What a verb gives back, or its MismatchError; any other exception goes through."""
    try:
        return verb(*given, **named)
    except MismatchError as error:
        return error


def controls(screen: str) -> list[str]:
    """Characters that a terminal obeys in place of showing them: codes, bidi marks, separators."""
    obeyed = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    return [c for c in screen if c != "\n" and unicodedata.category(c) in obeyed]


@contextmanager
def place() -> Iterator[Path]:
    """A folder for one input: `outside/` holds what nobody may touch, `here/` is where we stand."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for sub in ("outside/kept", "outside/.work/kept", "outside/failed/kept/decode-1", "here"):
            (root / sub).mkdir(parents=True)
        for file in ("kept/file", "failed/kept/decode-1/error.json", ".work/kept/file"):
            (root / "outside" / file).write_text("{}")
        os.chdir(root / "here")
        try:
            yield root
        finally:
            os.chdir(before)


@contextmanager
def untouched(root: Path, *but: str) -> Iterator[None]:
    """Everything beneath `root` stays as it is, except what lies in the named entries of it."""
    before = _seen(root, but)
    yield
    after = _seen(root, but)
    assert after == before, sorted(before.items() ^ after.items())


def _seen(root: Path, but: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for folder, folders, files in os.walk(root):
        at = Path(folder)
        if at == root:
            folders[:] = [f for f in folders if f not in but]
            files = [f for f in files if f not in but]
        for name in folders + files:
            found[str((at / name).relative_to(root))] = _what(at / name)
    return found


def _what(path: Path) -> str:
    if path.is_symlink():
        return f"link to {path.readlink()}"
    return "folder" if path.is_dir() else hashlib.sha256(path.read_bytes()).hexdigest()
