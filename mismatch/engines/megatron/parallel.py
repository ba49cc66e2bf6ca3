"""The ranks: joining and leaving them, and what a machine without a GPU must be told."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from megatron.core import parallel_state  # type: ignore[import-not-found]
from megatron.core.tensor_parallel import random  # type: ignore[import-not-found]

from mismatch.engines.megatron import arguments, columns


def device() -> torch.device:
    """The device of this rank: its own GPU, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def patch(place: torch.device) -> list[str]:
    """Two patches that let megatron run without a GPU, by name; none where there is one.

    megatron allocates on torch.cuda.current_device(), and forks a random generator of a GPU's
    around dropout, which is 0 here.
    """
    if place.type == "cuda":
        return []
    torch.cuda.current_device = lambda: place
    tracker = random.get_cuda_rng_tracker()
    tracker.fork = lambda *_, **__: contextlib.nullcontext()
    return ["torch.cuda.current_device", "get_cuda_rng_tracker().fork"]


def join(options: Mapping[str, Any], place: torch.device) -> None:
    """Meet the ranks that torchrun started (one process is a group of its own)."""
    if place.type == "cuda":
        torch.cuda.set_device(place)
    backend = "nccl" if place.type == "cuda" else "gloo"
    if "RANK" in os.environ:
        dist.init_process_group(backend)
    else:
        dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    parallel_state.initialize_model_parallel(**arguments.parallel_state(options))
    if place.type == "cuda":
        random.model_parallel_cuda_manual_seed(0)  # draws nothing here; its states must exist


def leave() -> None:
    if dist.is_initialized():
        parallel_state.destroy_model_parallel()
        dist.destroy_process_group()


def observed() -> dict[str, int]:
    """Ranks of each kind, as megatron's groups have them."""
    return {
        "tp": parallel_state.get_tensor_model_parallel_world_size(),
        "pp": parallel_state.get_pipeline_model_parallel_world_size(),
        "cp": parallel_state.get_context_parallel_world_size(),
        "ep": parallel_state.get_expert_model_parallel_world_size(),
    }


# ---------------------------------------------------------------- context parallelism


def own_columns(ids: torch.Tensor) -> torch.Tensor:
    """(rows, columns) -> the columns of this rank of context parallelism."""
    ranks = parallel_state.get_context_parallel_world_size()
    if ranks == 1:
        return ids
    mine = columns.of_ranks(ids.shape[1], ranks)[parallel_state.get_context_parallel_rank()]
    return ids[:, torch.tensor(mine, device=ids.device)]


def all_columns(logits: torch.Tensor) -> torch.Tensor:
    """(rows, own columns, vocabulary) of each rank of context parallelism -> all, in order."""
    ranks = parallel_state.get_context_parallel_world_size()
    if ranks == 1:
        return logits
    parts = [torch.empty_like(logits) for _ in range(ranks)]
    dist.all_gather(parts, logits.contiguous(), group=parallel_state.get_context_parallel_group())
    whole = torch.cat(parts, dim=1)
    return whole[:, torch.tensor(columns.back(whole.shape[1], ranks), device=whole.device)]


# ---------------------------------------------------------------- pipeline stages


def receive(shape: tuple[int, ...], dtype: torch.dtype, place: torch.device) -> torch.Tensor:
    """Hidden states of the stage before this one."""
    hidden = torch.empty(shape, dtype=dtype, device=place)
    dist.recv(hidden, parallel_state.get_pipeline_model_parallel_prev_rank())
    return hidden


def send(hidden: torch.Tensor) -> None:
    dist.send(hidden.contiguous(), parallel_state.get_pipeline_model_parallel_next_rank())


def from_last_stage(
    logits: torch.Tensor | None, shape: tuple[int, ...], dtype: torch.dtype, place: torch.device
) -> torch.Tensor:
    """What the last stage has, on every stage: rank 0 writes, and is in the first one."""
    whole = torch.empty(shape, dtype=dtype, device=place) if logits is None else logits
    last = parallel_state.get_pipeline_model_parallel_last_rank()
    dist.broadcast(whole, last, group=parallel_state.get_pipeline_model_parallel_group())
    return whole
