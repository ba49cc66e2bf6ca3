"""Quantisation emulated inside the real engine: linear layers whose weights and inputs are rounded.

fp8          weights to e4m3 with one fp32 scale per 128 x 128 block, inputs to e4m3 with one per
             token
fp8_weights  the weights alone
int8         weights to int8 with one scale per output channel, inputs with one per token

What is emulated is the rounding; the product runs in the model's own dtype. It is a quantisation
method of vllm's own kind, because a CPU build packs weights for its kernels and drops the originals
while it loads: afterwards there is nothing left to round. vllm fuses q, k, v and gate, up: each is
rounded by itself, so that blocks are those of the checkpoint's matrices.
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from vllm.model_executor.layers.linear import (  # type: ignore[import-not-found]
    LinearBase,
    UnquantizedLinearMethod,
)
from vllm.model_executor.layers.quantization import (  # type: ignore[import-not-found]
    register_quantization_config,
)
from vllm.model_executor.layers.quantization.base_config import (  # type: ignore[import-not-found]
    QuantizationConfig,
)

from mismatch.engines.vllm.arguments import emulation
from mismatch.engines.vllm.weights import by_product

BLOCK = 128
E4M3_MAX, INT8_MAX = 448.0, 127.0


def rounded(kind: str, x: torch.Tensor, largest: torch.Tensor) -> torch.Tensor:
    """x in fp32 -> the nearest point of a grid whose end is `largest` (broadcast against x)."""
    end = INT8_MAX if kind == "int8" else E4M3_MAX
    scale = (largest / end).clamp(min=torch.finfo(torch.float32).tiny)
    steps = (x / scale).clamp(-end, end)
    near = steps.round() if kind == "int8" else steps.to(torch.float8_e4m3fn).float()
    return near * scale


def by_row(kind: str, x: torch.Tensor) -> torch.Tensor:
    """(..., n) -> the same in x's dtype, one scale a row: a token, or an output channel."""
    wide = x.float()
    return rounded(kind, wide, wide.abs().amax(-1, keepdim=True)).to(x.dtype)


def by_block(kind: str, weight: torch.Tensor) -> torch.Tensor:
    """(out, in) -> the same in its dtype, one scale per 128 x 128 block; edges may be short."""
    wide = weight.float()
    out = torch.empty_like(wide)
    for top in range(0, wide.shape[0], BLOCK):
        for left in range(0, wide.shape[1], BLOCK):
            place = (slice(top, top + BLOCK), slice(left, left + BLOCK))
            out[place] = rounded(kind, wide[place], wide[place].abs().amax())
    return out.to(weight.dtype)


def quantised(kind: str, weight: torch.Tensor) -> torch.Tensor:
    return by_row(kind, weight) if kind == "int8" else by_block(kind, weight)


class Emulated(UnquantizedLinearMethod):  # type: ignore[misc]
    """The linear layer as it is, on rounded weights and, for some kinds, rounded inputs."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def process_weights_after_loading(self, layer: Any) -> None:
        for part in layer.weight.data.split(layer.output_partition_sizes):
            part.copy_(quantised(self.kind, part))
        super().process_weights_after_loading(layer)

    def apply(self, layer: Any, x: torch.Tensor, bias: Any = None) -> torch.Tensor:
        return self.product(layer, self.inputs(x), bias)

    def inputs(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.kind == "fp8_weights" else by_row(self.kind, x)

    def product(self, layer: Any, x: torch.Tensor, bias: Any = None) -> torch.Tensor:
        result: torch.Tensor = super().apply(layer, x, bias)
        return result


class Emulation(QuantizationConfig):  # type: ignore[misc]
    """What vllm asks of a quantisation method, for one kind."""

    kind = ""

    def get_name(self) -> str:
        return emulation(self.kind)

    def get_supported_act_dtypes(self) -> list[torch.dtype]:
        return [torch.float32, torch.bfloat16, torch.float16]

    @classmethod
    def get_min_capability(cls) -> int:
        return 0

    @staticmethod
    def get_config_filenames() -> list[str]:
        return []

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Emulation:
        return cls()

    def get_quant_method(self, layer: Any, prefix: str) -> Emulated | None:
        if isinstance(layer, LinearBase):
            return Emulated(self.kind)
        if "Expert" in type(layer).__name__ or "MoE" in type(layer).__name__:
            raise ValueError(
                "quantization is emulated in linear layers; this model has fused experts"
            )
        return None


class Fp8(Emulation):
    kind = "fp8"


class Fp8Weights(Emulation):
    kind = "fp8_weights"


class Int8(Emulation):
    kind = "int8"


def register() -> None:
    """Make the kinds known to vllm in this process."""
    for config in (Fp8, Fp8Weights, Int8):
        register_quantization_config(emulation(config.kind))(config)


# ---------------------------------------------------------------- read back from the live modules


def observed(model: Any) -> tuple[str, dict[str, str]]:
    """What the linear layers do, and a digest of the weights that each works with.

    The weights are read out of the packed kernels (a product with the identity is exact), so that
    nothing depends on what was written into them.
    """
    linears = [
        (name, m) for name, m in model.named_modules()
        if isinstance(getattr(m, "quant_method", None), Emulated)
    ]  # fmt: skip
    if not linears:
        return "none", {}
    kinds = {_kind(layer) for _, layer in linears}
    digests = {name: digest for name, layer in linears for digest in [_digest(layer)]}
    return "+".join(sorted(kinds)), digests


def _kind(layer: Any) -> str:
    """Named by what the layer does: a grid its weights lie on, and whether it rounds its input."""
    method, weight = layer.quant_method, live_weight(layer)
    grid = "int8" if method.kind == "int8" else "fp8"
    if not all(_on_grid(grid, part) for part in weight.split(layer.output_partition_sizes)):
        return "none"
    probe = torch.linspace(-1, 1, weight.shape[1], dtype=weight.dtype).expand(4, -1).contiguous()
    bare, whole = method.product(layer, probe), method.apply(layer, probe)
    if torch.equal(whole, bare):
        return f"{grid}_weights"
    as_rounded = torch.equal(whole, method.product(layer, by_row(grid, probe)))
    return grid if as_rounded else "none"


def live_weight(layer: Any) -> torch.Tensor:
    """(out, in) the weight that the layer's kernel multiplies with, inputs as they are."""
    size = layer.input_size_per_partition
    return by_product(layer, layer.quant_method.product, size, layer.weight)


def _on_grid(grid: str, part: torch.Tensor) -> bool:
    """Rounding what was rounded changes nothing (but for the last bit of a scale)."""
    stored, again = part.float(), quantised(grid, part).float()
    room = 2**-9 * stored.abs() + 1e-6 * stored.abs().amax()
    return bool(((again - stored).abs() <= room).all())


def _digest(layer: Any) -> str:
    """sha256 of the weight in fp32, row-major, no zero negative (a product drops that sign)."""
    return hashlib.sha256((live_weight(layer).float() + 0.0).numpy().tobytes()).hexdigest()
