"""Seal, compare and report one million tokens: seconds and peak memory of the core alone.

Two sides, each with a capture for the batch floor, as a run leaves them: four traces.
"""

from __future__ import annotations

import resource
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mismatch import report, store
from mismatch.capture.run import seal_recorded_trace
from mismatch.compare.compare import compare
from mismatch.model import Corpus, PairSpec, make_corpus

SEQUENCES, LENGTH, PROMPT = 2000, 600, 100
LIMIT_S, LIMIT_GB = 10.0, 1.0
NAMES = ("a/score-1", "a/score-batch", "b/decode-1", "b/decode-batch")


def synthetic() -> tuple[Corpus, dict[str, list[np.ndarray]]]:
    """A million scored tokens with a heavy-tailed gap of about bf16's size."""
    rng = np.random.default_rng(0)
    mask = np.arange(LENGTH) >= PROMPT
    corpus = make_corpus([(rng.integers(0, 50_000, LENGTH), mask) for _ in range(SEQUENCES)])
    base = -rng.exponential(0.7, (SEQUENCES, LENGTH))
    noise = {n: rng.standard_t(4, base.shape) * 0.02 * np.sqrt(-base) for n in NAMES}
    return corpus, {n: list(np.minimum(base + d, 0).astype(np.float32)) for n, d in noise.items()}


def main() -> None:
    corpus, values = synthetic()
    floors = {"batch": {"train": (NAMES[1],), "infer": (NAMES[3],)}}
    spec = PairSpec("a~b.decode", "train-infer", "decode", NAMES[0], NAMES[2], floors)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        start = time.perf_counter()
        plan = {"schema": store.SCHEMA, "request": {"verb": "bench"}, "pairs": [asdict(spec)]}
        store.write_text(root / "run.json", store.dump_json(plan))
        store.save_corpus(root, corpus, {"sampled_by": None})
        for name in NAMES:
            seal_recorded_trace(root, name, corpus, values[name], "bench", {})
        sealed = time.perf_counter()
        summary = compare(root)
        compared = time.perf_counter()
        report.build(root)
        end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    print(
        f"million: {summary['pairs'][0]['tokens']} tokens; seal {sealed - start:.2f} s, compare "
        f"{compared - sealed:.2f} s, report {end - compared:.2f} s, total {end - start:.2f} s "
        f"(limit {LIMIT_S:g}); peak {peak:.2f} GB (limit {LIMIT_GB:g})"
    )


if __name__ == "__main__":
    main()
