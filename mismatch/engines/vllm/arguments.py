"""From a job to what vllm's constructor is given. No vllm is imported."""

from __future__ import annotations

from typing import Any

from mismatch import wire

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

#: Our name -> vllm's, for values that pass as they are.
PLAIN = {
    "attention": "attention_backend",
    "eager": "enforce_eager",
    "tp": "tensor_parallel_size",
    "pp": "pipeline_parallel_size",
    "dp": "data_parallel_size",
    "ep": "enable_expert_parallel",
    "max_num_seqs": "max_num_seqs",
    "max_num_batched_tokens": "max_num_batched_tokens",
    "chunked_prefill": "enable_chunked_prefill",
    "prefix_caching": "enable_prefix_caching",
    "kv_cache_dtype": "kv_cache_dtype",
    "logprobs_mode": "logprobs_mode",
    "generation_config": "generation_config",
}

#: Log-probabilities per position that vllm gives without being told at load.
FREE_LOGPROBS = 20

#: The processor is named, not handed over: a rank of tp is another process and imports it itself.
FORCING = "mismatch.engines.vllm.forcing:ForceIds"


def constructor(job: wire.Job) -> dict[str, Any]:
    """Keyword arguments of vllm.LLM; an option that was not stated is not passed."""
    options, given = job.options, dict(job.extra)
    given |= {PLAIN[name]: value for name, value in options.items() if name in PLAIN}
    if "dtype" in options:
        given["dtype"] = DTYPES[options["dtype"]]
    if "cascade" in options:
        given["disable_cascade_attn"] = not options["cascade"]
    if "lm_head" in options:
        given["hf_overrides"] = {"head_dtype": DTYPES[options["lm_head"]]}
    if "quantization" in options:
        given["quantization"] = emulation(options["quantization"])
    most = max((columns(plan.options) for plan in job.captures), default=0)
    if most > FREE_LOGPROBS:
        given.setdefault("max_logprobs", most)
    return {
        **given,
        "trust_remote_code": job.trust_remote_code,
        "logits_processors": [FORCING],
    }


def columns(request: dict[str, Any]) -> int:
    """Entries a request asks at each position beside the token's own: top-k, then the entropy."""
    return int(request.get("topk", 0)) + bool(request.get("entropy"))


def emulation(kind: str) -> str:
    """The name under which vllm knows an emulated quantisation."""
    return f"mismatch_{kind}"
