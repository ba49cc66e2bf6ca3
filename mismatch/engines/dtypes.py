"""Short names of dtypes, as options and facts spell them."""

from __future__ import annotations

import torch

DTYPES = {
    "fp32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp64": torch.float64,
}
SHORT = {dtype: name for name, dtype in DTYPES.items()}


def short(dtype: torch.dtype) -> str:
    """float32 -> fp32; a dtype without a short name keeps torch's."""
    return SHORT.get(dtype, plain(dtype))


def plain(dtype: torch.dtype) -> str:
    """torch's name without its prefix."""
    return str(dtype).removeprefix("torch.")
