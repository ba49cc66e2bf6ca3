"""Peak host memory does not grow with the number of cells."""

from __future__ import annotations

import json
import tracemalloc
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mismatch import store
from mismatch.compare.compare import compare
from mismatch.model import PairSpec, make_corpus

RNG = np.random.default_rng(0)
CORPUS = make_corpus([(RNG.integers(0, 99, 600), None) for _ in range(20)])


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


def test_twelve_cells_need_no_more_memory_than_two(tmp_path: Path) -> None:
    """Comparing lets one pair's traces go before it reads the next's."""
    peaks = []
    compare(_folder(tmp_path / "warm", 1))  # what is imported and cached once
    for cells in (2, 12):
        root = _folder(tmp_path / str(cells), cells)
        tracemalloc.start()
        compare(root)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.3 * peaks[0], peaks
