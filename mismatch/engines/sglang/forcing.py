"""Which id a forced request must emit next. No sglang is imported."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

#: A forced request's parameter: its whole sequence of ids.
FORCE = "mismatch_sequence"


def wanted_ids(parameters: Sequence[Any], positions: Sequence[int]) -> tuple[list[int], list[int]]:
    """Rows of the batch and the id each must emit now: the one after its position. Past the end
    nothing is forced; that token is never kept.
    """
    rows, ids = [], []
    for row, given in enumerate(parameters):
        sequence = (given or {}).get(FORCE, ())
        if positions[row] + 1 < len(sequence):
            rows.append(row)
            ids.append(sequence[positions[row] + 1])
    return rows, ids
