"""Quantisation emulated in the decoder's linear layers: rounded to the grid, computed as before.

fp8          weights to e4m3 with one fp32 scale per 128 x 128 block, activations to e4m3 with one
             per token
fp8_weights  the weights alone
int8         weights to int8 with one scale per output channel, activations with one per token

What is emulated is the rounding. The product runs in the model's own dtype, not on FP8 units.
"""

from __future__ import annotations

from typing import Any

import torch

E4M3_MAX = 448.0
INT8_MAX = 127.0
BLOCK = 128


def to_e4m3(x: torch.Tensor) -> torch.Tensor:
    """fp32 within +-448 -> the nearest e4m3 value, in fp32."""
    return x.clamp(-E4M3_MAX, E4M3_MAX).to(torch.float8_e4m3fn).float()


def to_int8(x: torch.Tensor) -> torch.Tensor:
    """fp32 within +-127 -> the nearest whole number, halves to even."""
    return x.round().clamp(-INT8_MAX, INT8_MAX)


GRIDS = {"fp8": (to_e4m3, E4M3_MAX), "int8": (to_int8, INT8_MAX)}


def weight_blocks(weight: torch.Tensor) -> torch.Tensor:
    """(out, in) -> the same in fp32 after e4m3 with a scale per 128 x 128 block (short edges)."""
    rounded = torch.empty_like(weight, dtype=torch.float32)
    for rows, out in zip(weight.split(BLOCK), rounded.split(BLOCK), strict=True):
        for block, target in zip(rows.split(BLOCK, 1), out.split(BLOCK, 1), strict=True):
            target.copy_(_on_grid("fp8", block.float(), block.float().abs().amax()))
    return rounded


def per_row(grid: str, x: torch.Tensor) -> torch.Tensor:
    """(..., n) -> the same in fp32 on a grid scaled by each row's largest magnitude."""
    x = x.float()
    return _on_grid(grid, x, x.abs().amax(-1, keepdim=True))


def _on_grid(grid: str, x: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    round_, limit = GRIDS[grid]
    scale = (largest / limit).clamp(min=torch.finfo(torch.float32).tiny)
    return round_(x / scale) * scale


def weights(kind: str, weight: torch.Tensor) -> torch.Tensor:
    return per_row("int8", weight) if kind == "int8" else weight_blocks(weight)


class Emulation:
    """Rounds a model's decoder linears, and shows afterwards that they are and were rounded."""

    def __init__(self, model: Any, layers: list[Any], kind: str) -> None:
        self.kind, self.activations = kind, False
        self.linears = [m for layer in layers for m in _linears(layer)]
        _refuse_fused(layers)
        for linear in self.linears:
            with torch.no_grad():
                linear.weight.copy_(weights(kind, linear.weight))
            if kind != "fp8_weights":
                linear.register_forward_pre_hook(self._round)
        self.on_grid = all(_lies_on_grid(kind, linear.weight) for linear in self.linears)

    def _round(self, _: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
        self.activations = True
        return (per_row(self.kind, args[0]).to(args[0].dtype), *args[1:])

    def observed(self) -> str:
        """Named by what is there: weights on the grid, activations that passed through it."""
        if not self.on_grid:
            return "none"
        if self.kind == "int8":
            return "int8" if self.activations else "int8_weights"
        return "fp8" if self.activations else "fp8_weights"

    def about(self) -> str:
        return (
            f"emulated: {len(self.linears)} linear layers of the decoder rounded to {self.kind}, "
            "products in the model's own dtype"
        )


def _linears(layer: Any) -> list[Any]:
    return [m for m in layer.modules() if isinstance(m, torch.nn.Linear)]


def _refuse_fused(layers: list[Any]) -> None:
    """Experts that share one tensor are no linear layers: leaving them out would be silent."""
    if any(p.ndim > 2 for layer in layers for p in layer.parameters()):
        raise ValueError("quantization is emulated in linear layers; this model has fused experts")


def _lies_on_grid(kind: str, weight: torch.Tensor) -> bool:
    """Rounding what was rounded changes nothing (but for the last bit of a scale)."""
    stored = weight.detach().float()
    again = weights(kind, weight.detach()).to(weight.dtype).float()
    room = 2**-9 * stored.abs() + 1e-6 * stored.abs().amax()
    return bool(((again - stored).abs() <= room).all())
