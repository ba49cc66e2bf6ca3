"""Run folders with sealed traces that no engine made."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import store
from mismatch.model import Corpus, PairSpec

SCRIPTS = Path(__file__).parents[3] / "scripts"
#: Trace id -> (n, K) ids of each sequence, the likeliest first.
Tops = Mapping[str, Sequence[np.ndarray]]


def run_folder(
    root: Path,
    corpus: Corpus,
    facts: Mapping[str, Any],
    pairs: Sequence[PairSpec],
    sampled_by: Mapping[str, Any] | None = None,
    tops: Tops | None = None,
) -> Path:
    """facts: trace id -> its facts; the values of each trace are drawn anew."""
    store.save_corpus(root, corpus, {"sampled_by": sampled_by})
    for seed, (trace, found) in enumerate(facts.items()):
        provenance = {
            "condition": trace.split("/")[0],
            "corpus": corpus.sha,
            "model": {"digest": "x"},
            "facts": found,
        }
        top = (tops or {}).get(trace)
        _seal(root, trace, corpus, provenance, np.random.default_rng(seed), top)
    plan = {"schema": store.SCHEMA, "request": {}, "pairs": [asdict(p) for p in pairs]}
    (root / "run.json").write_text(json.dumps(plan))
    return root


def _seal(
    root: Path,
    trace: str,
    corpus: Corpus,
    provenance: dict,
    rng: np.random.Generator,
    top: Sequence[np.ndarray] | None,
) -> None:
    values = [-rng.exponential(1, len(ids)).astype(np.float32) for ids in corpus.token_ids]

    def fill(aside: Path) -> None:
        (aside / "provenance.json").write_text(json.dumps(provenance))
        store.write_trace_tokens(aside / "tokens.parquet", corpus, values)
        if top is not None:
            logprobs = [np.tile(-1.0 - np.arange(t.shape[1], dtype="f4"), (len(t), 1)) for t in top]
            store.write_topk(aside / "topk.parquet", corpus, top, logprobs)

    store.seal(store.trace_folder(root, trace), fill, {"kind": "trace", "corpus": corpus.sha})


def load_script(name: str) -> Any:
    """scripts/NAME.py as a module."""
    spec = importlib.util.spec_from_file_location(name, SCRIPTS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
