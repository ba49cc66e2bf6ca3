"""Send rollouts down both roads: ask the checkpoint's tokenizer, and say what came back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mismatch.capture.roundtrip import Tokenizer
from mismatch.retokenize import drift
from mismatch.retokenize.drift import Drift, Read
from mismatch.retokenize.messages import fill
from mismatch.retokenize.rollouts import Rollout


@dataclass(frozen=True, slots=True)
class Travelled:
    """The rollouts, and what each road made of them; None where a road could not be taken."""

    rollouts: tuple[Rollout, ...]
    reads: tuple[Read, ...]
    roads: Mapping[str, tuple[Drift | None, ...]]
    about: Mapping[str, Any]


def travel(rows: tuple[Rollout, ...], tokenizer: Tokenizer) -> Travelled:
    """Both roads of every rollout. Every answer comes from the checkpoint's own tokenizer."""
    decoding = [{"ids": r.ids.tolist(), "runs": r.runs, "where": f"row {n}"} for n, r in
                enumerate(rows, 1)]  # fmt: skip
    answers, about = tokenizer.ask(decoding)
    special = frozenset(about["special_ids"])
    reads = tuple(drift.read(r, a, special) for r, a in zip(rows, answers, strict=True))
    conversations = [
        _conversation(n, *pair) for n, pair in enumerate(zip(rows, reads, strict=True), 1)
    ]
    rendering = [c for c in conversations if c is not None]
    rendered = iter(tokenizer.ask(rendering)[0] if rendering else [])
    return Travelled(
        rows,
        reads,
        {
            "text": tuple(
                drift.by_text(row, read, answer["again"])
                for row, read, answer in zip(rows, reads, answers, strict=True)
            ),
            "template": tuple(
                None if c is None else drift.by_template(row, read, next(rendered), special)
                for row, read, c in zip(rows, reads, conversations, strict=True)
            ),
        },
        about,
    )


def _conversation(number: int, row: Rollout, read: Read) -> dict[str, Any] | None:
    """What the template is asked to render; None for a row without messages."""
    if row.messages is None:
        return None
    messages = fill(row.messages, read.turns)
    return {"messages": messages, "tools": row.tools, "prompt": False, "where": f"row {number}"}
