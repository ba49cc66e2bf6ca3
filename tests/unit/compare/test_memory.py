"""Host memory does not grow with the number of cells."""

from __future__ import annotations

import gc
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from mismatch import store
from mismatch.compare import traces
from mismatch.compare.align import Tokens, read_tokens
from mismatch.compare.compare import compare
from mismatch.model import PairSpec, make_corpus

RNG = np.random.default_rng(0)
CORPUS = make_corpus([(RNG.integers(0, 99, 30), None) for _ in range(3)])


def _folder(root: Path, cells: int) -> Path:
    """A run folder with so many train cells against one infer cell."""
    store.save_corpus(root, CORPUS, {"sampled_by": None})
    for k in range(cells + 1):
        provenance = {"condition": f"c{k}", "corpus": CORPUS.sha, "model": {"digest": "x"}}

        def fill(aside: Path, provenance: dict = provenance) -> None:
            (aside / "provenance.json").write_text(json.dumps(provenance))
            values = [-RNG.exponential(1, len(i)).astype(np.float32) for i in CORPUS.token_ids]
            store.write_trace_tokens(aside / "tokens.parquet", CORPUS, values)

        about = {"kind": "trace", "corpus": CORPUS.sha}
        store.seal(root / "traces" / f"c{k}" / "score-1", fill, about)
    pairs = [
        PairSpec(f"p{k}", "train-train", "score..score", "c0/score-1", f"c{k}/score-1", {})
        for k in range(1, cells + 1)
    ]
    plan = {"schema": store.SCHEMA, "request": {}, "pairs": [asdict(p) for p in pairs]}
    (root / "run.json").write_text(json.dumps(plan))
    return root


@pytest.mark.parametrize("cells", [2, 12])
def test_no_more_than_one_pair_is_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cells: int
) -> None:
    """Comparing lets one pair's traces go before it reads the next's, however many there are."""
    alive = []

    def counting(folder: Path) -> Tokens:
        found = read_tokens(folder)
        gc.collect()
        alive.append(sum(isinstance(thing, Tokens) for thing in gc.get_objects()))
        return found

    monkeypatch.setattr(traces, "read_tokens", counting)
    compare(_folder(tmp_path, cells))
    assert len(alive) == 2 * cells
    assert max(alive) == 2
