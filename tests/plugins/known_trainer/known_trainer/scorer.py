"""What the entry point names."""

from __future__ import annotations

import numpy as np
import torch

from known_trainer.llama import Llama


class Scorer:
    def __init__(self, model_path: str, options: dict) -> None:
        self.model = Llama(model_path).eval()

    @torch.no_grad()
    def score(self, sequences: list[np.ndarray]) -> list[np.ndarray]:
        return [self._one(torch.as_tensor(ids)) for ids in sequences]

    def _one(self, ids: torch.Tensor) -> np.ndarray:
        logprobs = torch.log_softmax(self.model(ids)[:-1], dim=-1)
        own = logprobs.gather(1, ids[1:, None])[:, 0]
        return np.append(np.float32(np.nan), own.numpy())
