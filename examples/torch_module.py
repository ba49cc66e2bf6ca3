"""Your own torch.nn.Module as the train side: one forward pass, one log-softmax.

    mismatch-probe run --model CKPT --infer vllm --prompts prompts.jsonl --out out \\
        --train python:file=examples/torch_module.py,object=Scorer,arg.dtype=float32

Replace `load` by your own module; all else may stay.
"""

from __future__ import annotations

import numpy as np
import torch
from transformers import AutoModelForCausalLM


def load(model_path: str, dtype: torch.dtype) -> torch.nn.Module:
    """Any module with (batch, n) ids -> an output whose `logits` are (batch, n, vocabulary)."""
    return AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype).eval()


class Scorer:
    """The whole contract; arg.NAME=VALUE of the condition arrives in `options`."""

    def __init__(self, model_path: str, options: dict) -> None:
        self.device = torch.device(options.get("device", "cpu"))
        dtype = getattr(torch, options.get("dtype", "float32"))
        self.model = load(model_path, dtype).to(self.device)

    @torch.no_grad()
    def score(self, sequences: list[np.ndarray]) -> list[np.ndarray]:
        return [self._one(torch.as_tensor(ids, device=self.device)) for ids in sequences]

    def _one(self, ids: torch.Tensor) -> np.ndarray:
        """(n,) ids -> (n,) ln p(ids[t] | ids[:t]); entry 0 has nothing before it."""
        logits = self.model(ids[None]).logits[0, :-1].float()
        logprobs = torch.log_softmax(logits, dim=-1).gather(1, ids[1:, None])[:, 0]
        return np.append(np.float32(np.nan), logprobs.cpu().numpy())

    def facts(self) -> dict:
        weights = next(self.model.parameters())
        return {"dtype": str(weights.dtype), "device": str(weights.device)}
