"""How sequences lie in the rows of one forward pass: alone, padded, packed, or ready to decode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch


@dataclass(frozen=True)
class Layout:
    """Sequences in rows.

    ids: (rows, columns) int64. mask, positions: the same shape, None where the model's own default
    is right. places: row and first column of each sequence. padding: the side that a shorter
    sequence is padded on, None where a row is a sequence as it stands. packed: several sequences
    may share a row.
    """

    ids: torch.Tensor
    mask: torch.Tensor | None
    positions: torch.Tensor | None
    places: list[tuple[int, int]]
    lengths: list[int]
    padding: str | None = None
    packed: bool = False

    @property
    def inputs(self) -> dict[str, torch.Tensor]:
        """The model's keyword arguments beside the ids."""
        given = {"attention_mask": self.mask, "position_ids": self.positions}
        return {name: tensor for name, tensor in given.items() if tensor is not None}

    def sequence(self, number: int) -> torch.Tensor:
        """The ids of one sequence."""
        (row, start), n = self.places[number], self.lengths[number]
        return self.ids[row, start : start + n]

    def on(self, device: Any) -> Layout:
        """The same layout with its tensors on a device."""
        tensors = (self.ids, self.mask, self.positions)
        ids, mask, positions = (None if t is None else t.to(device) for t in tensors)
        return replace(self, ids=ids, mask=mask, positions=positions)

    def told(self, number: int, column: int, width: int) -> tuple[int, int]:
        """Which of `width` columns from `column` on predict a token of this sequence: [low, high).

        A column predicts the token in the next one, so a sequence's last column tells nothing.
        """
        start = self.places[number][1]
        end = start + self.lengths[number] - 1
        return max(start, column), min(end, column + width)


def lay_out(sequences: Sequence[np.ndarray], side: str | None, packing: bool) -> Layout:
    """As the request asks; one sequence of a request without packing is a row as it stands."""
    if packing:
        return packed(sequences)
    if len(sequences) == 1:
        return Layout(_long(sequences[0])[None], None, None, [(0, 0)], [len(sequences[0])])
    longest = max(map(len, sequences))
    left = side == "left"
    starts = [longest - len(s) if left else 0 for s in sequences]
    return _filled(sequences, starts, longest, "left" if left else "right")


def packed(sequences: Sequence[np.ndarray]) -> Layout:
    """One row, positions from 0 in each sequence, and no mask: transformers reads the borders off
    the positions (masks for eager, sdpa and flex_attention, lengths for flash attention).
    """
    lengths = [len(s) for s in sequences]
    starts = np.cumsum([0, *lengths])[:-1].tolist()
    positions = np.concatenate([np.arange(n) for n in lengths])
    ids = _long(np.concatenate(sequences))
    places = [(0, start) for start in starts]
    return Layout(ids[None], None, _long(positions)[None], places, lengths, packed=True)


def aligned(sequences: Sequence[np.ndarray], first: Sequence[int]) -> Layout:
    """Rows whose first scored tokens share a column: prompts padded left, ends padded right."""
    if len(sequences) == 1:
        return lay_out(sequences, None, False)
    widest = max(first)
    starts = [widest - f for f in first]
    columns = max(start + len(s) for start, s in zip(starts, sequences, strict=True))
    return _filled(sequences, starts, columns, "left")


def _filled(
    sequences: Sequence[np.ndarray], starts: Sequence[int], columns: int, side: str
) -> Layout:
    ids = torch.zeros((len(sequences), columns), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, (sequence, start) in enumerate(zip(sequences, starts, strict=True)):
        ids[row, start : start + len(sequence)] = _long(sequence)
        mask[row, start : start + len(sequence)] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    places = list(enumerate(starts))
    return Layout(ids, mask, positions, places, [len(s) for s in sequences], side)


def _long(values: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(values, dtype=torch.long)
