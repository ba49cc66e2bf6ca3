"""A dense Llama (tied or untied head, no biases) as one torch.nn.Module, without a KV cache."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional


class Llama(nn.Module):
    """(n,) ids -> (n, vocabulary) logits of the next token, in float32 whatever the file holds."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.config = json.loads((Path(folder) / "config.json").read_text())
        weights = load_file(f"{folder}/model.safetensors")
        self.weights = nn.ParameterDict(
            {name.replace(".", "/"): weight.float() for name, weight in weights.items()}
        )
        self.heads = self.config["num_attention_heads"]
        self.groups = self.config["num_key_value_heads"]

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self._weight("model.embed_tokens")[ids]
        for layer in range(self.config["num_hidden_layers"]):
            at = f"model.layers.{layer}"
            x = x + self._attention(f"{at}.self_attn", self._norm(f"{at}.input_layernorm", x))
            x = x + self._mlp(f"{at}.mlp", self._norm(f"{at}.post_attention_layernorm", x))
        tied = "lm_head/weight" not in self.weights
        head = self._weight("model.embed_tokens" if tied else "lm_head")
        return self._norm("model.norm", x) @ head.T

    def _weight(self, name: str) -> torch.Tensor:
        return self.weights[f"{name}.weight".replace(".", "/")]

    def _norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        weight = self._weight(name)
        return functional.rms_norm(x, weight.shape, weight, self.config["rms_norm_eps"])

    def _mlp(self, at: str, x: torch.Tensor) -> torch.Tensor:
        gate = functional.silu(x @ self._weight(f"{at}.gate_proj").T)
        return (gate * (x @ self._weight(f"{at}.up_proj").T)) @ self._weight(f"{at}.down_proj").T

    def _attention(self, at: str, x: torch.Tensor) -> torch.Tensor:
        q, k, v = (self._split(x @ self._weight(f"{at}.{p}_proj").T, p) for p in "qkv")
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return mixed.transpose(0, 1).reshape(len(x), -1) @ self._weight(f"{at}.o_proj").T

    def _split(self, x: torch.Tensor, part: str) -> torch.Tensor:
        """(n, heads * size) -> (heads, n, size), queries and keys rotated."""
        heads = self.heads if part == "q" else self.groups
        x = x.reshape(len(x), heads, -1).transpose(0, 1)
        return x if part == "v" else self._rotated(x)

    def _rotated(self, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        theta = self.config["rope_parameters"]["rope_theta"]
        steps = theta ** (-torch.arange(half) / half)
        angles = torch.outer(torch.arange(x.shape[1]), steps)
        a, b = x[..., :half], x[..., half:]
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)
