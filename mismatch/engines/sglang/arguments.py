"""From a job to what sglang's Engine is given. No sglang is imported."""

from __future__ import annotations

from typing import Any

from mismatch import wire

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}

#: Our name -> sglang's, for values that pass as they are.
PLAIN = {
    "attention": "attention_backend",
    "eager": "disable_cuda_graph",
    "tp": "tp_size",
    "max_running_requests": "max_running_requests",
    "chunked_prefill_size": "chunked_prefill_size",
    "deterministic": "enable_deterministic_inference",
    "rl_on_policy_target": "rl_on_policy_target",
    "kv_cache_dtype": "kv_cache_dtype",
    "quantization": "quantization",
}

#: Without these sglang does not start on a CPU, or takes nearly all of its memory for KV.
ON_A_CPU = {
    "device": "cpu",
    "attention_backend": "torch_native",
    "disable_cuda_graph": True,
    "grammar_backend": "none",
    "max_total_tokens": 65536,
}


def constructor(job: wire.Job, gpu: bool) -> dict[str, Any]:
    """Keyword arguments of sglang.Engine; an option that was not stated is not passed."""
    options = job.options
    given = {} if gpu else dict(ON_A_CPU)
    given |= job.extra
    given |= {PLAIN[name]: value for name, value in options.items() if name in PLAIN}
    if "dtype" in options:
        given["dtype"] = DTYPES[options["dtype"]]
    if "radix_cache" in options:
        given["disable_radix_cache"] = not options["radix_cache"]
    if "lm_head" in options:
        given["enable_fp32_lm_head"] = True
    return {
        **given,
        "model_path": job.model,
        "trust_remote_code": job.trust_remote_code,
        # The forced ids of a request travel beside such a processor.
        "enable_custom_logit_processor": True,
    }


def sampling(request: dict[str, Any]) -> dict[str, float]:
    """Every setting of the sampler, stated: what is left out would come from the checkpoint's own
    generation_config. All tokens are top_k = -1 in sglang.
    """
    given = {name: request.get(name, neutral) for name, neutral in wire.NEUTRAL.items()}
    return {**given, "top_k": given["top_k"] or -1}
