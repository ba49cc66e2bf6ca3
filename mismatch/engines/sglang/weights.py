"""The weights of a sglang model by the checkpoint's names; runs in a rank."""

from __future__ import annotations

from typing import Any

import torch
from sglang.srt.layers.linear import LinearBase  # type: ignore[import-not-found]
from sglang.srt.layers.vocab_parallel_embedding import (  # type: ignore[import-not-found]
    VocabParallelEmbedding,
)

from mismatch.engines.weights import shown, unfused


def read(model: Any, ranks: int) -> dict[str, Any]:
    """The fact `weights`: digests of the tensors, and why others could not be read."""
    unread: dict[str, str] = {}
    found = unfused(model, LinearBase, VocabParallelEmbedding, live, unread)
    return shown(found, unread, ranks)


def live(layer: Any, parameter: Any) -> torch.Tensor | str:
    """The parameter, where no kernel has packed it."""
    if getattr(layer, "use_intel_amx_backend", False):
        return "it is packed for the CPU's kernel"
    return torch.as_tensor(parameter)
