"""Two sealed traces of the same ids -> aligned tokens. Anything less is `not comparable`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import store
from mismatch.compare.metrics import Aligned
from mismatch.errors import MismatchError

#: Of every trace's tokens.parquet.
COLUMNS = ("sequence_id", "position", "token_id", "logprob")


@dataclass(frozen=True, slots=True)
class Tokens:
    """A trace's tokens.parquet as columns, one row for each position of each sequence.

    logprob: float32 nats, meaningless where `scored` is false, NaN where the engine said NaN.
    beside: more such columns, where they were captured: entropy (nats), kept_mass.
    """

    name: str
    sequence: np.ndarray
    position: np.ndarray
    token_id: np.ndarray
    logprob: np.ndarray
    scored: np.ndarray
    beside: dict[str, np.ndarray]


def read_tokens(folder: Path) -> Tokens:
    """A verified trace's tokens."""
    store.verified(folder, "trace")
    table = store.read_table(folder / "tokens.parquet")
    column = table["logprob"].combine_chunks()
    beside = [n for n in table.column_names if n not in COLUMNS]
    return Tokens(
        f"{folder.parent.name}/{folder.name}",
        table["sequence_id"].to_numpy(),
        table["position"].to_numpy(),
        table["token_id"].to_numpy(),
        _filled(column),
        ~column.is_null().to_numpy(zero_copy_only=False),
        {n: _filled(table[n].combine_chunks()) for n in beside},
    )


def _filled(column: Any) -> np.ndarray:
    return np.asarray(column.fill_null(0.0).to_numpy(zero_copy_only=False))


def align(left: Tokens, right: Tokens) -> Aligned:
    """Scored tokens of both, in order; different ids or different masks are an error."""
    for name in ("sequence", "position", "token_id"):
        _same(left, right, name, getattr(left, name), getattr(right, name))
    _same(left, right, "scored positions", left.scored, right.scored)
    keep = left.scored
    return Aligned(
        left.sequence[keep], left.position[keep], left.logprob[keep], right.logprob[keep]
    )


def _same(left: Tokens, right: Tokens, what: str, a: np.ndarray, b: np.ndarray) -> None:
    if len(a) != len(b):
        reason = f"{len(a)} tokens against {len(b)}"
    else:
        differ = np.flatnonzero(a != b)
        if not len(differ):
            return
        k = differ[0]
        reason = (
            f"the {what.replace('_', ' ')} of row {k} (sequence {left.sequence[k]}, position "
            f"{left.position[k]}) differs, and {len(differ) - 1} more"
        )
    raise MismatchError("not-comparable", left=left.name, right=right.name, reason=reason)
