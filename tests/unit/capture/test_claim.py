"""Who may write into an output folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from mismatch.capture.claim import claimed
from mismatch.errors import MismatchError
from mismatch.model import PairSpec

PAIRS = [PairSpec("p", "train-infer", "decode", "a/score-1", "b/decode-1", {"batch": {}})]


def test_absent_and_empty_folders_are_taken(tmp_path: Path) -> None:
    """The folder is made; what was asked is written down first."""
    for name in ("new/deep", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with claimed(tmp_path / name, {"verb": "run"}, PAIRS) as root:
            assert (root / "run.json").is_file()


def test_the_same_request_resumes(tmp_path: Path) -> None:
    """A second time with the same words is welcome, and sweeps half-sealed folders away."""
    with claimed(tmp_path, {"verb": "run", "x": [1]}, PAIRS):
        (tmp_path / "traces" / ".seal-x").mkdir(parents=True)
    with claimed(tmp_path, {"verb": "run", "x": (1,)}, PAIRS):
        assert not (tmp_path / "traces" / ".seal-x").exists()


def test_another_request_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    """Numbers of two commands never mix in one folder."""
    with claimed(tmp_path, {"verb": "run", "seed": 0}, PAIRS):
        pass
    with (
        pytest.raises(MismatchError, match="seed was 0, is 1") as caught,
        claimed(tmp_path, {"verb": "run", "seed": 1}, PAIRS),
    ):
        pass
    assert caught.value.exit_code == 2


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    """Any other content, or a file of that name, is exit 2."""
    (tmp_path / "thesis.tex").write_text("x")
    for place in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(MismatchError), claimed(place, {"verb": "run"}, PAIRS):
            pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.tex"]


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    """A second process on the same folder would mix its parts in."""
    with (
        claimed(tmp_path, {"verb": "run"}, PAIRS),
        pytest.raises(MismatchError, match="another run"),
        claimed(tmp_path, {"verb": "run"}, PAIRS),
    ):
        pass
