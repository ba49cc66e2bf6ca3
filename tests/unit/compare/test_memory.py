"""What comparing holds in memory does not grow with the number of cells."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mismatch.compare import traces
from mismatch.compare.align import Tokens
from mismatch.compare.compare import compare
from mismatch.compare.metrics import Aligned
from mismatch.model import PairSpec, make_corpus
from tests.unit.compare.folders import run_folder

CELLS = 5
CORPUS = make_corpus([(np.arange(9), None) for _ in range(3)])


def _alive() -> int:
    """Columns of whole traces, and of pairs of them, that something still refers to."""
    return sum(isinstance(thing, Tokens | Aligned) for thing in gc.get_objects())


def test_a_pairs_traces_are_let_go_before_the_next_ones_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whenever a trace is read, no more than the other one of its pair is in memory."""
    ids = [f"c{k}/score-1" for k in range(CELLS + 1)]
    pairs = [
        PairSpec(f"p{k}", "train-train", "score..score", ids[0], right, {})
        for k, right in enumerate(ids[1:])
    ]
    root = run_folder(tmp_path, CORPUS, {trace: {} for trace in ids}, pairs)
    seen: list[int] = []
    read = traces.read_tokens

    def counted(folder: Path) -> Any:
        seen.append(_alive())
        return read(folder)

    monkeypatch.setattr(traces, "read_tokens", counted)
    gc.collect()  # what earlier tests left
    before = _alive()
    compare(root)
    assert [count - before for count in seen] == [0, 1] * CELLS
