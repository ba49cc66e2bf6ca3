"""Start one guest, watch it, end it. The host learns of it through files alone."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mismatch
from mismatch import wire

Notify = Callable[[dict[str, Any]], None]

POLL_S = 0.05
LOG_TAIL_LINES = 15
COMPILED = "inductor"
#: Modules beside the engines' folders that every guest gets.
SHARED = (
    "guest", "client", "distribution", "dtypes", "http", "observe", "tokens", "torchrun",
    "weights",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a guest stopped early: one boundary, recorded once."""

    boundary: str  # environment launch load encode sample score seal timeout signal
    type: str
    message: str
    capture: str | None = None  # None: it concerns every capture that was still to come


@dataclass(frozen=True, slots=True)
class Start:
    """How to start a guest. ranks > 1: torchrun starts that many and ends all when one dies."""

    python: Path
    engine: str
    environment: Mapping[str, str]
    ranks: int
    timeout_s: float

    def command(self, folder: Path) -> list[str]:
        if self.ranks == 1:
            return [str(self.python), "-P", "-m", "mismatch.engines.guest", str(folder)]
        many = ["-m", "mismatch.engines.torchrun", str(self.ranks)]
        return [str(self.python), "-P", *many, "-m", "mismatch.engines.guest", str(folder)]


def stage_guest(folder: Path, engine: str) -> Path:
    """Copy the guest's source alone: the host's site-packages must not reach the guest's path."""
    root = Path(mismatch.__file__).parent
    target = folder / "guest"
    shutil.rmtree(target, ignore_errors=True)
    folders = sorted({engine.removesuffix("_server"), engine})  # a client reads as its engine does
    own = [p for f in folders for p in (root / "engines" / f).glob("*.py")]
    for name in (
        "wire.py",
        *(f"engines/{shared}.py" for shared in SHARED),
        *(str(p.relative_to(root)) for p in own if p.stem not in ("engine", "__init__")),
    ):
        (target / "mismatch" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, target / "mismatch" / name)
    for package in ("", "engines", *(f"engines/{folder}" for folder in folders)):
        (target / "mismatch" / package / "__init__.py").touch()
    return target


def run_guest(folder: Path, how: Start, notify: Notify) -> Failure | None:
    """Run the staged job to its end. Ctrl-C ends the guest's process group, then re-raises."""
    for stale in ("events.jsonl", "error.json"):
        (folder / stale).unlink(missing_ok=True)
    guest = stage_guest(folder, how.engine)
    log = (folder / "worker.log").open("ab")
    try:
        process = subprocess.Popen(
            how.command(folder),
            env=guest_environment(guest, how.environment),
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    except OSError as reason:
        return Failure("launch", type(reason).__name__, f"{how.python} did not start: {reason}")
    finally:
        log.close()
    try:
        return _watch(folder, process, how.timeout_s, notify)
    finally:
        end_group(process)


def guest_environment(guest: Path, more: Mapping[str, str]) -> dict[str, str]:
    """This process's variables with the staged source first on the path, and no network."""
    environment = {**os.environ, **more}
    inherited = environment.get("PYTHONPATH")
    environment["PYTHONPATH"] = os.pathsep.join([str(guest), *([inherited] if inherited else [])])
    # Nothing is fetched: the checkpoint is a folder on this machine.
    environment.setdefault("HF_HUB_OFFLINE", "1")
    environment.setdefault("TORCHINDUCTOR_CACHE_DIR", str(guest.parent / COMPILED))
    return environment


def lend_compiled(folder: Path, kept: Path) -> None:
    """Give a guest its own copy of the kernels that an earlier one compiled.

    Never the kept folder itself: a killed guest leaves half-written libraries that break the next
    compile.
    """
    if kept.is_dir() and not (folder / COMPILED).exists():
        shutil.copytree(kept, folder / COMPILED)


def keep_compiled(folder: Path, kept: Path) -> None:
    """After a guest that ended well: keep what it compiled, if nothing is kept yet."""
    if (folder / COMPILED).is_dir() and not kept.exists():
        kept.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # another run kept its own meanwhile
            (folder / COMPILED).rename(kept)


def _watch(
    folder: Path, process: subprocess.Popen[bytes], timeout_s: float, notify: Notify
) -> Failure | None:
    offset, last, stage = 0, time.monotonic(), {"stage": "launch"}
    while True:
        ended = process.poll() is not None
        events, offset = wire.read_events(folder / "events.jsonl", offset)
        for event in events:
            last = time.monotonic()
            if event["stage"] != "tick":
                stage = event
            notify(event)
        if ended:
            return _verdict(folder, process.returncode, stage)
        if time.monotonic() - last > timeout_s:
            message = f"no sign of life for {timeout_s:g} s while at {_place(stage)}"
            return Failure("timeout", "Timeout", message, stage.get("capture"))
        time.sleep(POLL_S)


def _verdict(folder: Path, code: int, stage: dict[str, Any]) -> Failure | None:
    if code == 0 and stage["stage"] == "done":
        return None
    if (folder / "error.json").is_file():
        return Failure(**wire.read_json(folder / "error.json"))
    if code < 0:
        name = signal.Signals(-code).name
        return Failure("signal", name, f"ended by {name} at {_place(stage)}", stage.get("capture"))
    boundary = (
        stage["stage"] if stage["stage"] in ("load", "encode", "sample", "score") else "launch"
    )
    message = f"exit code {code} at {_place(stage)}: {log_tail(folder, 1)}"
    return Failure(boundary, "Exit", message, stage.get("capture"))


def _place(stage: dict[str, Any]) -> str:
    call = f", call {stage['call'] + 1} of {stage['of']}" if "call" in stage else ""
    capture = f" of {stage['capture']}" if stage.get("capture") else ""
    return f"{stage['stage']}{capture}{call}"


def log_tail(folder: Path, lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of the worker's log."""
    try:
        text = (folder / "worker.log").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End the guest and whatever it started."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
