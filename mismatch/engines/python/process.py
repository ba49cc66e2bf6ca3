"""What our worker sees of a process in which the user's code ran. It imports nothing for it."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Any

from mismatch.engines import observe

#: Always told where installed; what else was imported is told beside them.
DISTRIBUTIONS = ("numpy", "torch", "transformers")


def imported() -> dict[str, str]:
    """Versions of the distributions of which something was imported."""
    owners = metadata.packages_distributions()
    tops = {name.partition(".")[0] for name in list(sys.modules)}
    names = {owner for top in tops for owner in owners.get(top, [])}
    return {name: metadata.version(name) for name in sorted(names)}


def device() -> str:
    """The GPU, once torch has started CUDA in this process; else the processor."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return str(torch.cuda.get_device_name())
    return observe.processor()


def torch() -> dict[str, Any] | None:
    """torch's switches as they stand; None where the code did not import torch."""
    module = sys.modules.get("torch")
    if module is None:
        return None
    return {
        "threads": module.get_num_threads(),
        "default_dtype": str(module.get_default_dtype()).removeprefix("torch."),
        "deterministic_algorithms": module.are_deterministic_algorithms_enabled(),
        "tf32": bool(module.backends.cuda.matmul.allow_tf32),
        "cpu_capability": module.backends.cpu.get_cpu_capability(),
        "cuda_started": module.cuda.is_initialized(),
    }
