"""vllm: the rollout engine. On a machine without a GPU this is the real vllm built for CPU."""

from __future__ import annotations

import os
from pathlib import Path

from mismatch.engines.base import DISTRIBUTION, ROUTES, SAMPLER, Engine, Machine, split_cores
from mismatch.engines.vllm import refusals
from mismatch.model import Condition, Option

#: GiB of KV cache on a CPU. A capture that was preempted for want of it is refused, so be generous.
KV_SPACE_GIB = "2"


def refuse(condition: Condition, machine: Machine) -> str | None:
    options = condition.options
    found = refusals.reason(options, machine.gpus, machine.ranks)
    return found or refusals.kv_cache(options, machine.gpus > 0 or machine.wide)


def environment(condition: Condition) -> dict[str, str]:
    """Engine in the worker's own process: one process to kill, and its model can be looked at."""
    given = {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": os.environ.get("VLLM_CPU_KVCACHE_SPACE", KV_SPACE_GIB),
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    ranks = refusals.ranks(condition.options)
    if ranks > 1 and "VLLM_CPU_OMP_THREADS_BIND" not in os.environ:
        given["VLLM_CPU_OMP_THREADS_BIND"] = split_cores(sorted(os.sched_getaffinity(0)), ranks)
    if "batch_invariant" in condition.options:
        given["VLLM_BATCH_INVARIANT"] = str(int(condition.options["batch_invariant"] is True))
    return given


#: What needs an engine of its own.
LOAD = {
    "dtype": Option("str", "weights and compute", ("fp32", "bf16", "fp16")),
    "attention": Option("str", "attention backend, by vllm's own name (default: its choice)"),
    "eager": Option("bool", "true: no torch.compile and no CUDA graphs (default false)"),
    "tp": Option("int", "tensor parallel ranks", minimum=1, maximum=1024),
    "pp": Option("int", "pipeline parallel ranks", minimum=1, maximum=1024),
    "dp": Option("int", "data parallel ranks", minimum=1, maximum=1024),
    "ep": Option("bool", "experts spread over the ranks of tp"),
    "max_num_seqs": Option("int", "sequences in one step", minimum=1, maximum=100000),
    "max_num_batched_tokens": Option(
        "int", "tokens in one step: the size of a prefill chunk", minimum=1, maximum=10000000
    ),
    "chunked_prefill": Option("bool", "prompts may be split over steps"),
    "prefix_caching": Option("bool", "prompts of one call may share KV blocks"),
    "cascade": Option("bool", "cascade attention over a shared prefix"),
    "kv_cache_dtype": Option(
        "str", "KV cache", ("auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2")
    ),
    "quantization": Option(
        "str", "emulated in the decoder's linear layers (a GPU's own kernels: arg.quantization)",
        ("fp8", "fp8_weights", "int8"),
    ),
    "lm_head": Option("str", "dtype of the last projection alone", ("fp32",)),
    "batch_invariant": Option("bool", "vllm's batch-invariant kernels"),
    "damage": Option("str", "breaks the engine on purpose: for `selftest` alone", ("reload",)),
    "logprobs_mode": Option(
        "str", "log-probabilities before or after penalties, temperature and cuts",
        ("raw_logprobs", "processed_logprobs"),
    ),
    "generation_config": Option(
        "str", "auto: requests start from the checkpoint's sampling defaults", ("vllm", "auto")
    ),
}  # fmt: skip

#: What may change from one capture to the next.
REQUEST = {
    "batch": Option(
        "batch", "sequences handed over in one call (default all)", minimum=1, scope="request"
    ),
    "routes": ROUTES,
    **SAMPLER,
    **DISTRIBUTION,
}  # fmt: skip


ENGINE = Engine(
    name="vllm",
    summary="vllm offline engine, the rollout side",
    paths=frozenset({"rollout", "decode", "prefill"}),
    options={**LOAD, **REQUEST},
    imports="vllm",
    distributions=("vllm", "vllm-cpu", "torch", "transformers", "tokenizers"),
    requirements=Path(__file__).parent / "requirements.txt",
    batch=None,
    # A prompt is scored by a request that also generates one token.
    extra_positions={"prefill": 1},
    # How many share a call is the capture's: the floor's differs from the condition's.
    observed=tuple(name for name in (*LOAD, *REQUEST) if name not in ("batch", "damage")),
    refuse=refuse,
    environment=environment,
)
