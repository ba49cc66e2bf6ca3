"""Claim an output folder for one request: new, or the same request again (resume)."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mismatch import store
from mismatch.errors import MismatchError
from mismatch.model import AttributionSpec, PairSpec


@contextmanager
def claimed(
    root: Path,
    request: Mapping[str, Any],
    pairs: Sequence[PairSpec],
    attributions: Sequence[AttributionSpec] = (),
) -> Iterator[Path]:
    """Hold `root` for this request; writes run.json on first use.

    An absent or empty folder is taken; one that holds the same request is resumed; anything else
    is `out-not-ours`, or `in-use` while another process holds it.
    """
    root = root.absolute()  # guests stand in another folder
    plan = {"schema": store.SCHEMA, "request": dict(request), "pairs": [asdict(p) for p in pairs]}
    if attributions:
        plan["attributions"] = [asdict(a) for a in attributions]
    _refuse_others(root, plan)  # before anything is made in it
    try:
        root.mkdir(parents=True, exist_ok=True)
        with held(root):
            _refuse_others(root, plan)  # another process may have claimed it meanwhile
            (root / ".work").mkdir(exist_ok=True)
            if not (root / "run.json").is_file():
                _forget(root)  # whose parts these are nobody can say any more
                store.write_text(root / "run.json", store.dump_json(plan))
            _sweep(root)
            yield root
            _finish(root)
    except OSError as reason:
        raise store.writing_failed(Path(reason.filename or root), reason) from None


@contextmanager
def held(root: Path) -> Iterator[None]:
    """Alone in a folder that exists, or `in-use`. The folder itself is locked: a lock file
    would have to be removed some day, and whoever waits for it would then hold nothing.
    """
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise MismatchError("in-use", folder=root) from None
        yield
    finally:
        os.close(folder)


def _refuse_others(root: Path, plan: Mapping[str, Any]) -> None:
    if root.exists() and not root.is_dir():
        raise MismatchError("out-not-ours", folder=root, reason="it is a file")
    present = {p.name for p in root.iterdir()} - {".work"} if root.is_dir() else set()
    if not present:
        return
    if "run.json" not in present:
        raise MismatchError("out-not-ours", folder=root, reason=f"it has {sorted(present)[0]}")
    found = store.read_json(root / "run.json")
    # Through JSON, as tuples become lists.
    if found != store.parse_json(store.dump_json(plan)):
        differ = _difference(found, plan)
        raise MismatchError("out-not-ours", folder=root, reason=f"another command: {differ}")


def _difference(found: Any, plan: Mapping[str, Any]) -> str:
    """The first thing in which the two requests differ, for the error."""
    old = found.get("request", {}) if isinstance(found, dict) else {}
    for key, new in plan["request"].items():
        if old.get(key) != new and key in ("ids", "values", "model"):
            what = {"ids": "ids or prompts", "values": "log-probabilities"}.get(key, "checkpoint")
            return f"the contents differ: other {what}"
        if old.get(key) != new:
            return f"{key} was {old.get(key)}, is {new}"
    return "another plan"


def _forget(root: Path) -> None:
    """Unfinished work of a request that is gone must never be sealed as this one's."""
    for left in (root / ".work").iterdir():
        if left.is_dir():
            shutil.rmtree(left)


def _sweep(root: Path) -> None:
    """Remove what a killed run left half-sealed."""
    for half in root.rglob(".seal-*"):
        shutil.rmtree(half, ignore_errors=True)


def _finish(root: Path) -> None:
    """Drop the work folder once nothing in it is waiting for a resume."""
    if not any((root / ".work").iterdir()):
        (root / ".work").rmdir()
