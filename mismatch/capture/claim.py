"""Claim an output folder for one request: new, the same request again (resume), or one that has
grown by captures, pairs or attributions.
"""

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
from mismatch.shapes import Run

#: The folders that a run lays in its output folder.
OURS = (".work", "attributions", "comparisons", "corpus", "failed", "traces")


@contextmanager
def claimed(
    root: Path,
    request: Mapping[str, Any],
    pairs: Sequence[PairSpec],
    attributions: Sequence[AttributionSpec] = (),
) -> Iterator[Path]:
    """Hold `root` for this request; writes run.json on first use.

    An absent or empty folder is taken; one that holds the same request, or one of the same ids and
    checkpoints whose conditions this one keeps, is resumed; so is one in which a run captured
    nothing, whatever it was asked. Anything else is `out-not-ours`, or `in-use` while another
    process holds it.
    """
    root = root.absolute()  # guests stand in another folder
    plan = _plan(request, pairs, attributions)
    _refuse_others(root, plan)  # before anything is made in it
    try:
        root.mkdir(parents=True, exist_ok=True)
        with held(root):
            for name in OURS:
                store.inside(root, name)  # no link leads what we write or remove elsewhere
            _refuse_others(root, plan)  # another process may have claimed it meanwhile
            (root / ".work").mkdir(exist_ok=True)
            note, text = root / "run.json", store.dump_json(plan)
            if not note.is_file() or note.read_text(encoding="utf-8") != text:
                _forget(root)  # whose parts these are nobody can say any more
                store.write_text(note, text)
            _sweep(root)
            yield root
            _finish(root)
    except OSError as reason:
        raise store.writing_failed(Path(reason.filename or root), reason) from None


def check(
    root: Path,
    request: Mapping[str, Any],
    pairs: Sequence[PairSpec],
    attributions: Sequence[AttributionSpec] = (),
) -> None:
    """`out-not-ours` where `claimed` would say so; nothing is written."""
    _refuse_others(root, _plan(request, pairs, attributions))


def _plan(
    request: Mapping[str, Any],
    pairs: Sequence[PairSpec],
    attributions: Sequence[AttributionSpec],
) -> dict[str, Any]:
    plan = {"schema": store.SCHEMA, "request": dict(request), "pairs": [asdict(p) for p in pairs]}
    if attributions:
        plan["attributions"] = [asdict(a) for a in attributions]
    return plan


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
    found = store.read_json(root / "run.json", Run)
    if _is_bare(root, found):
        return
    # Through JSON, as tuples become lists.
    differ = _difference(found, store.parse_json(store.dump_json(plan)))
    differ = differ or _other_condition(root, plan["request"].get("conditions", {}))
    if differ:
        raise MismatchError(
            "out-not-ours",
            folder=root,
            reason=f"another command: {differ}",
            hint_extra=_ids_to_keep(root, found, plan["request"]),
        )


def _is_bare(root: Path, found: Any) -> bool:
    """A run captured nothing, not even one call: its command was mended, and nothing can mix."""
    old = found.get("request", {}) if isinstance(found, dict) else {}
    taken = ("traces/*/*", "corpus/*", ".work/*/parts/*/*")
    return old.get("verb") in GROWS and not any(any(root.glob(where)) for where in taken)


def _ids_to_keep(root: Path, found: Any, new: Mapping[str, Any]) -> str:
    """Where the trainer alone is another, what was drawn still serves: it took the longest."""
    old = found.get("request", {}) if isinstance(found, dict) else {}
    drawn = [file.parent for file in root.glob("corpus/*/MANIFEST.json")]
    if len(drawn) != 1 or "train" not in old or {**new, "train": old["train"]} != old:
        return ""
    return f" Its ids can be replayed by another trainer: --corpus {drawn[0]}"


#: What may change from one command to the next: it says what is captured of a condition, or which
#: are, and a capture is the same whoever asked for it.
MAY_GROW = ("conditions", "paths", "repeats", "floor")
#: The commands that take captures; the others lay down what they were given.
GROWS = ("run", "study")


def _difference(found: Any, plan: Mapping[str, Any]) -> str | None:
    """The first thing in which the two requests differ and must not, for the error."""
    old = found.get("request", {}) if isinstance(found, dict) else {}
    new = plan["request"]
    for key in [*new, *(k for k in old if k not in new)]:
        if old.get(key) == new.get(key) or (key in MAY_GROW and key in old and key in new):
            continue
        if key in ("ids", "values", "model"):
            what = {"ids": "ids or prompts", "values": "log-probabilities"}.get(key, "checkpoint")
            return f"the contents differ: other {what}"
        return f"{key} was {old.get(key)}, is {new.get(key)}"
    return None if found == plan or new.get("verb") in GROWS else "another plan"


def _other_condition(root: Path, conditions: Mapping[str, str]) -> str | None:
    """A condition's id names its captures: one that was taken of another condition is not its own.

    conditions: id -> canonical text.
    """
    for name, spec in conditions.items():
        for trace in sorted((root / "traces" / name).glob("*/provenance.json")):
            taken = store.read_provenance(trace.parent)["condition"]
            if taken not in (spec, "recorded"):
                return f"{name} was {taken}, is {spec}; give it another id"
    return None


def _forget(root: Path) -> None:
    """Unfinished work of a request that is gone must never be sealed as this one's; nor is its
    failure this one's, where it left nothing else."""
    failed = () if any(root.glob("traces/*/*")) else root.glob("failed/*")
    for left in (*(root / ".work").iterdir(), *failed):
        if left.is_dir():
            store.discard(left)


def _sweep(root: Path) -> None:
    """Remove what a killed run left half-sealed."""
    for half in root.rglob(".seal-*"):
        shutil.rmtree(half, ignore_errors=True)


def _finish(root: Path) -> None:
    """Drop the work folder once nothing in it is waiting for a resume."""
    if not any((root / ".work").iterdir()):
        (root / ".work").rmdir()
