"""sglang: the other rollout engine, started by us. A running one is sglang_server."""

from __future__ import annotations

import os
from pathlib import Path

from mismatch.engines.base import DISTRIBUTION, SAMPLER, Engine, Machine, split_cores, this_machine
from mismatch.engines.sglang import refusals
from mismatch.model import Condition, Option


def refuse(condition: Condition, machine: Machine) -> str | None:
    return refusals.reason(condition.options, machine.gpus, machine.ranks)


def environment(condition: Condition) -> dict[str, str]:
    """Switches that sglang reads when it is imported."""
    given: dict[str, str] = {}
    if not this_machine().gpus:
        given["SGLANG_USE_CPU_ENGINE"] = "1"
        # torch's CUDA build brings a NCCL that loads here and cannot run: ranks would die of it.
        given["SGLANG_NCCL_SO_PATH"] = "there-is-no-gpu"
    ranks = refusals.ranks(condition.options)
    if ranks > 1 and "SGLANG_CPU_OMP_THREADS_BIND" not in os.environ:
        given["SGLANG_CPU_OMP_THREADS_BIND"] = split_cores(sorted(os.sched_getaffinity(0)), ranks)
    if "logprobs_mode" in condition.options:
        raw = condition.options["logprobs_mode"] == "raw_logprobs"
        given["SGLANG_RETURN_ORIGINAL_LOGPROB"] = str(int(raw))
    return given


#: What needs an engine of its own.
LOAD = {
    "dtype": Option("str", "weights and compute", ("fp32", "bf16", "fp16")),
    "attention": Option(
        "str", "attention backend, by sglang's own name (default on a CPU: torch_native)"
    ),
    "eager": Option("bool", "true: no CUDA graphs (a CPU has none)"),
    "tp": Option("int", "tensor parallel ranks", minimum=1, maximum=1024),
    "max_running_requests": Option("int", "sequences in one step", minimum=1, maximum=100000),
    "chunked_prefill_size": Option(
        "int", "tokens of a prompt in one step (-1: prompts are not split)", minimum=-1,
        maximum=10000000,
    ),
    "radix_cache": Option("bool", "prompts of one call may share KV (sglang's radix cache)"),
    "deterministic": Option("bool", "sglang's deterministic, batch-invariant mode"),
    "rl_on_policy_target": Option("str", "sglang's mode that imitates a trainer", ("fsdp",)),
    "lm_head": Option("str", "dtype of the last projection alone", ("fp32",)),
    "kv_cache_dtype": Option("str", "KV cache", ("auto", "bf16", "fp8_e4m3", "fp8_e5m2")),
    "quantization": Option("str", "of the linear layers, by sglang's name (fp8, w8a8_int8, ...)"),
    "logprobs_mode": Option(
        "str", "log-probabilities before or after the temperature "
        "(SGLANG_RETURN_ORIGINAL_LOGPROB; sglang's default: after)",
        ("raw_logprobs", "scaled_logprobs"),
    ),
}  # fmt: skip

#: What may change from one capture to the next. sglang's repetition penalty counts the response
#: alone, hf's and vllm's the prompt too: as it would be another knob of the same name, it has none.
REQUEST = {
    "batch": Option(
        "batch", "sequences handed over in one call (default all)", minimum=1, scope="request"
    ),
    **{name: SAMPLER[name] for name in ("temperature", "top_p", "top_k", "min_p")},
    "topk": DISTRIBUTION["topk"],
}  # fmt: skip


ENGINE = Engine(
    name="sglang",
    summary="sglang's Engine, the rollout side",
    paths=frozenset({"rollout", "decode", "prefill"}),
    options={**LOAD, **REQUEST},
    imports="sglang",
    distributions=("sglang", "sglang-kernel", "sgl-kernel", "torch", "transformers", "tokenizers"),
    requirements=Path(__file__).parent / "requirements.txt",
    batch=None,
    # A prompt is scored by a request that also generates one token.
    extra_positions={"prefill": 1},
    observed=tuple(name for name in (*LOAD, *REQUEST) if name != "batch"),
    refuse=refuse,
    environment=environment,
)
