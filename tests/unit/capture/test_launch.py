"""How a guest's end is read, from the files it left."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mismatch import wire
from mismatch.capture import launch

SCORING = {"stage": "score", "capture": "decode-1", "call": 2, "of": 5}


def test_a_guest_that_finished_has_no_failure(tmp_path: Path) -> None:
    """Exit 0 after its last word is the only success."""
    assert launch._verdict(tmp_path, 0, {"stage": "done"}) is None


def test_exit_zero_without_the_last_word_is_a_failure(tmp_path: Path) -> None:
    """An engine that calls exit(0) in the middle has not finished."""
    failure = launch._verdict(tmp_path, 0, SCORING)
    assert failure is not None and failure.boundary == "score" and failure.capture == "decode-1"


def test_an_exception_is_told_by_the_guest_itself(tmp_path: Path) -> None:
    """error.json carries boundary, type and message; the host adds nothing."""
    error = {"boundary": "load", "type": "OSError", "message": "no", "capture": None}
    wire.write_json(tmp_path / "error.json", error)
    assert launch._verdict(tmp_path, 1, {"stage": "load"}) == launch.Failure(**error)


@pytest.mark.parametrize(("code", "name"), [(-9, "SIGKILL"), (-11, "SIGSEGV")])
def test_a_signal_is_named_with_the_place(tmp_path: Path, code: int, name: str) -> None:
    """A killed guest says nothing; its last event tells where it was."""
    failure = launch._verdict(tmp_path, code, SCORING)
    assert failure is not None and failure.boundary == "signal" and failure.type == name
    assert failure.message == f"ended by {name} at score of decode-1, call 3 of 5"


def test_the_log_tail_is_kept(tmp_path: Path) -> None:
    """The last lines of the worker's log come along, undecodable bytes replaced."""
    (tmp_path / "worker.log").write_bytes(b"one\ntwo\n\xff three\n")
    assert launch.log_tail(tmp_path, 2).splitlines()[0] == "two"
    assert launch.log_tail(tmp_path / "nowhere") == ""


def test_only_whole_event_lines_are_read(tmp_path: Path) -> None:
    """A line still being written waits for the next look."""
    path = tmp_path / "events.jsonl"
    path.write_text('{"stage": "load"}\n{"sta')
    events, offset = wire.read_events(path)
    assert [e["stage"] for e in events] == ["load"]
    path.write_text('{"stage": "load"}\n{"stage": "done"}\n')
    assert [e["stage"] for e in wire.read_events(path, offset)[0]] == ["done"]


def test_only_the_guest_source_is_staged(tmp_path: Path) -> None:
    """The host's packages must not reach the guest's path: what guests share, and one worker."""
    target = launch.stage_guest(tmp_path, "toy")
    staged = {str(p.relative_to(target)) for p in target.rglob("*.py") if p.stat().st_size}
    assert staged == {
        "mismatch/wire.py",
        "mismatch/engines/client.py",
        "mismatch/engines/distribution.py",
        "mismatch/engines/dtypes.py",
        "mismatch/engines/guest.py",
        "mismatch/engines/http.py",
        "mismatch/engines/observe.py",
        "mismatch/engines/tokens.py",
        "mismatch/engines/torchrun.py",
        "mismatch/engines/weights.py",
        "mismatch/engines/toy/worker.py",
    }


def _full(n: int, value: float) -> wire.Values:
    values = wire.blank(n, topk=2, entropy=True, kept_mass=True)
    for name in wire.PER_TOKEN:
        getattr(values, name)[:] = value
    return values


def test_parts_survive_the_wire(tmp_path: Path) -> None:
    """Ragged rows come back bit for bit, in sequence order, whatever call they were in."""
    import numpy as np

    plan = wire.CallPlan("decode-1", "decode", [[1], [0]])
    rows = [wire.Row(k, np.arange(k + 2, dtype=np.int32), _full(k + 2, -0.5 * k)) for k in (0, 1)]
    assert not wire.is_complete(tmp_path, plan)
    wire.save_part(tmp_path, "decode-1", [0], [rows[1]])
    assert wire.finished_calls(tmp_path, "decode-1") == {0}
    wire.save_part(tmp_path, "decode-1", [1], [rows[0]])
    wire.write_json(wire.facts_path(tmp_path, "decode-1"), {})
    assert wire.is_complete(tmp_path, plan)
    for got, row in zip(wire.load_capture(tmp_path, plan), rows, strict=True):
        assert got.sequence == row.sequence and got.token_ids.tolist() == row.token_ids.tolist()
        for name in wire.PER_TOKEN:
            np.testing.assert_array_equal(getattr(got.values, name), getattr(row.values, name))


def test_events_are_json_lines(tmp_path: Path) -> None:
    """What the guest sends is what the host reads; ticks are throttled to one a second."""
    events = wire.Events(tmp_path / "e.jsonl")
    events.send("load")
    for k in range(50):
        events.tick(k, 50)
    lines = [json.loads(x) for x in (tmp_path / "e.jsonl").read_text().splitlines()]
    assert [x["stage"] for x in lines] == ["load", "tick"]
