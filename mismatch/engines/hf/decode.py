"""Token by token with a KV cache, from the first scored token on: the prompt prefilled first."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import transformers  # type: ignore[import-not-found]

from mismatch.engines.hf.rows import Layout


def steps(forward: Any, layout: Layout, first: int, kind: str) -> Iterator[tuple[int, Any]]:
    """(column, logits of that one column) from column first - 1, the prompt's last, on.

    Ids are forced: each step is fed the token that the sequence has there.
    """
    columns = layout.ids.shape[1]
    if first >= columns:
        return  # nothing is scored
    cache = _new(kind, forward.model.config, columns)
    start = 0
    for end in range(first, columns):  # [start, end) is fed
        out = forward.run(
            layout.ids[:, start:end], past_key_values=cache, use_cache=True, logits_to_keep=1,
            **_inputs(layout, start, end),
        )  # fmt: skip
        yield end - 1, out.logits
        start = end


def _inputs(layout: Layout, start: int, end: int) -> dict[str, torch.Tensor]:
    """The mask of everything so far, the positions of what is fed."""
    if layout.mask is None or layout.positions is None:
        return {}
    return {
        "attention_mask": layout.mask[:, :end],
        "position_ids": layout.positions[:, start:end],
    }


def _new(kind: str, config: Any, columns: int) -> Any:
    if kind == "static":
        return transformers.StaticCache(config=config, max_cache_len=columns)
    return transformers.DynamicCache(config=config)


def kind(cache: Any) -> str:
    """The option's name of a cache that a forward pass handed back."""
    names = {"NoneType": "none", "DynamicCache": "dynamic", "StaticCache": "static"}
    return names.get(type(cache).__name__, type(cache).__name__)
