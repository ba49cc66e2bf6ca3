"""What the ranks of a sglang tell, put together; and what its log-probabilities are of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mismatch import wire
from mismatch.engines.sglang.arguments import DTYPES

SHORT = {value: key for key, value in DTYPES.items()}


def observed(
    ranks: Sequence[Mapping[str, Any]], arguments: Any, path: str, topk: int
) -> dict[str, Any]:
    """Facts of a capture. Ranks must agree.

    arguments: the ServerArgs that sglang resolved. topk: columns in the answers that were read.
    """
    first = ranks[0]
    for name in first:
        if any(rank[name] != first[name] for rank in ranks):
            raise RuntimeError(f"ranks disagree about {name}: {[rank[name] for rank in ranks]}")
    settings = _plain({n: v[0] if len(v) == 1 else v for n, v in first["seen"].items() if v})
    return {
        "observed": {
            **{n: first[n] for n in ("attention", "eager", "max_running_requests", "radix_cache",
                                     "chunked_prefill_size", "deterministic",
                                     "rl_on_policy_target", "quantization")},
            **settings,
            "tp": first["tp"] if len(ranks) == first["tp"] else len(ranks),
            "dtype": _dtype(first),
            "lm_head": SHORT.get(first["lm_head"], first["lm_head"]),
            "kv_cache_dtype": _kv_cache(first, arguments.kv_cache_dtype),
            "logprobs_mode": "raw_logprobs" if first["raw"] else "scaled_logprobs",
            "topk": topk,
        },
        "compute_dtype": "+".join(first["dtypes"]),
        **space(path, settings, scaled=not first["raw"]),
        "rows_in_a_step": first["rows"],
        **{n: first[n] for n in ("device", "torch_threads", "model_class", "attention_class",
                                 "kv_cache", "kv_tokens", "tree_cache", "overlap",
                                 "weights", "experts")},
        "sampling_backend": arguments.sampling_backend,
    }  # fmt: skip


#: Our names of what a KV cache holds.
KV = {"bfloat16": "bf16", "float8_e4m3fn": "fp8_e4m3", "float8_e5m2": "fp8_e5m2"}


def _dtype(rank: Mapping[str, Any]) -> str:
    """The weights'; where layers are quantised, the one that the others and the products have."""
    dtypes = [rank["model_dtype"]] if rank["quantization"] else rank["dtypes"]
    return "+".join(SHORT.get(d, d) for d in dtypes)


def _kv_cache(rank: Mapping[str, Any], resolved: str) -> str:
    """What the cache holds; auto only where that is the model's own dtype."""
    if resolved == "auto" and rank["kv_cache"] == rank["model_dtype"]:
        return "auto"
    return str(KV.get(rank["kv_cache"], rank["kv_cache"]))


def _plain(settings: Mapping[str, Any]) -> dict[str, Any]:
    """sglang holds "all tokens" as a number beyond any vocabulary."""
    top_k = settings.get("top_k", 0)
    whole = isinstance(top_k, float) and not 0 < top_k < 1 << 30
    return {**settings, "top_k": 0 if whole else top_k} if settings else {}


def space(path: str, settings: Mapping[str, Any], scaled: bool) -> dict[str, Any]:
    """What the values are of. Cuts are made after they are taken, a temperature before, and none of
    it touches an input's. scaled: the temperature is in the values of what was drawn.
    """
    moved = wire.moved(settings)
    # Where the likeliest token alone can be drawn sglang divides by no temperature.
    divided = scaled and path != "prefill" and settings.get("top_k") != 1
    inside = {n: v for n, v in moved.items() if n == "temperature" and divided}
    drawn = ", ".join(f"{n}={v}" for n, v in moved.items() if n not in inside)
    words = "log-probabilities of the model"
    if inside:
        words = f"log-probabilities of logits / T, temperature={inside['temperature']}"
    return {
        "logprob_space": words + (f" (drawn with {drawn})" if drawn else ""),
        "scored_as": inside,
        "sampling": dict(settings),
    }
