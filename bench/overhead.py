"""What the instrument costs: CPU seconds of a capture over those of the bare engine call.

Bare call and capture alternate in one loaded engine (bench/inside.py), so that both meet the same
machine. A capture's cost is the guest's CPU time, from its ids to its facts, plus its share of all
CPU time of the host that staged, watched, checked and sealed. The first pair of each path warms the
kernels and is not counted; of the five that follow: median and range.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from mismatch import wire
from mismatch.capture import checkpoint, environment, launch, plan
from mismatch.capture import run as captures
from mismatch.engines import find, parse_condition
from mismatch.model import Capture, Corpus, Task, make_corpus

ROOT = Path(__file__).parents[1]
MODEL = ROOT / "mismatch" / "shipped" / "llama-gsm-0.8m"
PAIRS, SEQUENCES, LENGTH, PROMPT = 5, 96, 480, 40
LIMIT = 1.10
CASES = {
    "vllm": ("vllm:dtype=bf16,eager=true", ("decode", "prefill")),
    "hf": ("hf:dtype=bf16,attention=sdpa", ("score",)),
}


def corpus() -> Corpus:
    """96 sequences of 480 ids, all but the first 40 scored: 42 240 tokens."""
    rng = np.random.default_rng(0)
    mask = np.arange(LENGTH) >= PROMPT
    return make_corpus([(rng.integers(1, 1024, LENGTH), mask) for _ in range(SEQUENCES)])


def order(engine: str, sequences: Corpus) -> captures.Order:
    """A warming capture and five more of each path."""
    spec, paths = CASES[engine]
    condition = parse_condition(spec)
    size = plan.batch_size(find(engine), condition)
    groups = plan.batch_groups(range(len(sequences)), size)
    wanted = [
        Task(condition, Capture(f"{p}-{k}", p, groups)) for k in range(PAIRS + 1) for p in paths
    ]
    return captures.Order(
        engine=find(engine),
        load=find(engine).load_of(condition),
        tasks=tuple(wanted),
        checkpoint=checkpoint.inspect(MODEL),
        corpus=sequences,
        corpus_source="bench",
    )


def measure(engine: str, sequences: Corpus, staging: Path) -> dict[str, list[tuple[float, float]]]:
    """path -> (bare, capture with its share of the host) CPU seconds of each counted pair."""
    work = order(engine, sequences)
    python, _ = environment.interpreter(work.engine, work.load)
    before = time.process_time()
    captures._stage(staging, work, list(work.tasks))
    _watch(staging, work, python)
    origin = captures._origin(staging, work, python, datetime.now(UTC))
    todo = list(work.tasks)
    done = captures._seal_finished(staging / "out", staging, work, todo, origin)
    assert len(done) == len(todo), "a capture did not finish"
    host = (time.process_time() - before) / len(todo)
    results = wire.read_json(staging / "results.json")
    return {p: [(a, b + host) for a, b in pairs[1:]] for p, pairs in results.items()}


def _watch(staging: Path, work: captures.Order, python: Path) -> None:
    guest = launch.stage_guest(staging, work.engine.name)
    more = work.engine.environment(work.load)
    environ = launch._environment(guest, more)
    environ["PYTHONPATH"] += os.pathsep + str(ROOT / "bench")
    with (staging / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [str(python), "-P", "-m", "inside", str(staging)], env=environ, stdout=log, stderr=log
        )
        failure = launch._watch(staging, process, 900.0, lambda event: None)
    assert failure is None, f"{failure}\n{launch.log_tail(staging)}"


def main() -> None:
    sequences = corpus()
    print(
        f"overhead: CPU of capture / CPU of the bare call, {sequences.scored_tokens} tokens, "
        f"{PAIRS} pairs (limit {LIMIT})"
    )
    for engine in CASES:
        with tempfile.TemporaryDirectory() as folder:
            measured = measure(engine, sequences, Path(folder))
        for path, pairs in measured.items():
            ratios = sorted(b / a for a, b in pairs)
            print(
                f"  {engine} {path}: median {statistics.median(ratios):.3f}, range "
                f"{ratios[0]:.3f}..{ratios[-1]:.3f} "
                f"(bare {statistics.median(a for a, _ in pairs):.2f} s)"
            )


if __name__ == "__main__":
    main()
