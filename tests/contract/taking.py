"""How the contract tests take captures: one order, and no failure."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mismatch.capture import checkpoint
from mismatch.capture import run as captures
from mismatch.engines.base import Engine
from mismatch.model import Condition, Corpus, Sampling, Task


def order_of(
    engine: Engine,
    condition: Condition,
    tasks: Iterable[Task],
    model: Path,
    corpus: Corpus | None,
    prompts: list[dict[str, Any]],
    longest: int,
) -> captures.Order:
    """Tasks of the condition's load; without a corpus its rollouts are at most `longest` tokens."""
    return captures.Order(
        engine=engine,
        load=engine.load_of(condition),
        tasks=tuple(tasks),
        checkpoint=checkpoint.inspect(model),
        corpus=corpus,
        corpus_source="contract",
        prompts=prompts,
        sampling=Sampling(samples=1, max_tokens=longest, seed=5) if corpus is None else None,
    )


def take(root: Path, order: captures.Order) -> Corpus:
    """The ids that were replayed; what failed is shown as it was stored."""
    got = captures.take(root, order, lambda event: None)
    errors = [p.read_text() for p in root.glob("failed/*/*/*")]
    assert got is not None and not errors, "\n".join(errors)
    return got
