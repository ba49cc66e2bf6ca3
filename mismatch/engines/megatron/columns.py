"""The columns of a batch: how many there must be, and which of them a rank has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def multiple(options: Mapping[str, Any]) -> int:
    """What their number must be a multiple of: a rank of sequence parallelism takes one piece, one
    of context parallelism takes two. What is added lies behind every sequence, where causal
    attention cannot see it.
    """
    cp, tp = options.get("cp", 1), options.get("tp", 1)
    pieces = 2 * cp if cp > 1 else 1
    return int(pieces * (tp if options.get("sp") else 1))


def of_ranks(columns: int, ranks: int) -> list[list[int]]:
    """By rank of context parallelism: a piece from the front and one from the back each, so that
    all attend to equally much (megatron's get_batch_on_this_cp_rank).
    """
    size = columns // (2 * ranks)
    pieces = [list(range(k * size, (k + 1) * size)) for k in range(2 * ranks)]
    return [pieces[rank] + pieces[2 * ranks - rank - 1] for rank in range(ranks)]


def back(columns: int, ranks: int) -> list[int]:
    """Where each column lies when what the ranks have is put behind each other."""
    order = [column for own in of_ranks(columns, ranks) for column in own]
    return sorted(range(columns), key=order.__getitem__)
