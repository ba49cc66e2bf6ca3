"""What the instrument costs: CPU seconds of a capture over those of the bare engine call.

The bare call makes the same log-probability request of the same engine and throws the answer away
(bench/bare.py, in the engine's interpreter). The capture is the guest's CPU time from its first
call to the facts, plus all CPU time of the host that planned, watched, checked and sealed it. Each
side's first pass warms the kernels and is not counted. Five interleaved pairs; median and range.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import wire
from mismatch.capture import checkpoint, environment, plan
from mismatch.capture import run as captures
from mismatch.engines import find, parse_condition
from mismatch.model import Corpus, make_corpus, side_of

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "mismatch" / "shipped" / "llama-gsm-0.8m"
PAIRS, SEQUENCES, LENGTH, PROMPT = 5, 48, 480, 40
CASES = {
    "vllm": ("vllm:dtype=bf16,eager=true", ("decode", "prefill")),
    "hf": ("hf:dtype=bf16,attention=sdpa", ("score",)),
}


def corpus() -> Corpus:
    """48 sequences of 480 ids, all but the first 40 scored: over 20 000 tokens."""
    rng = np.random.default_rng(0)
    mask = np.arange(LENGTH) >= PROMPT
    return make_corpus([(rng.integers(1, 1024, LENGTH), mask) for _ in range(SEQUENCES)])


def bare(engine: str, ids: Path) -> dict[str, float]:
    """CPU seconds of each path's second bare call."""
    python = environment.interpreter(find(engine), parse_condition(CASES[engine][0]))
    more = find(engine).environment(parse_condition(CASES[engine][0]))
    done = subprocess.run(
        [str(python), str(ROOT / "bench" / "bare.py"), engine, str(MODEL), str(ids)],
        env={**__import__("os").environ, **more, "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    result: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def captured(engine: str, sequences: Corpus) -> dict[str, float]:
    """CPU seconds of each path's second capture: guest and host."""
    spec, paths = CASES[engine]
    condition = parse_condition(spec)
    order = captures.Order(
        side=side_of(paths[0]),
        engine=find(engine),
        condition=condition,
        captures=tuple(plan.captures(find(engine), condition, paths, 2, "none", len(sequences))),
        checkpoint=checkpoint.inspect(MODEL),
        corpus=sequences,
        corpus_source="bench",
    )
    events: list[dict[str, Any]] = []
    before = time.process_time()
    with tempfile.TemporaryDirectory() as out:
        captures.take(Path(out), order, events.append)
        assert not list(Path(out).glob("failed/*/*")), "a capture failed"
    host = (time.process_time() - before) / len(order.captures)
    return {p: _guest(events, f"{p}-2") + host for p in paths}


def _guest(events: list[dict[str, Any]], capture: str) -> float:
    own = [e["cpu_s"] for e in events if e.get("capture") == capture]
    return float(own[-1] - own[0])


def main() -> None:
    sequences = corpus()
    rows: dict[str, list[tuple[float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        ids = Path(folder) / "corpus.npz"
        wire.save_sequences(ids, sequences.token_ids, sequences.scored)
        for number in range(PAIRS):
            for engine in CASES:
                plain, ours = bare(engine, ids), captured(engine, sequences)
                for path, seconds in plain.items():
                    rows.setdefault(f"{engine} {path}", []).append((seconds, ours[path]))
            print(f"pair {number + 1} of {PAIRS} done", file=sys.stderr)
    print(f"overhead: CPU of capture / CPU of the bare call, {sequences.scored_tokens} tokens")
    for name, pairs in rows.items():
        ratios = sorted(b / a for a, b in pairs)
        seconds = statistics.median(a for a, _ in pairs)
        print(
            f"  {name:13} median {statistics.median(ratios):.3f} "
            f"range {ratios[0]:.3f}..{ratios[-1]:.3f}  (bare {seconds:.2f} s)"
        )


if __name__ == "__main__":
    main()
