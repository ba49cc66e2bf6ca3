"""Two sealed traces of the same ids -> aligned tokens. Anything less is `not comparable`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import store
from mismatch.compare.metrics import Aligned
from mismatch.compare.stats import begins
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

    def each(self, column: np.ndarray) -> list[np.ndarray]:
        """A column sequence by sequence."""
        return np.split(column, begins(self.sequence)[1:])


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
    _same_ids(left, right)
    _same(left, right, "scored positions", left.scored, right.scored)
    keep = left.scored
    return Aligned(
        left.sequence[keep], left.position[keep], left.logprob[keep], right.logprob[keep]
    )


def _same_ids(left: Tokens, right: Tokens) -> None:
    """Else where they part: in a prompt by the template, in a response by tokenisation."""
    one, other = _by_sequence(left), _by_sequence(right)
    if one.keys() != other.keys():
        raise _apart(left, right, f"{len(one)} sequences against {len(other)}")
    unlike = [k for k in one if not np.array_equal(one[k][0], other[k][0])]
    if not unlike:
        return
    first = unlike[0]
    (a, scored), (b, _) = one[first], other[first]
    n = min(len(a), len(b))
    at = int(np.argmax(np.append(a[:n] != b[:n], True)))
    asked = bool(scored[:at].any())
    place = "response" if asked else "prompt"
    cause = (
        "ids were made from text again, or are of another rollout"
        if asked
        else "another chat template, system prompt or BOS"
    )
    raise _apart(
        left,
        right,
        f"the ids of {len(unlike)} of {len(one)} sequences differ, first in the {place} of "
        f"sequence {first} at position {at} ({len(a)} tokens against {len(b)}): {cause}",
    )


def _by_sequence(tokens: Tokens) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """sequence -> its ids and which of them are scored."""
    columns = (tokens.sequence, tokens.token_id, tokens.scored)
    parts = zip(*(tokens.each(column) for column in columns), strict=True)
    return {int(at[0]): (ids, scored) for at, ids, scored in parts if len(at)}


def _same(left: Tokens, right: Tokens, what: str, a: np.ndarray, b: np.ndarray) -> None:
    differ = np.flatnonzero(a != b)
    if len(differ):
        k = differ[0]
        raise _apart(
            left,
            right,
            f"the {what} of row {k} (sequence {left.sequence[k]}, position {left.position[k]}) "
            f"differs, and {len(differ) - 1} more",
        )


def _apart(left: Tokens, right: Tokens, reason: str) -> MismatchError:
    return MismatchError("not-comparable", left=left.name, right=right.name, reason=reason)
