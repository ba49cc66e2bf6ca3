"""The script that checks forks lays both runs beside each other, and disagrees where they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mismatch.compare.compare import compare
from mismatch.model import PairSpec, make_corpus
from tests.unit.compare.folders import load_script, run_folder

PAIR = PairSpec("p", "infer-infer", "decode", "other/decode-1", "one/decode-1", {})
DRAWN = {"condition": "one", "model": "x", "temperature": 1.0, "support": "cut", "greedy": True}
PROMPT, LENGTH, RUNS = 3, 6, 8


@pytest.fixture
def script() -> Any:
    return load_script("forks_by_hand")


def folder(root: Path, runs: list[list[int]], likeliest: list[list[int]]) -> Path:
    """Greedy runs, and what the other side finds likeliest along them."""
    scored = np.arange(PROMPT + LENGTH) >= PROMPT
    prompt = [7] * PROMPT
    corpus = make_corpus([(np.array(prompt + run), scored) for run in runs])
    tops = [np.stack([prompt + best, np.full(PROMPT + LENGTH, 99)], axis=1) for best in likeliest]
    traces: dict[str, Any] = {"other/decode-1": {}, "one/decode-1": {}}
    run_folder(root, corpus, traces, [PAIR], DRAWN, {"other/decode-1": tops, "one/decode-1": tops})
    return root


def two(root: Path, replayed_at: int) -> tuple[Path, Path]:
    """Runs of which number k forks at its token k + 1 and number 7 never; the replay of number 0
    finds its fork at the token replayed_at."""
    one = [[k, 11, 12, 13, 14, 15] for k in range(RUNS)]
    other = [list(run) for run in one]
    best = [list(run) for run in one]
    for k in range(LENGTH):
        other[k][k:] = [50 + k] * (LENGTH - k)
        best[k][k] = 50 + k
    best[0] = list(one[0])
    best[0][replayed_at - 1] = 77
    return folder(root / "one", one, best), folder(root / "other", other, other)


def test_runs_fork_where_the_replay_says(script: Any, tmp_path: Path) -> None:
    """Six of eight differ, by hand and by the package, and all at the same token."""
    folders = two(tmp_path, 1)
    found = script.compared(*folders)
    assert found == {
        "prompts": RUNS, "runs_that_differ": 6, "replays_that_differ": 6, "alike": RUNS,
        "at_the_fork": 6, "never": 2, "at_a_tie": 0, "elsewhere": 0, "explained_share": 1.0,
    }  # fmt: skip
    forks = compare(folders[0])["pairs"][0]["forks"]
    assert (forks["forked"], forks["first"], forks["greedy"]) == (6, 1, True)


def test_a_replay_that_forks_elsewhere_is_not_alike(script: Any, tmp_path: Path) -> None:
    """One run forks at its first token, and its replay at the second."""
    found = script.compared(*two(tmp_path, 2))
    assert (found["alike"], found["at_a_tie"], found["elsewhere"]) == (RUNS - 1, 0, 1)


@pytest.mark.parametrize(
    ("replayed_at", "run", "answer", "at_a_tie"),
    [
        (2, 0, (2, {1}), 1),  # the replay finds another equally likely token where the runs part
        (1, 1, (1, {2}), 0),  # it has that behind its own fork
    ],
)
def test_runs_part_at_a_tie_only_before_the_replays_fork(
    replayed_at: int, run: int, answer: Any, at_a_tie: int,
    script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """A tie that the replay does not count is a place to part; one that it never reached is not."""
    folders = two(tmp_path, replayed_at)
    told = script.replayed(folders[0], "other/decode-1", script.responses(folders[0]))
    told[run] = answer
    monkeypatch.setattr(script, "replayed", lambda *_: told)
    found = script.compared(*folders)
    assert found["alike"] == RUNS - 1
    assert (found["at_a_tie"], found["elsewhere"]) == (at_a_tie, 1 - at_a_tie)
