"""Who may write into an output folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mismatch import api
from mismatch.capture import claim
from mismatch.capture.claim import claimed
from mismatch.errors import MismatchError
from mismatch.model import PairSpec
from mismatch.verbs.conclude import conclude

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


#: What a run may have captured: a sealed trace or one that is half there, ids, a finished call.
CAPTURED = ("traces/a/score-1", "corpus/0123", ".work/load/parts/a/score-1")


def _captured(root: Path, place: str = CAPTURED[0]) -> None:
    (root / place).mkdir(parents=True)
    (root / place / "000.npz").touch()


@pytest.mark.parametrize("place", CAPTURED)
def test_another_request_is_refused_and_says_what_differs(tmp_path: Path, place: str) -> None:
    """Numbers of two commands never mix in one folder, and no finished call is thrown away."""
    with claimed(tmp_path, {"verb": "run", "seed": 0}, PAIRS):
        _captured(tmp_path, place)
    with (
        pytest.raises(MismatchError, match="seed was 0, is 1") as caught,
        claimed(tmp_path, {"verb": "run", "seed": 1}, PAIRS),
    ):
        pass
    assert caught.value.exit_code == 2


def test_where_nothing_was_captured_a_mended_command_is_taken(tmp_path: Path) -> None:
    """A url that no server answered at is corrected without another folder; its failure is gone,
    and the new command is what the folder then holds."""
    for url in ("http://wrong", "http://right"):
        with claimed(tmp_path, {"verb": "run", "infer": url}, PAIRS):
            assert not list(tmp_path.glob("failed/*"))
            (tmp_path / "failed" / "a" / "score-1").mkdir(parents=True)
            (tmp_path / ".work" / "load" / "guest").mkdir(parents=True)
    _captured(tmp_path)
    with pytest.raises(MismatchError, match="infer was http://right"):
        claim.check(tmp_path, {"verb": "run", "infer": "http://wrong"}, PAIRS)


def test_what_another_verb_laid_down_is_no_empty_run(tmp_path: Path) -> None:
    """retokenize and import write files, not captures: theirs are not taken over."""
    with claimed(tmp_path, {"verb": "retokenize", "ids": "a"}, []):
        pass
    with pytest.raises(MismatchError, match="verb was retokenize"):
        claim.check(tmp_path, {"verb": "run", "ids": "a"}, [])


def test_somebody_elses_folder_is_left_alone(tmp_path: Path) -> None:
    """Any other content, or a file of that name, is exit 2."""
    (tmp_path / "thesis.tex").write_text("x")
    for place in (tmp_path, tmp_path / "thesis.tex"):
        with pytest.raises(MismatchError), claimed(place, {"verb": "run"}, PAIRS):
            pass
    assert sorted(p.name for p in tmp_path.iterdir()) == ["thesis.tex"]


def test_two_at_once_are_refused(tmp_path: Path) -> None:
    """A second process on the same folder would mix its parts in; afterwards it may."""
    with (
        claimed(tmp_path, {"verb": "run"}, PAIRS),
        pytest.raises(MismatchError, match="Another run"),
        claimed(tmp_path, {"verb": "run"}, PAIRS),
    ):
        pass
    with claimed(tmp_path, {"verb": "run"}, PAIRS):
        pass
    assert not (tmp_path / ".work").exists()


@pytest.mark.parametrize("verb", [api.compare, api.report])
def test_nothing_is_rewritten_under_a_run(tmp_path: Path, verb: Callable[[Path], object]) -> None:
    """compare and report of a folder in use are refused; the run would read what they replace."""
    with claimed(tmp_path, {"verb": "run"}, []):
        conclude(tmp_path)
        with pytest.raises(MismatchError, match="Another run"):
            verb(tmp_path)
    verb(tmp_path)


def test_a_folder_claimed_while_we_looked_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """run.json is read again under the lock: the first look may have found an empty folder."""
    looks: list[int] = []
    real = claim._refuse_others

    def late(root: Path, plan: Mapping[str, Any]) -> None:
        real(root, plan)
        if not looks:
            with monkeypatch.context() as plain:
                plain.setattr(claim, "_refuse_others", real)
                with claimed(root, {"verb": "run", "seed": 1}, PAIRS):
                    _captured(root)
        looks.append(1)

    monkeypatch.setattr(claim, "_refuse_others", late)
    with (
        pytest.raises(MismatchError, match="seed was 1, is 0"),
        claimed(tmp_path, {"verb": "run", "seed": 0}, PAIRS),
    ):
        pass


@pytest.mark.parametrize(
    ("number", "code"), [(errno.EDQUOT, "out-of-space"), (errno.EROFS, "not-writable")]
)
def test_a_refused_write_says_what_was_refused(tmp_path: Path, number: int, code: str) -> None:
    """A full disk asks for space, a folder that may not be written for another place."""
    with pytest.raises(MismatchError) as caught, claimed(tmp_path, {"verb": "run"}, PAIRS):
        raise OSError(number, os.strerror(number), str(tmp_path / "x"))
    assert (caught.value.code, os.strerror(number) in caught.value.message) == (code, True)


def test_another_failure_is_no_full_disk(tmp_path: Path) -> None:
    """What is neither stays itself, for whoever mends it."""
    with pytest.raises(FileNotFoundError), claimed(tmp_path, {"verb": "run"}, PAIRS):
        (tmp_path / "gone").read_text()
