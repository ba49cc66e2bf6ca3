"""The user's object, and which files it is made of. Runs in the guest, never in the host."""

from __future__ import annotations

import hashlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

GROUP = "mismatch.trainers"
#: The module that a user's file becomes; its own name could hide a library's.
MODULE = "mismatch_users_trainer"


class PluginError(Exception):
    """What is wrong with the user's code, in one sentence."""


@dataclass
class Source:
    """Where the user's object came from.

    folder: where its files lie. only: the package whose files count (None: whatever was imported
    from the folder). about: how it was named. files: what was imported, name -> sha256.
    """

    made: Callable[..., Any]
    name: str
    folder: Path
    only: str | None
    about: dict[str, str]
    files: dict[str, str] = field(default_factory=dict)

    def look(self) -> dict[str, str]:
        """The files imported so far, each with the digest it had when first seen."""
        for name, file in _imported(self.folder, self.only):
            if name not in self.files:
                self.files[name] = hashlib.sha256(file.read_bytes()).hexdigest()
        return dict(sorted(self.files.items()))


class _AsRead(importlib.abc.SourceLoader):
    """Runs the bytes that were read and digested; cached bytecode may be of older ones."""

    def __init__(self, file: Path) -> None:
        self.file, self.bytes = file, file.read_bytes()

    def get_filename(self, fullname: str) -> str:
        return str(self.file)

    def get_data(self, path: str | bytes) -> bytes:
        return self.bytes


def from_file(file: Path, name: str) -> Source:
    """`name` of a Python file. Modules beside it can be imported, after all others."""
    sys.dont_write_bytecode = True  # nothing is left in the user's folder
    sys.path.append(str(file.parent))
    try:
        loader = _AsRead(file)
    except OSError as reason:
        raise PluginError(f"{file} cannot be read: {reason.strerror}") from None
    spec = importlib.util.spec_from_loader(MODULE, loader, origin=str(file))
    assert spec is not None
    module = sys.modules[MODULE] = importlib.util.module_from_spec(spec)
    with said_of(f"{file.name} does not import"):
        loader.exec_module(module)
    if not hasattr(module, name):
        raise PluginError(f"{file.name} has no {name}{_instead(module)}")
    digest = hashlib.sha256(loader.bytes).hexdigest()
    about = {"file": file.name, "object": name}
    return Source(
        _callable(getattr(module, name), f"{name} of {file.name}"),
        name, file.parent, None, about, {file.name: digest},
    )  # fmt: skip


def from_plugin(name: str) -> Source:
    """The entry point of that name in the group, with the distribution that offers it."""
    found = tuple(metadata.entry_points(group=GROUP, name=name))
    if len(found) != 1:
        every = [e.name for e in metadata.entry_points(group=GROUP)]
        raise PluginError(unclear(sys.executable, name, every, [_offer(e) for e in found]))
    (entry,) = found
    with said_of(f"plug-in {name} ({entry.value}) does not load"):
        made = entry.load()
    top = entry.module.partition(".")[0]
    about = {"plugin": name, "entry_point": entry.value}
    if entry.dist is not None:
        about |= {"distribution": entry.dist.name, "version": entry.dist.version}
    where = _file_of(sys.modules[top])
    package = hasattr(sys.modules[top], "__path__")
    folder = Path() if where is None else where.parents[1 if package else 0]
    return Source(_callable(made, f"plug-in {name} ({entry.value})"), name, folder, top, about)


def unclear(python: str, name: str, every: Sequence[str], offers: Sequence[str] = ()) -> str:
    """What is wrong where not just one entry point of the group has the name. every: all names."""
    there = f"there are {', '.join(sorted(set(every)))}" if every else "there is none"
    who = f" ({', '.join(offers)})" if offers else ""
    how_many = f"more than one{who}" if name in every else "no"
    return f"{python} has {how_many} entry point {name} in the group {GROUP}: {there}"


def _offer(entry: metadata.EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else entry.value


def _callable(made: Any, what: str) -> Callable[..., Any]:
    if not callable(made):
        kind = type(made).__name__
        raise PluginError(f"{what} is a {kind}: it must be called with (model_path, options)")
    called: Callable[..., Any] = made
    return called


def _instead(module: ModuleType) -> str:
    """What the file defines itself, for somebody who mistyped a name."""
    own = [n for n, v in vars(module).items() if getattr(v, "__module__", None) == MODULE]
    return f": it has {', '.join(own)}" if own else ""


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file) if file else None


def _imported(folder: Path, only: str | None) -> Iterator[tuple[str, Path]]:
    """Source files of modules that were found right in the folder: a library that lies deeper in it
    (an environment, say) is none.
    """
    for name, module in list(sys.modules.items()):
        top, file = name.partition(".")[0], _file_of(module)
        if file is None or file.suffix != ".py" or only not in (None, top):
            continue
        inside = file.relative_to(folder).parts if file.is_relative_to(folder) else ()
        if inside and inside[0] in (top, f"{top}.py"):
            yield "/".join(inside), file


# ---------------------------------------------------------------- what it raises


@contextmanager
def said_of(what: str) -> Iterator[None]:
    """Whatever the user's code raises, exit included, becomes one sentence that says where."""
    try:
        yield
    except (Exception, SystemExit) as reason:
        text = " ".join(str(reason).split())[:300]
        said = f"{type(reason).__name__}: {text}" if text else type(reason).__name__
        where = _line(reason.__traceback__)
        if isinstance(reason, ModuleNotFoundError):
            where += f"; it ran in {sys.executable}: python=/path/to/bin/python names another"
        raise PluginError(f"{what}: {said}{where}") from reason


def _line(trace: TracebackType | None) -> str:
    """Where it happened, in the innermost frame of the user's file."""
    found = ""
    while trace is not None:
        frame = trace.tb_frame
        if frame.f_globals.get("__name__") == MODULE:
            found = f" ({Path(frame.f_code.co_filename).name}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return found


def digest(about: Mapping[str, str], files: Mapping[str, str]) -> str:
    """One mark for a state of the code: 16 hex digits over names, version and files."""
    whole = hashlib.sha256()
    for name, value in sorted({**about, **files}.items()):
        whole.update(f"{name} {value}\n".encode())
    return whole.hexdigest()[:16]
