"""What megatron must know of a Hugging Face Llama, read off config.json; what it cannot take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: megatron's llama3 rope scaling takes a factor; the rest of it is written into its source.
FIXED_ROPE = {
    "low_freq_factor": 1,
    "high_freq_factor": 4,
    "original_max_position_embeddings": 8192,
}


@dataclass(frozen=True)
class Llama:
    """The shape of a dense Llama. rope_factor: of llama3 scaling; None = rope as it stands."""

    layers: int
    hidden: int
    ffn: int
    heads: int
    groups: int
    head_dim: int
    vocabulary: int
    positions: int
    norm_eps: float
    tied: bool
    rope_theta: float
    rope_factor: float | None


def read(folder: Path) -> Llama:
    """Of a checkpoint folder; ValueError with one sentence where it cannot be converted."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    why = refusal(config)
    if why:
        raise ValueError(f"megatron cannot take this checkpoint: {why}")
    heads, rope = config["num_attention_heads"], _rope(config)
    return Llama(
        layers=config["num_hidden_layers"],
        hidden=config["hidden_size"],
        ffn=config["intermediate_size"],
        heads=heads,
        groups=config.get("num_key_value_heads") or heads,
        head_dim=config.get("head_dim") or config["hidden_size"] // heads,
        vocabulary=config["vocab_size"],
        positions=config.get("max_position_embeddings", 2048),
        norm_eps=config.get("rms_norm_eps", 1e-6),
        tied=bool(config.get("tie_word_embeddings", False)),
        rope_theta=rope.get("rope_theta") or config.get("rope_theta") or 10000.0,
        rope_factor=rope["factor"] if _rope_type(rope) == "llama3" else None,
    )


def refusal(config: Mapping[str, Any]) -> str | None:
    """Why a config is not of a Llama that is converted here; None when it is."""
    architectures = config.get("architectures") or ["none"]
    if architectures != ["LlamaForCausalLM"]:
        return f"it is a {architectures[0]}, and LlamaForCausalLM alone is converted"
    for name in ("attention_bias", "mlp_bias", "quantization_config"):
        if config.get(name):
            return f"it has {name}, and plain weights without biases alone are converted"
    if config.get("hidden_act", "silu") != "silu":
        return f"its hidden_act is {config['hidden_act']}, and silu alone is converted"
    if config.get("sliding_window"):
        return "it has a sliding window, and full attention alone is converted"
    return _rope_refusal(_rope(config))


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """transformers 5 says rope_parameters; before it was rope_scaling, with theta beside it."""
    return dict(config.get("rope_parameters") or config.get("rope_scaling") or {})


def _rope_type(rope: Mapping[str, Any]) -> str:
    return str(rope.get("rope_type") or rope.get("type") or "default")


def _rope_refusal(rope: Mapping[str, Any]) -> str | None:
    kind = _rope_type(rope)
    if kind not in ("default", "llama3"):
        return f"its rope is scaled as {kind}, and default and llama3 alone are converted"
    if rope.get("partial_rotary_factor", 1) != 1:
        return "its rope turns a part of each head (partial_rotary_factor), and the whole is turned"
    if kind == "llama3":
        for name, fixed in FIXED_ROPE.items():
            if rope.get(name) != fixed:
                return f"its llama3 rope has {name}={rope.get(name)}, and megatron fixes {fixed}"
    return None


def check_split(model: Llama, tp: int, pp: int) -> None:
    """Every rank must get whole heads, and as many rows of each matrix as the next."""
    if model.heads % tp:
        raise ValueError(
            f"tp={tp} does not divide num_attention_heads={model.heads} of this checkpoint"
        )
    if model.groups % tp and tp % model.groups:
        raise ValueError(
            f"tp={tp} neither divides num_key_value_heads={model.groups} of this checkpoint nor is "
            "a multiple of it"
        )
    if model.ffn % tp:
        raise ValueError(f"tp={tp} does not divide intermediate_size={model.ffn}")
    if model.layers % pp:
        raise ValueError(f"pp={pp} does not divide num_hidden_layers={model.layers}")
