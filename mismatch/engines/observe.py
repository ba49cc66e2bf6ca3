"""Facts any guest can observe about its process. Standard library only; runs in the guest."""

from __future__ import annotations

import os
import platform
import re
from functools import cache
from importlib import metadata
from pathlib import Path

#: Environment switches that are known to change numerics or kernels, by prefix.
SWITCHES = (
    "ATEN_", "CUBLAS_", "CUDA_", "DNNL_", "FLASH", "KMP_", "MKL_", "NCCL_", "NVIDIA_TF32",
    "OMP_", "ONEDNN_", "OPENBLAS_", "PYTORCH_", "SGLANG_", "SGL_", "TORCH", "VLLM_",
)  # fmt: skip

#: What looks like a secret is never read; where caches lie and torchrun's names for a launch change
#: no number.
_LEFT_OUT = re.compile(
    r"KEY|TOKEN|SECRET|PASS|BEARER|CREDENTIAL|AUTH|CACHE_DIR|CACHE_ROOT|^TORCHELASTIC_",
    re.IGNORECASE,
)


@cache
def versions(distributions: tuple[str, ...]) -> dict[str, str]:
    """Installed versions of the named distributions; absent ones are left out."""
    found = {"python": platform.python_version()}
    for name in distributions:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


#: What configs call the number of experts that a router chooses from.
EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")


def experts(config: object) -> int:
    """Experts that a router chooses from; 0 for a dense model."""
    return max((getattr(config, name, 0) or 0 for name in EXPERTS), default=0)


def is_switch(name: str) -> bool:
    """Whether a variable of that name is read and kept as a switch."""
    return name.startswith(SWITCHES) and not _LEFT_OUT.search(name)


def read_switches() -> dict[str, str]:
    """Environment variables that steer kernels, as they are now."""
    return {name: os.environ[name] for name in sorted(filter(is_switch, os.environ))}


#: As they stood when the guest started: engines add variables of their own, with random names in.
_AT_START = read_switches()


def switches() -> dict[str, str]:
    """Environment variables that steer kernels, as they stood when the guest started."""
    return dict(_AT_START)


def processor() -> str:
    """The CPU's model name (its vector units choose the kernels)."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    match = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return match.group(1).strip() if match else platform.machine()
