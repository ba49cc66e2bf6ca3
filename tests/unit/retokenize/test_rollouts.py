"""Rows of rollouts, and what is said of a bad one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mismatch.errors import MismatchError
from mismatch.retokenize.rollouts import runs
from mismatch.verbs.retokenize import read_rollouts

ROW: dict[str, Any] = {"token_ids": [1, 2, 3, 4], "loss_mask": [0, 1, 0, 1]}


def _read(folder: Path, **fields: Any) -> Any:
    path = folder / "rollouts.jsonl"
    path.write_text(json.dumps({**ROW, **fields}) + "\n", encoding="utf-8")
    return read_rollouts(path)


def test_runs_are_the_unbroken_stretches_of_sampled_ids() -> None:
    assert runs(np.array([1, 0, 1, 1, 0, 1], bool)) == [(0, 1), (2, 4), (5, 6)]
    assert runs(np.zeros(3, bool)) == []


def test_a_row_needs_ids_and_a_mask_alone(tmp_path: Path) -> None:
    (row,) = _read(tmp_path)
    assert row.runs == [(1, 2), (3, 4)] and row.messages is None and row.group == ""


def test_each_run_has_a_place_in_the_messages(tmp_path: Path) -> None:
    places = [{"role": "user", "content": "?"}, {"role": "assistant"}, {"role": "assistant"}]
    assert len(_read(tmp_path, messages=places)[0].messages) == 3


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"messages": [{"role": "assistant"}]}, "1 assistant turns without content"),
        ({"messages": [{"role": "user"}]}, "has no content"),
        ({"messages": "hello"}, "not a list of messages"),
        ({"tools": "f"}, "tools is not a list"),
        ({"tools": ["\ud83d"]}, "half of a surrogate pair"),
        ({"group": 3}, "group is not text"),
        ({"loss_mask": [1]}, "loss_mask has 1 entries"),
        ({"token_ids": [-1, 2, 3, 4]}, "token_ids[0] is -1"),
    ],
)
def test_a_bad_row_is_named_by_its_line(tmp_path: Path, fields: Any, words: str) -> None:
    with pytest.raises(MismatchError) as error:
        _read(tmp_path, **fields)
    assert error.value.exit_code == 2 and "line 1" in error.value.message
    assert words in error.value.message


def test_no_sampled_token_selects_nothing(tmp_path: Path) -> None:
    with pytest.raises(MismatchError) as error:
        _read(tmp_path, loss_mask=[0, 0, 0, 0])
    assert error.value.exit_code == 3
