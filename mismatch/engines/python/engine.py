"""python: the user's own code as the trainer's side, from a file or from an installed plug-in.

The host reads the file to tell one state of it from another, and never runs it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mismatch import store
from mismatch.engines.base import Engine, Machine
from mismatch.engines.python.source import GROUP
from mismatch.model import Condition, Option

NAME = r"[A-Za-z_][A-Za-z0-9_]*"


def refuse(condition: Condition, machine: Machine) -> str | None:
    """A file and an object in it, or a plug-in; what is wrong inside them shows in the guest."""
    options = condition.options
    if "plugin" in options:
        beside = [name for name in ("file", "object") if name in options]
        return f"plugin names the code, and {beside[0]} does too" if beside else None
    if "file" not in options:
        return "it names no code: give file=F.py,object=NAME or plugin=NAME"
    if "object" not in options:
        return "file needs the name of an object in it, for example object=Scorer"
    file = Path(str(options["file"]))
    if not file.is_file():
        return f"there is no file {file}"
    if file.suffix != ".py":
        return f"{file} is not a Python file (*.py)"
    return _misspelt(file, str(options["object"]))


def _misspelt(file: Path, name: str) -> str | None:
    """A name that is nowhere in the file, as it would be missed only after a whole rollout.

    Text alone is looked at: the guest's Python may be another one than ours.
    """
    text = file.read_text(encoding="utf-8", errors="replace")
    if re.search(rf"\b{name}\b|\bimport \*", text):
        return None
    own = re.findall(r"^(?:class|def) +(\w+)", text, re.MULTILINE)
    return f"{file.name} has no {name}" + (f": it has {', '.join(own)}" if own else "")


def changed(condition: Condition, code: Mapping[str, Any]) -> str | None:
    """code: the fact of that name. Which of the files that a capture ran is another one by now. (Of
    a plug-in the guest alone knows where it lies.)
    """
    if "file" not in condition.options:
        return None
    folder = Path(str(condition.options["file"])).parent
    for name, then in (code.get("files") or {}).items():
        file = folder / name
        if not file.is_file():
            return f"{name} is not there any more"
        now = store.sha256(file)
        if now != then:
            return f"{name} has changed (sha256 {then[:12]}, now {now[:12]})"
    return None


ENGINE = Engine(
    name="python",
    summary="your own code as the trainer's side (a file, or a plug-in)",
    paths=frozenset({"score"}),
    options={
        "file": Option("path", "a Python file; a relative path starts where you stand (in a "
                       "study: at the study file)"),
        "object": Option("str", "the class in it: OBJECT(model_path, options).score(sequences)",
                         pattern=NAME, takes_text="the name of a class or function in the file"),
        "plugin": Option("str", f"an installed plug-in: an entry point of the group {GROUP}",
                         pattern=r"[A-Za-z0-9_.-]+",
                         takes_text="the name of an entry point"),
        "batch": Option("batch", "sequences in one call of score (default 1)", minimum=1,
                        scope="request"),
    },
    arguments="arg.NAME=VALUE goes to your object, in its options",
    imports="numpy",
    distributions=("numpy", "torch", "transformers"),
    requirements=None,
    batch=1,
    plugins=GROUP,
    refuse=refuse,
    changed=changed,
)  # fmt: skip
