"""The weights that vllm multiplies with, by the checkpoint's names; runs in a rank.

On a CPU vllm packs a linear layer's weight for its kernel: the packed copy is what runs, whatever
stands in the parameter beside it. It is read by a product with the identity, which is exact.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from vllm.model_executor.layers.linear import LinearBase  # type: ignore[import-not-found]
from vllm.model_executor.layers.vocab_parallel_embedding import (  # type: ignore[import-not-found]
    ParallelLMHead,
    VocabParallelEmbedding,
)

from mismatch.engines.weights import EXPERTS, shown, unfused


def read(model: Any, ranks: int) -> dict[str, Any]:
    """The fact `weights`: digests of the tensors, and why others could not be read."""
    unread: dict[str, str] = {}
    return shown(unfused(model, LinearBase, VocabParallelEmbedding, live, unread), unread, ranks)


def live(layer: Any, parameter: Any) -> torch.Tensor | str:
    """The weight that the layer's kernel multiplies with, or why it cannot be read."""
    on_cpu = parameter.device.type == "cpu"
    if on_cpu and any(name in layer._parameters for name in EXPERTS):
        return "experts are packed for the CPU's kernel"
    if not on_cpu or not isinstance(layer, (LinearBase, ParallelLMHead)):
        return torch.as_tensor(parameter)
    names = ("input_size_per_partition", "input_size", "embedding_dim")  # a router's has no parts
    size = next(getattr(layer, name) for name in names if hasattr(layer, name))
    return by_product(layer, layer.quant_method.apply, size, parameter)


def by_product(layer: Any, apply: Callable[..., Any], size: int, parameter: Any) -> torch.Tensor:
    """(out, size) what `apply`, the layer's product, multiplies with: of the identity."""
    identity = torch.eye(size, dtype=parameter.dtype, device=parameter.device)
    product: torch.Tensor = apply(layer, identity)
    return product.T.contiguous()
