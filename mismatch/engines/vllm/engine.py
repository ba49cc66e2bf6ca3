"""vllm: the rollout engine. On a machine without a GPU this is the real vllm built for CPU."""

from __future__ import annotations

import os
from pathlib import Path

from mismatch.engines.base import Engine, Machine
from mismatch.model import Condition, Option

#: GiB of KV cache on a CPU. A capture that was preempted for want of it is refused, so be generous.
KV_SPACE_GIB = "2"


def refuse(condition: Condition, machine: Machine) -> str | None:
    quantization = condition.options.get("arg.quantization")
    if quantization == "fp8" and not machine.gpus:
        return "arg.quantization=fp8 has no CPU kernel in vllm"
    return None


def environment(condition: Condition) -> dict[str, str]:
    """Engine in the worker's own process: one process to kill, and its model can be looked at."""
    return {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", KV_SPACE_GIB),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }


ENGINE = Engine(
    name="vllm",
    summary="vllm offline engine, the rollout side",
    paths=frozenset({"rollout", "decode", "prefill"}),
    options={
        "dtype": Option("str", "weights and compute", ("fp32", "bf16", "fp16")),
        "attention": Option("str", "attention backend, by vllm's own name (default: its choice)"),
        "batch": Option(
            "batch", "sequences handed over in one call (default all)", minimum=1, scope="request"
        ),
        "eager": Option("bool", "true: no torch.compile and no CUDA graphs (default false)"),
    },
    imports="vllm",
    distributions=("vllm", "vllm-cpu", "torch", "transformers", "tokenizers"),
    requirements=Path(__file__).parent / "requirements.txt",
    batch=None,
    # A prompt is scored by a request that also generates one token.
    extra_positions={"prefill": 1},
    observed=("dtype", "attention", "eager"),
    refuse=refuse,
    environment=environment,
)
