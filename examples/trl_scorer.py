"""TRL's own log-probabilities as the train side: the function that GRPOTrainer's loss calls.

    mismatch-probe run --model CKPT --infer vllm --prompts prompts.jsonl --out out \\
        --train python:file=examples/trl_scorer.py,object=Scorer,batch=4,python=/path/with/trl

Written for trl 1.16. `_get_per_token_logps_and_entropies` is private there, and with it come the
fused head and the autocast of a real run; no trainer, data set or reward is needed for it.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import torch
from accelerate import Accelerator
from transformers import AutoModelForCausalLM
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.utils import add_fused_lm_head


class Scorer:
    """options: arg.dtype (default float32), arg.temperature (default 1) and arg.mixed_precision
    (no, bf16 or fp16; default no), named as in GRPOConfig.
    """

    def __init__(self, model_path: str, options: dict) -> None:
        dtype = getattr(torch, options.get("dtype", "float32"))
        self.temperature = float(options.get("temperature", 1.0))
        self.accelerator = Accelerator(mixed_precision=options.get("mixed_precision", "no"))
        model = AutoModelForCausalLM.from_pretrained(model_path, dtype=dtype)
        self.model = model.to(self.accelerator.device).eval()
        # As GRPOTrainer does with its model.
        add_fused_lm_head(self.model, temperature=self.temperature)

    @torch.no_grad()
    def score(self, sequences: list[np.ndarray]) -> list[np.ndarray]:
        ids, mask = self._padded(sequences)
        # All that the method reads of its trainer is the accelerator.
        trainer = SimpleNamespace(accelerator=self.accelerator)
        logps, _, _ = GRPOTrainer._get_per_token_logps_and_entropies(
            trainer, self.model, ids, mask, logits_to_keep=ids.shape[1] - 1
        )
        rows = logps.float().cpu().numpy()
        return [
            np.append(np.float32(np.nan), row[: len(s) - 1])
            for row, s in zip(rows, sequences, strict=True)
        ]

    def _padded(self, sequences: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, longest) ids and mask, padded on the right as completions are."""
        shape = len(sequences), max(map(len, sequences))
        ids = torch.zeros(shape, dtype=torch.long)
        mask = torch.zeros(shape, dtype=torch.long)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.as_tensor(sequence)
            mask[row, : len(sequence)] = 1
        return ids.to(self.accelerator.device), mask.to(self.accelerator.device)

    def facts(self) -> dict:
        weights = next(self.model.parameters())
        return {
            "dtype": str(weights.dtype),
            "device": str(weights.device),
            "mixed_precision": self.accelerator.mixed_precision,
            "scored_as": {"temperature": self.temperature},
        }
