"""The guest's loop, as far as no engine is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mismatch import wire
from mismatch.engines import guest
from mismatch.engines.guest import _to_make


@pytest.mark.parametrize(
    ("finished", "calls"),
    [
        (set(), [0, 1, 2, 3]),
        ({0}, [1, 2, 3]),
        ({0, 1, 2}, [0, 3]),
        ({3}, [0, 1, 2, 3]),
        ({0, 1, 2, 3}, [0, 3]),
    ],
)
def test_a_resume_shows_every_shape_of_the_capture(finished: set[int], calls: list[int]) -> None:
    """Three calls of four sequences and a last one of one: facts are of what ran, so a size that
    only an earlier process ran is run once more."""
    groups = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12]]
    assert _to_make(groups, finished) == calls


class _Server:
    """A worker whose engine somebody else runs."""

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint

    def identity(self) -> dict[str, str]:
        return {"fingerprint": self.fingerprint}


def test_a_resume_asks_the_same_server(tmp_path: Path) -> None:
    """What one server gave is never completed by another at its address; an engine of our own needs
    no such note."""
    guest._keep_one_source(tmp_path, object())
    assert not list(tmp_path.iterdir())
    for name in ("b", "a", "a"):  # nothing of b's was kept
        guest._keep_one_source(tmp_path, _Server(name))
        if name == "a":
            (tmp_path / "parts" / "c" / "score-1").mkdir(parents=True, exist_ok=True)
            (tmp_path / "parts" / "c" / "score-1" / "000000.npz").touch()
    with pytest.raises(ValueError, match="not the one that gave what is kept"):
        guest._keep_one_source(tmp_path, _Server("b"))


class _Code:
    """The user's own code, which imports more as it is asked."""

    def __init__(self, **files: str) -> None:
        self.files = files

    def identity(self) -> dict[str, object]:
        return {"digest": "d", "files": self.files}


def test_what_code_imports_late_is_noted_and_does_not_stop_a_resume(tmp_path: Path) -> None:
    """The note grows by what a call imported; at the next load only what is loaded is compared."""
    guest._keep_one_source(tmp_path, _Code(mine="1"))
    (tmp_path / "parts" / "c" / "score-1").mkdir(parents=True)
    (tmp_path / "parts" / "c" / "score-1" / "000000.npz").touch()
    guest._note_files(tmp_path, _Code(mine="1", late="2"))
    assert wire.read_json(tmp_path / "identity.json")["files"] == {"mine": "1", "late": "2"}
    guest._keep_one_source(tmp_path, _Code(mine="1"))
    assert wire.read_json(tmp_path / "identity.json")["files"] == {"mine": "1", "late": "2"}
    with pytest.raises(ValueError, match="not the one that gave"):
        guest._keep_one_source(tmp_path, _Code(mine="3"))


def test_routes_of_a_rollout_travel_whole(tmp_path: Path) -> None:
    """Values of the response alone, routes of the whole sequence: both come back as they were, also
    beside another row, and cutting or padding the values leaves them alone.
    """
    rows = []
    for s, (prompt, response) in enumerate(((3, 2), (1, 4))):
        values = wire.Values(
            np.arange(response, dtype=np.float32),
            routes=np.arange((prompt + response) * 6, dtype=np.int16).reshape(-1, 3, 2),
        )
        rows.append(wire.Row(s, np.arange(response, dtype=np.int32), values))
    wire.save_part(tmp_path, "c/rollout-1", [0], rows)
    got = wire.load_capture(tmp_path, wire.CallPlan("c/rollout-1", "rollout", [[0, 1]]))
    for one, given, prompt in zip(got, rows, (3, 1), strict=True):
        np.testing.assert_array_equal(one.values.logprobs, given.values.logprobs)
        np.testing.assert_array_equal(one.values.routes, given.values.routes)
        whole = one.values.padded(prompt)
        assert len(whole.logprobs) == len(whole.routes)
        assert whole.tail(prompt).routes is whole.routes


class Told:
    """A worker that notes what it was asked."""

    def score(self, path: str, ids: Any, first: Any, asked: Any, **more: Any) -> Any:
        self.more = more
        return [wire.blank(len(i)) for i in ids]


@pytest.mark.parametrize("replays", [True, False])
def test_only_a_capture_that_replays_is_given_routes(replays: bool, tmp_path: Path) -> None:
    """Those of the sequences of its call, as they lie in the corpus; other engines need no such
    argument.
    """
    ids, masks = [np.arange(3), np.arange(2)], [np.ones(3, bool), np.ones(2, bool)]
    routes = [np.full((3, 1, 2), 5), np.full((2, 1, 2), -1)]
    wire.save_sequences(tmp_path / "corpus.npz", ids, masks, None, routes)
    worker = Told()
    plan = wire.CallPlan("c/s", "score", [[1]], {"replay_routes": True} if replays else {})
    guest._score(plan, worker, [1], wire.load_sequences(tmp_path / "corpus.npz"))
    if not replays:
        assert worker.more == {}
        return
    (given,) = worker.more["routes"]
    assert given.shape == (2, 1, 2) and (given == -1).all()
