"""What was observed: read from the live engine, its modules, scheduler and sampler, in every rank.

Never from the job: sealing compares these with what was asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from mismatch.engines import observe
from mismatch.engines.vllm.arguments import DTYPES
from mismatch.engines.vllm.requests import Asked

SHORT = {value: key for key, value in DTYPES.items()}


def rank_facts(worker: Any) -> dict[str, Any]:
    """What one rank's process shows; runs there."""
    from vllm.distributed.parallel_state import (  # type: ignore[import-not-found]
        get_pp_group,
        get_tp_group,
    )

    runner, model = worker.model_runner, worker.get_model()
    kind, digests = _quantization(model)
    return {
        "dtypes": sorted({plain(p.dtype) for p in model.parameters()}),
        "backends": _backends(worker.vllm_config),
        "kv_cache": _kv_cache(worker.vllm_config),
        "tp": get_tp_group().world_size,
        "pp": get_pp_group().world_size,
        "ep": any(getattr(m, "use_ep", False) is True for m in model.modules()),
        "cascade": bool(getattr(runner, "cascade_attn_enabled", False)),
        "logprobs_mode": str(runner.sampler.logprobs_mode),
        "lm_head": _head_dtype(model),
        "quantization": kind,
        "weight_digests": digests,
        "weights": _weights(model, get_tp_group().world_size * get_pp_group().world_size),
        "batch_invariant": _batch_invariant(),
        "model_class": type(model).__name__,
        "torch_threads": torch.get_num_threads(),
        "device": _device_name(),
    }


def plain(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


@cache
def _quantization(model: Any) -> tuple[str, dict[str, str]]:
    """Once a load: the weights are read out of every layer."""
    from mismatch.engines.vllm import quantize

    return quantize.observed(model)


@cache
def _weights(model: Any, ranks: int) -> dict[str, Any]:
    """Once a load: every byte is read."""
    from mismatch.engines.vllm import weights

    return weights.read(model, ranks)


def _attention(config: Any) -> list[Any]:
    layers = config.compilation_config.static_forward_context.values()
    return [layer for layer in layers if hasattr(layer, "attn_backend")]


def _backends(config: Any) -> list[str]:
    return sorted({layer.attn_backend.get_name() for layer in _attention(config)})


def _kv_cache(config: Any) -> list[list[str]]:
    """(name, dtype of the tensor that holds it) over the attention layers."""
    found = {(str(a.kv_cache_dtype), _tensor_dtype(a.kv_cache)) for a in _attention(config)}
    return sorted(map(list, found))


def _tensor_dtype(cache: Any) -> str:
    first = cache[0] if isinstance(cache, (list, tuple)) else cache
    return plain(getattr(first, "dtype", None))


def _head_dtype(model: Any) -> str:
    """In which dtype the last projection runs; "" on a rank that has none."""
    processor = getattr(model, "logits_processor", None)
    dtype = plain(getattr(processor, "head_dtype", ""))
    return SHORT.get(dtype, dtype)


def _batch_invariant() -> bool:
    from vllm import envs  # type: ignore[import-not-found]

    return bool(getattr(envs, "VLLM_BATCH_INVARIANT", False))


def _device_name() -> str:
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else observe.processor()


# ---------------------------------------------------------------- put together in the guest


def observed(config: Any, scheduler: Any, ranks: list[dict[str, Any]]) -> dict[str, Any]:
    """The load's options as they turned out. Ranks must agree where an option is about all."""
    model, first = config.model_config, ranks[0]
    caching = scheduler.kv_cache_manager.enable_caching
    return {
        "dtype": "+".join(SHORT.get(d, d) for d in agreed(ranks, "dtypes")),
        "eager": bool(model.enforce_eager),
        "attention": "+".join(agreed(ranks, "backends")),
        "tp": first["tp"] if len(ranks) == first["tp"] * first["pp"] else len(ranks),
        "pp": first["pp"],
        "dp": config.parallel_config.data_parallel_size,
        "ep": all(rank["ep"] for rank in ranks),
        "max_num_seqs": scheduler.max_num_running_reqs,
        "max_num_batched_tokens": scheduler.max_num_scheduled_tokens,
        "chunked_prefill": bool(scheduler.scheduler_config.enable_chunked_prefill),
        "prefix_caching": bool(caching),
        "cascade": agreed(ranks, "cascade"),
        "kv_cache_dtype": "+".join(name for name, _ in agreed(ranks, "kv_cache")),
        "quantization": agreed(ranks, "quantization"),
        # The first stages of pp have no head.
        "lm_head": agreed([rank for rank in ranks if rank["lm_head"]] or ranks, "lm_head"),
        "batch_invariant": agreed(ranks, "batch_invariant"),
        "logprobs_mode": agreed(ranks, "logprobs_mode"),
        "generation_config": str(model.generation_config),
    }


def agreed(ranks: list[dict[str, Any]], name: str) -> Any:
    values = [rank[name] for rank in ranks]
    if any(value != values[0] for value in values):
        raise RuntimeError(f"ranks disagree about {name}: {values}")
    return values[0]


def sampled(noted: list[dict[str, Any]], want: Asked) -> dict[str, Any]:
    """What the samplers of all ranks saw and gave: one value of each watched setting, or all.

    topk: what was asked, if the sampler gave that many, or every token there is.
    """
    seen: dict[str, set[float]] = {}
    for rank in noted:
        for name, values in rank["seen"].items():
            seen.setdefault(name, set()).update(values)
    topk = max(rank["topk"] for rank in noted)
    return {
        **{n: next(iter(v)) if len(v) == 1 else sorted(v) for n, v in seen.items() if v},
        "topk": want.topk if topk == want.found else topk,
        "entropy": any(rank["entropy"] for rank in noted),
    }


def settings_of(noted: list[dict[str, Any]]) -> dict[str, float]:
    """The sampling settings of the last request that reached a sampler."""
    return next((rank["settings"] for rank in noted if rank["settings"]), {})


def about_quantization(rank: Mapping[str, Any]) -> dict[str, Any]:
    """That it is an emulation, and of which weights; nothing where nothing was quantised."""
    if not rank["weight_digests"]:
        return {}
    words = (
        f"emulated: {len(rank['weight_digests'])} linear layers of the decoder rounded to "
        f"{rank['quantization']}, products in the model's own dtype"
    )
    return {"emulation": words, "weight_digests": rank["weight_digests"]}


def resolved(config: Any) -> dict[str, Any]:
    """The defaults that the engine filled in, as it resolved them."""
    model, cache, scheduler = config.model_config, config.cache_config, config.scheduler_config
    return {
        "max_model_len": model.max_model_len,
        "max_logprobs": model.max_logprobs,
        "quantization": str(model.quantization),
        "kv_cache_dtype": str(cache.cache_dtype),
        "kv_block_size": cache.block_size,
        "kv_blocks": cache.num_gpu_blocks,
        "prefix_caching": bool(cache.enable_prefix_caching),
        "chunked_prefill": bool(scheduler.enable_chunked_prefill),
        "max_num_seqs": scheduler.max_num_seqs,
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "async_scheduling": bool(scheduler.async_scheduling),
        "compilation_mode": str(config.compilation_config.mode),
        "cudagraph_mode": str(config.compilation_config.cudagraph_mode),
        "world_size": config.parallel_config.world_size,
        "tensor_parallel": config.parallel_config.tensor_parallel_size,
    }
