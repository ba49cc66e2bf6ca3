"""The weights that vllm multiplies with, unfused, by the checkpoint's names; runs in a rank.

On a CPU vllm packs a linear layer's weight for its kernel: the packed copy is what runs, whatever
stands in the parameter beside it. It is read by a product with the identity, which is exact.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from vllm.model_executor.layers.linear import LinearBase  # type: ignore[import-not-found]
from vllm.model_executor.layers.vocab_parallel_embedding import (  # type: ignore[import-not-found]
    ParallelLMHead,
    VocabParallelEmbedding,
)

from mismatch.engines.weights import digests

#: A fused matrix's parts, in order, by the names a checkpoint gives them.
PARTS = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
#: vllm's stacked experts, by the names transformers gives them.
EXPERTS = {"w13_weight": "gate_up_proj", "w2_weight": "down_proj"}


def read(model: Any, ranks: int) -> dict[str, Any]:
    """The fact `weights`: digests of the tensors, and why others could not be read."""
    if ranks > 1:
        return {"tensors": {}, "unread": {"all": f"they are split over {ranks} ranks"}}
    unread: dict[str, str] = {}
    return {"tensors": digests(_named(model, unread)), "unread": unread}


def _named(model: Any, unread: dict[str, str]) -> Iterator[tuple[str, Any]]:
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            whole = f"{prefix}.{name}" if prefix else name
            if name in EXPERTS:
                at = f"{prefix.removesuffix('.routed_experts')}.{EXPERTS[name]}"
                if parameter.device.type == "cpu":
                    unread[at] = "experts are packed for the CPU's kernel"
                else:
                    yield at, parameter
            elif isinstance(module, LinearBase):
                weight = live(module, parameter) if name == "weight" else parameter
                yield from _unfused(prefix, name, module, weight)
            elif isinstance(module, VocabParallelEmbedding):
                head = isinstance(module, ParallelLMHead) and name == "weight"
                weight = live(module, parameter) if head else parameter
                yield whole, weight[: module.org_vocab_size]
            else:
                yield whole, parameter


def live(layer: Any, parameter: Any) -> torch.Tensor:
    """(out, in) the weight that the layer's kernel multiplies with."""
    if parameter.device.type != "cpu":
        return torch.as_tensor(parameter)
    size = getattr(layer, "input_size_per_partition", getattr(layer, "embedding_dim", 0))
    identity = torch.eye(size, dtype=parameter.dtype)
    product: torch.Tensor = layer.quant_method.apply(layer, identity)
    return product.T


def _unfused(prefix: str, name: str, module: Any, weight: Any) -> Iterator[tuple[str, Any]]:
    above, _, last = prefix.rpartition(".")
    parts = PARTS.get(last, (last,))
    sizes = module.output_partition_sizes if len(parts) > 1 else [weight.shape[0]]
    for part, rows in zip(parts, weight.split(sizes), strict=True):
        yield f"{above}.{part}.{name}", rows
