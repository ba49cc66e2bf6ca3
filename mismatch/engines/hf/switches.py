"""Switches of torch that hold for the whole process: threads, determinism, TF32, compilation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def turn(options: Mapping[str, Any]) -> None:
    """Before the model is loaded; what is not given stays as torch has it."""
    if "threads" in options:
        torch.set_num_threads(options["threads"])
    if "deterministic" in options:
        torch.use_deterministic_algorithms(options["deterministic"])
    if "tf32" in options:
        torch.backends.cuda.matmul.allow_tf32 = options["tf32"]
        torch.backends.cudnn.allow_tf32 = options["tf32"]


def compile_model(model: Any) -> None:
    """In place. A shape too many is an error: torch would go on uncompiled and say so in a log."""
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    model.compile()


def observed(model: Any) -> dict[str, Any]:
    """As torch says they stand. (flex_attention compiles its kernel: that is no compiled model.)"""
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "tf32": bool(torch.backends.cuda.matmul.allow_tf32),
        "compile": model._compiled_call_impl is not None and compiled()["graphs"] > 0,
    }


def compiled() -> dict[str, int]:
    """What dynamo counted in this process."""
    counters = torch._dynamo.utils.counters
    return {
        "frames": counters["frames"]["ok"],
        "graphs": counters["stats"]["unique_graphs"],
        "graph_breaks": sum(counters["graph_break"].values()),
    }
