"""The bare engine call of bench/overhead.py, in the engine's own interpreter. Answers are dropped.

python bare.py hf|vllm MODEL CORPUS.npz   -> {"path": CPU seconds of the second call}
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np


def sequences(path: str) -> tuple[list[list[int]], list[int]]:
    arrays = np.load(path, allow_pickle=False)
    cuts = list(zip(arrays["offsets"][:-1], arrays["offsets"][1:], strict=True))
    ids = [arrays["ids"][a:b].tolist() for a, b in cuts]
    return ids, [int(np.argmax(arrays["scored"][a:b])) for a, b in cuts]


def second(call: Any) -> float:
    """CPU seconds of the second of two calls."""
    call()
    before = time.process_time()
    call()
    return time.process_time() - before


def hf(model: str, ids: list[list[int]], first: list[int]) -> dict[str, float]:
    import torch
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(
        model, dtype=torch.bfloat16, attn_implementation="sdpa"
    ).eval()

    def score() -> None:
        with torch.no_grad():
            for row in ids:
                tokens = torch.tensor([row])
                logits = net(input_ids=tokens, use_cache=False).logits[0, :-1].float()
                torch.log_softmax(logits, -1).gather(1, tokens[0, 1:, None])

    return {"score": second(score)}


def vllm(model: str, ids: list[list[int]], first: list[int]) -> dict[str, float]:
    from vllm import LLM, SamplingParams

    engine = LLM(model=model, dtype="bfloat16", enforce_eager=True)
    common = {"temperature": 1.0, "flat_logprobs": True, "detokenize": False}

    def decode() -> None:
        """As many tokens from the same prompts, sampled: forcing them is the capture's own cost."""
        engine.reset_prefix_cache()
        params = [
            SamplingParams(max_tokens=len(r) - f, logprobs=0, ignore_eos=True, **common)
            for r, f in zip(ids, first, strict=True)
        ]
        prompts = [{"prompt_token_ids": r[:f]} for r, f in zip(ids, first, strict=True)]
        engine.generate(prompts, params, use_tqdm=False)

    def prefill() -> None:
        engine.reset_prefix_cache()
        params = SamplingParams(max_tokens=1, prompt_logprobs=0, **common)
        engine.generate([{"prompt_token_ids": r} for r in ids], params, use_tqdm=False)

    return {"decode": second(decode), "prefill": second(prefill)}


if __name__ == "__main__":
    given = sequences(sys.argv[3])
    print(json.dumps({"hf": hf, "vllm": vllm}[sys.argv[1]](sys.argv[2], *given)))
