"""What megatron's constructors are told, without megatron: names stand for its enums and dtypes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mismatch.engines.megatron.convert import padded_vocabulary
from mismatch.engines.megatron.llama import Llama

#: Option -> field of TransformerConfig.
FIELDS = {
    "tp": "tensor_model_parallel_size",
    "pp": "pipeline_model_parallel_size",
    "cp": "context_parallel_size",
    "ep": "expert_model_parallel_size",
    "sp": "sequence_parallel",
    "attention": "attention_backend",
}
PARALLEL = ("tp", "pp", "cp", "ep")

#: The way of attention that a machine without Transformer Engine has.
LOCAL = "local"


def transformer_config(
    model: Llama, options: Mapping[str, Any], on_gpu: bool, extra: Mapping[str, Any]
) -> dict[str, Any]:
    """TransformerConfig's arguments: the checkpoint's shape, then the options that were given, then
    arg.NAME as it stands. Names in place of objects: activation_func, params_dtype,
    pipeline_dtype, attention_backend.
    """
    dtype = options.get("dtype", "fp32")  # TransformerConfig's own default
    return {
        "num_layers": model.layers,
        "hidden_size": model.hidden,
        "ffn_hidden_size": model.ffn,
        "num_attention_heads": model.heads,
        "num_query_groups": model.groups,
        "kv_channels": model.head_dim,
        "normalization": "RMSNorm",
        "layernorm_epsilon": model.norm_eps,
        "gated_linear_unit": True,
        "activation_func": "silu",
        "add_bias_linear": False,
        "hidden_dropout": 0.0,
        "attention_dropout": 0.0,
        "perform_initialization": False,
        "use_cpu_initialization": not on_gpu,
        "params_dtype": dtype,
        "pipeline_dtype": dtype,
        "bf16": dtype == "bf16",
        "fp16": dtype == "fp16",
        **{field: options[name] for name, field in FIELDS.items() if name in options},
        **extra,
    }


def gpt_model(model: Llama, options: Mapping[str, Any]) -> dict[str, Any]:
    """GPTModel's arguments beside its config and its layers. Logits stay split over the
    vocabulary, as trainers keep them; the engine gathers them.
    """
    scaled = {} if model.rope_factor is None else {"rope_scaling_factor": model.rope_factor}
    return {
        "vocab_size": padded_vocabulary(model, options.get("tp", 1)),
        "max_sequence_length": model.positions,
        "position_embedding_type": "rope",
        "rotary_base": model.rope_theta,
        "rope_scaling": model.rope_factor is not None,
        "parallel_output": True,
        **scaled,
    }


def parallel_state(options: Mapping[str, Any]) -> dict[str, int]:
    """initialize_model_parallel's arguments."""
    return {FIELDS[name]: options[name] for name in PARALLEL if name in options}


def is_local(options: Mapping[str, Any], on_gpu: bool) -> bool:
    """Whether megatron's own modules are used, and not Transformer Engine's."""
    return bool(options.get("attention", "auto" if on_gpu else LOCAL) == LOCAL)
