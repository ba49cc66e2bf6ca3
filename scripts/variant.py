"""Make a variant of a Llama checkpoint whose effect is known beforehand.

    python scripts/variant.py pad-heads SOURCE TARGET
    python scripts/variant.py scale-norm SOURCE TARGET [--layer 15] [--by 1.01]

pad-heads appends one group of attention heads that is all zero (zero rows in q, k and v, zero
columns in o): the same function, with a number of heads that two ranks can share. SmolLM2's 9 heads
in 3 groups become 12 in 4. scale-norm multiplies one layer's input norm: a planted difference.

Run it in an environment that has torch and safetensors (mismatch-probe engines build hf prints
one's interpreter).
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

Tensors = dict[str, torch.Tensor]


def pad_heads(tensors: Tensors, config: dict[str, Any]) -> None:
    """One more group of zero heads in every layer."""
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    size, per_group = config["head_dim"], heads // groups
    for name, tensor in tensors.items():
        width = size * per_group if "q_proj" in name or "o_proj" in name else size
        if any(f"{part}_proj" in name for part in "qkv"):
            zero = tensor.new_zeros((width, tensor.shape[1]))
            tensors[name] = torch.cat([tensor, zero])
        elif "self_attn.o_proj" in name:
            zero = tensor.new_zeros((tensor.shape[0], width))
            tensors[name] = torch.cat([tensor, zero], dim=1)
    config["num_attention_heads"], config["num_key_value_heads"] = heads + per_group, groups + 1


def scale_norm(tensors: Tensors, layer: int, by: float) -> None:
    """The input norm of one layer times a factor, in the checkpoint's own dtype."""
    name = f"model.layers.{layer}.input_layernorm.weight"
    tensors[name] = (tensors[name].float() * by).to(tensors[name].dtype)


def write(source: Path, target: Path, change: Callable[[Tensors, dict[str, Any]], None]) -> None:
    """Copy the folder with its weights and its config changed."""
    shutil.copytree(source, target)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config.setdefault("head_dim", config["hidden_size"] // config["num_attention_heads"])
    for file in target.glob("*.safetensors"):
        tensors = load_file(file)
        change(tensors, config)
        save_file({n: t.contiguous() for n, t in tensors.items()}, file, {"format": "pt"})
    (target / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("kind", choices=("pad-heads", "scale-norm"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--layer", type=int, default=15)
    parser.add_argument("--by", type=float, default=1.01)
    given = parser.parse_args()
    if given.kind == "pad-heads":
        write(given.source, given.target, pad_heads)
    else:
        write(given.source, given.target, lambda t, config: scale_norm(t, given.layer, given.by))


if __name__ == "__main__":
    main()
