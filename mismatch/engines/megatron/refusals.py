"""What megatron cannot run, and why: options that contradict each other, and what a machine lacks.

A rule gets the options and whether a GPU will run them; it returns a sentence or None. The first
sentence is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Options = Mapping[str, Any]
Rule = Callable[[Options, bool], str | None]


def reason(options: Options, gpus: int) -> str | None:
    """Why these options cannot run here; None when they can."""
    answers = (rule(options, gpus > 0) for rule in RULES)
    return next((answer for answer in answers if answer), None)


def _machine(options: Options, on_gpu: bool) -> str | None:
    if on_gpu:
        return None
    attention = options.get("attention", "local")
    if attention != "local":
        return (
            f"attention={attention} is Transformer Engine's, which needs a GPU and there is none; "
            "on a CPU attention=local runs"
        )
    if options.get("cp", 1) > 1:
        return (
            "cp needs a GPU: megatron has context parallelism in Transformer Engine's attention "
            "alone"
        )
    if options.get("sp"):
        return (
            "sp needs a GPU: megatron's torch norms refuse sequence parallelism, and Transformer "
            "Engine's need CUDA"
        )
    return None


def _parallel(options: Options, on_gpu: bool) -> str | None:
    if options.get("ep", 1) > 1:
        return "ep spreads experts, and dense Llama checkpoints alone are converted; leave it out"
    if options.get("sp") and options.get("tp", 1) == 1:
        return "sp has no meaning with tp=1: it splits the sequence over the ranks of tp"
    return None


def _local(options: Options, on_gpu: bool) -> str | None:
    if options.get("attention") != "local":
        return None
    asked = {"cp": options.get("cp", 1) > 1, "sp": bool(options.get("sp"))}
    for name, what in (("cp", "attention"), ("sp", "norms")):
        if asked[name]:
            return (
                f"{name} needs Transformer Engine's {what}, and attention=local leaves them out; "
                "set attention to flash, fused, unfused or auto"
            )
    return None


RULES: tuple[Rule, ...] = (_machine, _parallel, _local)
