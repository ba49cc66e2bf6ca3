"""Several ranks: joining and leaving, FSDP2, tensor and context parallelism, and what is seen."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard

from mismatch.engines.dtypes import DTYPES, short
from mismatch.engines.hf.rows import Layout


def device_of(options: Mapping[str, Any]) -> Any:
    """The device of this rank: its own GPU, or the CPU."""
    kind = options.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
    if kind == "cpu" or "LOCAL_RANK" not in os.environ:
        return torch.device(kind)
    return torch.device(kind, int(os.environ["LOCAL_RANK"]))


def join(device: Any) -> Any:
    """Meet the ranks that torchrun started; a mesh of one dimension over all of them."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return dist.device_mesh.init_device_mesh(device.type, (dist.get_world_size(),))


def leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def layers(model: Any) -> list[Any]:
    """The decoder layers, by the class names that the model says must not be split.

    FSDP makes each layer's class a subclass of what it was.
    """
    names = set(model._no_split_modules or ())
    found = [m for m in model.modules() if names & {kind.__name__ for kind in type(m).__mro__}]
    if not found:
        raise ValueError(f"{type(model).__name__} does not name its decoder layers")
    return found


# ---------------------------------------------------------------- FSDP2


def shard(model: Any, mesh: Any, mixed: str | None) -> None:
    """fully_shard every decoder layer and the root, as trainers do.

    A head of another dtype is a unit of its own: FSDP gathers a unit in one dtype.
    """
    policy = MixedPrecisionPolicy(param_dtype=DTYPES[mixed] if mixed else None)
    units = layers(model)
    head = model.get_output_embeddings()
    if head is not None and head.weight.dtype != next(units[0].parameters()).dtype:
        units.append(head)
    for unit in (*units, model):
        fully_shard(unit, mesh=mesh, mp_policy=policy)


def reshard(model: Any) -> None:
    """Let go of gathered weights, so that what is looked at is what is stored."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


# ---------------------------------------------------------------- tensor parallelism


def check_heads(config: Any, ranks: int) -> None:
    """A rank must get whole heads; transformers itself fails later and says less."""
    for name in ("num_attention_heads", "num_key_value_heads"):
        heads = getattr(config.get_text_config(), name, None)
        if heads is not None and heads % ranks:
            raise ValueError(f"tp={ranks} does not divide {name}={heads} of this checkpoint")


# ---------------------------------------------------------------- context parallelism


def without_masks(model: Any) -> None:
    """Ring attention is causal by itself and takes no mask; full attention in every layer only."""
    if not model.supports_context_parallel:
        raise ValueError(f"{type(model).__name__} has layers that ring attention cannot express")

    def drop(_: Any, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, {**kwargs, "attention_mask": None, "is_causal": True}

    for name, module in model.named_modules():
        if name.endswith("self_attn"):
            module.register_forward_pre_hook(drop, with_kwargs=True)


def ring(run: Callable[..., Any], mesh: Any, layout: Layout) -> Any:
    """(rows, columns, vocabulary) logits of a pass whose columns are spread over the mesh.

    Columns are filled up to a multiple of twice the ranks (each takes a piece from the front and
    one from the back); what is added lies behind every sequence, where causal attention cannot see.
    """
    from torch.distributed.tensor import experimental
    from torch.distributed.tensor.experimental._attention import context_parallel_unshard

    columns = layout.ids.shape[1]
    more = -columns % (2 * mesh.size())
    ids = torch.nn.functional.pad(layout.ids, (0, more))
    positions = torch.arange(columns + more, device=ids.device).repeat(len(ids), 1)
    buffers = [ids, positions]
    with experimental.context_parallel(
        mesh, buffers=buffers, buffer_seq_dims=[1, 1], no_restore_buffers=set(buffers)
    ):
        logits = run(ids, position_ids=positions).logits
    (whole,) = context_parallel_unshard(mesh, [logits], [1])
    return whole[:, :columns]


# ---------------------------------------------------------------- seen


def observed(model: Any, ring_mesh: Any) -> dict[str, Any]:
    """Ranks that share the model or the sequence, read off its modules and its parameters."""
    units = [m for m in model.modules() if isinstance(m, FSDPModule)]
    spread = {p.device_mesh.size() for p in _split(model)}
    found: dict[str, Any] = {"tp": 1}
    if units and model in units and set(layers(model)) <= set(units):
        found["fsdp"] = max(spread, default=1)
    elif spread:
        found["tp"] = max(spread)
    if ring_mesh is not None:
        found["cp"] = ring_mesh.size()
    return found


def _split(model: Any) -> Iterator[Any]:
    """Parameters of which this rank holds a part."""
    for parameter in model.parameters():
        placements = getattr(parameter, "placements", ())
        if any(placement.is_shard() for placement in placements):
            yield parameter


def weight_dtype(model: Any, but_head: bool = False) -> str:
    """The dtypes of the stored parameters, joined by +. but_head: leave a head of its own out."""
    head = model.get_output_embeddings() if but_head else None
    left_out = set() if head is None else {id(p) for p in head.parameters()}
    dtypes = {short(p.dtype) for p in model.parameters() if id(p) not in left_out}
    return "+".join(sorted(dtypes))
