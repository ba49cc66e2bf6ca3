"""The guest's loop, as far as no engine is needed."""

from __future__ import annotations

from pathlib import Path

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
