"""What sglang cannot run, and why: what a machine lacks, and options that contradict each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Options = Mapping[str, Any]
Rule = Callable[[Options, bool, int], str | None]

#: Attention backends that run without a GPU, in the sglang that runs on a CPU from PyPI alone.
ON_A_CPU = ("torch_native",)
#: Those that sglang's deterministic mode takes.
DETERMINISTIC = ("fa3", "flashinfer", "triton", "ascend")

#: What only a GPU has.
GPU_ONLY = {
    "deterministic": "sglang's batch-invariant kernels exist for GPUs",
    "rl_on_policy_target": "it switches on the deterministic mode, whose kernels exist for GPUs",
    "quantization": "sglang's quantised products have no kernel in a build for CPU from PyPI",
}


def ranks(options: Options) -> int:
    """Processes that sglang starts for one model."""
    return int(options.get("tp", 1))


def reason(options: Options, gpus: int, fit: int) -> str | None:
    """Why these options cannot run here; None when they can. The first sentence is the answer."""
    answers = (rule(options, gpus > 0, fit) for rule in RULES)
    return next((answer for answer in answers if answer), None)


def _machine(options: Options, gpu: bool, fit: int) -> str | None:
    if gpu:
        return None
    for name, why in GPU_ONLY.items():
        if options.get(name):
            return f"{name} needs a GPU and there is none: {why}"
    if options.get("attention", ON_A_CPU[0]) not in ON_A_CPU:
        return (
            f"attention={options['attention']} needs a GPU (or sglang's own kernels for CPU, which "
            f"PyPI does not have); without one there is {', '.join(ON_A_CPU)}"
        )
    if options.get("kv_cache_dtype", "auto").startswith("fp8"):
        return f"kv_cache_dtype={options['kv_cache_dtype']} needs a GPU's kernels"
    if options.get("eager") is False:
        return "eager=false asks for CUDA graphs, and there is no GPU"
    return None


def _ranks(options: Options, gpu: bool, fit: int) -> str | None:
    if ranks(options) > fit:
        return (
            f"tp={options['tp']} ranks were asked and there are {fit} {'GPUs' if gpu else 'cores'}"
        )
    return None


def _contradictions(options: Options, gpu: bool, fit: int) -> str | None:
    if options.get("rl_on_policy_target") and options.get("deterministic") is False:
        return (
            "rl_on_policy_target switches on the deterministic mode: deterministic=false cannot be"
        )
    invariant = options.get("deterministic") or options.get("rl_on_policy_target")
    if invariant and options.get("attention", DETERMINISTIC[0]) not in DETERMINISTIC:
        return (
            f"attention={options['attention']} has no deterministic mode; those that have are "
            f"{', '.join(DETERMINISTIC)}"
        )
    if invariant and options.get("min_p"):
        return "min_p kills sglang's deterministic sampler: its own assertion forbids the two"
    if "lm_head" in options and options.get("dtype") == "fp32":
        return "lm_head=fp32 has no meaning with dtype=fp32: the whole model is fp32"
    return None


RULES: tuple[Rule, ...] = (_machine, _ranks, _contradictions)
