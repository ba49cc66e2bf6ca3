"""An engine of two ranks: one of them dies, or hangs. The study goes on, and nothing is left."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mismatch import api
from tests import known

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.ranks]

STUDY = """
model = "{model}"
corpus = "ids.jsonl"
paths = ["decode"]
floor = "none"
timeout = 60
[[condition]]
side = "train"
id = "sharded"
spec = "{spec}"
[[condition]]
side = "train"
id = "plain"
spec = "toy"
[[condition]]
side = "infer"
id = "infer"
spec = "toy:dtype=fp32"
"""


def _guests(folder: Path) -> list[tuple[int, str]]:
    """(pid, rank) of every process that works on the folder; rank "" where it is no rank."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            command = (entry / "cmdline").read_bytes()
            environ = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(folder).encode() in command:
            rank = next((v[5:].decode() for v in environ if v.startswith(b"RANK=")), "")
            found.append((int(entry.name), rank))
    return found


def _when_loaded(folder: Path, act: Callable[[int], None]) -> threading.Thread:
    """In another thread: wait for rank 1, then do something to it."""

    def watch() -> None:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            ones = [pid for pid, rank in _guests(folder) if rank == "1"]
            if ones:
                time.sleep(1.0)
                act(ones[0])
                return
            time.sleep(0.05)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("spec", "how"),
    [
        ("hf:dtype=fp32,fsdp=2", signal.SIGKILL),
        ("hf:dtype=fp32,fsdp=2", signal.SIGSTOP),
        pytest.param("megatron:dtype=fp32,tp=2", signal.SIGKILL, marks=pytest.mark.megatron),
    ],
)
def test_a_rank_that_dies_or_hangs_is_a_failed_cell(
    tmp_path: Path, spec: str, how: signal.Signals
) -> None:
    """Its siblings are ended, the cell is stored as failed with the boundary, the other cells are
    measured, and a rerun mends it.
    """
    rows = [json.dumps({"token_ids": ids}) for ids in known.sequences(9, 20)]
    (tmp_path / "ids.jsonl").write_text("\n".join(rows) + "\n")
    study, out = tmp_path / "s.toml", tmp_path / "o"
    model = known.write_checkpoint(tmp_path / "model", attention=True, heads=2)
    study.write_text(STUDY.format(model=model, spec=spec))
    thread = _when_loaded(out, lambda pid: os.kill(pid, how))
    summary = api.run_study(study, out)
    thread.join()
    pairs = {p["id"]: p for p in summary["pairs"]}
    assert pairs["plain~infer.decode"]["tokens"] and not pairs["sharded~infer.decode"]["tokens"]
    (error,) = api.failures(out)
    wanted = ("timeout",) if how == signal.SIGSTOP else ("launch", "load", "score", "signal")
    assert error["boundary"] in wanted, error
    assert not _guests(out), "a rank outlived its host"
    again = api.run_study(study, out)
    assert all(p["tokens"] for p in again["pairs"]) and not api.failures(out)
