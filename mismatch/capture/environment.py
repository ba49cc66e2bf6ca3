"""Which interpreter runs an engine, whether the engine imports there, and how to build one.

Order: the interpreter the user named, the current one if the engine imports there, one built and
cached by `mismatch-probe engines build`. Importing vllm takes 20 s, so the answer is remembered by
interpreter and installed versions.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mismatch import store
from mismatch.engines.base import Engine
from mismatch.engines.python.source import unclear
from mismatch.errors import MismatchError
from mismatch.model import Condition

IMPORT_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Probe:
    """What asking an interpreter for an engine gave."""

    ok: bool
    reason: str
    versions: dict[str, str]


def cache_dir() -> Path:
    """$MISMATCH_CACHE, else the user's cache folder."""
    named = os.environ.get("MISMATCH_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mismatch-probe"


def compiled_dir(python: Path, condition: Condition) -> Path:
    """Where kernels compiled for this interpreter and condition are kept."""
    key = f"{python}\n{condition.spec}"
    return cache_dir() / "compiled" / hashlib.sha256(key.encode()).hexdigest()[:12]


# ---------------------------------------------------------------- probing

_VERSIONS = """
import json, sys
from importlib import metadata
found = {"python": sys.version.split()[0]}
for name in json.loads(sys.argv[1]):
    try: found[name] = metadata.version(name)
    except metadata.PackageNotFoundError: pass
print(json.dumps(found))
"""


def probe(python: Path, engine: Engine) -> Probe:
    """Ask, in a child, whether the engine imports in that interpreter."""
    try:
        asked = _child(python, ["-c", _VERSIONS, json.dumps(engine.distributions)])
        versions: dict[str, str] = json.loads(asked.stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return Probe(False, f"{python} is not a Python interpreter that answers", {})
    if engine.imports is None:
        return Probe(True, "", versions)
    if not set(engine.distributions) & set(versions):
        return Probe(False, f"{engine.imports} is not installed in {python}", versions)
    return _remembered(python, engine, versions)


def _remembered(python: Path, engine: Engine, versions: dict[str, str]) -> Probe:
    key = json.dumps([str(python), engine.imports, versions], sort_keys=True)
    note = cache_dir() / "probes" / f"{hashlib.sha256(key.encode()).hexdigest()[:24]}.json"
    if note.is_file():
        return Probe(**json.loads(note.read_text(encoding="utf-8")))
    found = _import(python, engine, versions)
    if found.ok:  # a failure may be mended without a version changing
        store.write_text(note, json.dumps({"ok": True, "reason": "", "versions": versions}))
    return found


def _import(python: Path, engine: Engine, versions: dict[str, str]) -> Probe:
    try:
        asked = _child(python, ["-c", f"import {engine.imports}"])
    except subprocess.TimeoutExpired:
        return Probe(False, f"importing {engine.imports} took over {IMPORT_TIMEOUT_S} s", versions)
    if asked.returncode:
        lines = asked.stderr.strip().splitlines() or [f"exit {asked.returncode}"]
        return Probe(False, f"import {engine.imports} fails: {lines[-1][:300]}", versions)
    return Probe(True, "", versions)


def _child(python: Path, arguments: list[str]) -> subprocess.CompletedProcess[str]:
    # -P: the folder we stand in must not lend its modules to the engine.
    return subprocess.run(
        [str(python), "-P", *arguments],
        capture_output=True,
        text=True,
        timeout=IMPORT_TIMEOUT_S,
        check=False,
    )


# ---------------------------------------------------------------- choosing


def candidates(engine: Engine, named: str | None) -> Iterator[tuple[str, Path]]:
    """Interpreters in the order they are tried, with the name of the choice."""
    if named:
        # A relative path with no separator is a command: python=python3.12
        yield "named", Path(shutil.which(named) or named).absolute()
        return
    yield "current", Path(sys.executable)
    built = environment_dir(engine)
    if built is not None and (built / "READY").is_file():
        yield "built", built / "bin" / "python"


def interpreter(engine: Engine, condition: Condition) -> tuple[Path, dict[str, str]]:
    """The interpreter that runs the condition and the versions installed there, or
    `engine-missing` with the reasons.
    """
    named = condition.options.get("python")
    reasons = []
    for _, python in candidates(engine, str(named) if named else None):
        found = probe(python, engine)
        reason = found.reason or _plugin_missing(python, engine, condition)
        if not reason:
            return python, found.versions
        reasons.append(reason)
    if not named and engine.requirements and len(reasons) == 1:
        reasons.append("no environment has been built for it")
    build = f"Run 'mismatch-probe engines build {engine.name}', or name"
    raise MismatchError(
        "engine-missing",
        engine=engine.name,
        reason="; ".join(reasons),
        build=build if engine.requirements else "Name",
    )


_PLUGINS = """
import json, sys
from importlib import metadata
print(json.dumps([e.name for e in metadata.entry_points(group=sys.argv[1])]))
"""


def _plugin_missing(python: Path, engine: Engine, condition: Condition) -> str:
    """Why that interpreter has no such plug-in; "" where it has, or none is named. A name that is
    wrong would else be told of after the rollout, by the guest.
    """
    if engine.plugins is None or "plugin" not in condition.options:
        return ""
    name = str(condition.options["plugin"])
    try:
        every = json.loads(_child(python, ["-c", _PLUGINS, engine.plugins]).stdout)
    except (OSError, ValueError, subprocess.SubprocessError):
        return f"{python} does not tell its entry points"
    return "" if every.count(name) == 1 else unclear(str(python), name, every)


@dataclass(frozen=True, slots=True)
class Status:
    """A row of `mismatch-probe engines`."""

    engine: str
    summary: str
    ok: bool
    python: str | None
    source: str | None
    versions: dict[str, str]
    reason: str
    todo: str


def status(engine: Engine) -> Status:
    reasons = []
    for source, python in candidates(engine, None):
        found = probe(python, engine)
        if found.ok:
            return Status(
                engine.name, engine.summary, True, str(python), source, found.versions, "", ""
            )
        reasons.append(found.reason)
    todo = f"mismatch-probe engines build {engine.name}"
    return Status(engine.name, engine.summary, False, None, None, {}, "; ".join(reasons), todo)


# ---------------------------------------------------------------- building


def _requirement_lines(path: Path) -> list[str]:
    """The file's requirements with `-r` lines followed and comments dropped."""
    lines: list[str] = []
    for raw in path.read_text(encoding="utf-8").splitlines():
        line = raw.split("#")[0].strip()
        if line.startswith("-r "):
            lines += _requirement_lines((path.parent / line[3:].strip()).resolve())
        elif line:
            lines.append(line)
    return lines


def _overrides(path: Path) -> list[str]:
    """overrides.txt beside the requirements, or beside a file they include."""
    beside = path.parent / "overrides.txt"
    if beside.is_file():
        return _requirement_lines(beside)
    for raw in path.read_text(encoding="utf-8").splitlines():
        if raw.startswith("-r "):
            return _overrides((path.parent / raw[3:].strip()).resolve())
    return []


def environment_dir(engine: Engine) -> Path | None:
    """Where the engine's environment lives. Engines of equal requirements share one."""
    if engine.requirements is None:
        return None
    lines = _requirement_lines(engine.requirements) + _overrides(engine.requirements)
    key = "\n".join([*lines, f"{sys.version_info.major}.{sys.version_info.minor}"])
    return cache_dir() / "envs" / hashlib.sha256(key.encode()).hexdigest()[:12]


def build(engine: Engine, say: Callable[[str], None]) -> Path:
    """Build the engine's environment with uv (once; a finished one is kept) and import it there."""
    folder = environment_dir(engine)
    if folder is None or engine.imports is None:
        say(f"{engine.name} needs no environment of its own")
        return Path(sys.executable)
    folder.parent.mkdir(parents=True, exist_ok=True)
    python = folder / "bin" / "python"
    with _locked(folder.with_suffix(".lock")):
        if not (folder / "READY").is_file():
            say(f"building the environment of {engine.name} in {folder} (gigabytes, minutes)")
            _install(engine, folder)
            (folder / "READY").write_text("", encoding="utf-8")
        say(f"importing {engine.imports} there")
        found = probe(python, engine)
    if not found.ok:
        raise MismatchError(
            "build-failed",
            engine=engine.name,
            reason=found.reason,
            todo=f"Delete {folder} and build again.",
        )
    return python


def _install(engine: Engine, folder: Path) -> None:
    assert engine.requirements is not None
    uv = _uv()
    shutil.rmtree(folder, ignore_errors=True)
    _run_uv(engine, [uv, "venv", "--python", sys.executable, str(folder)])
    lists = {"requirements": _requirement_lines(engine.requirements)}
    lists["overrides"] = _overrides(engine.requirements)
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    command = [uv, "pip", "install", "--python", str(folder / "bin" / "python")]
    command += ["-r", str(folder / "requirements.txt")]
    command += ["--override", str(folder / "overrides.txt")]
    if not os.environ.get("PIP_FIND_LINKS"):
        # Where no local wheels are offered, the CPU build of torch comes from its own index.
        command += ["--torch-backend", "cpu"]
    _run_uv(engine, command)


def _uv() -> str:
    from uv import find_uv_bin

    return find_uv_bin()


def _run_uv(engine: Engine, command: list[str]) -> None:
    environment = dict(os.environ)
    links = environment.get("PIP_FIND_LINKS")
    if links:  # uv does not read pip's variable; pip separates with blanks, uv with commas
        environment.setdefault("UV_FIND_LINKS", ",".join(links.split()))
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        tail = " | ".join(done.stderr.strip().splitlines()[-4:])
        raise MismatchError(
            "build-failed",
            engine=engine.name,
            reason=tail[:600],
            todo="Check the network and the disk, then run the same command again.",
        )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Two builds at once would undo each other; the second waits."""
    with path.open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
