"""Teach SmolLM2-135M to call tools: a policy for the study, as reinforcement learning starts from.

    python make_policy.py MODEL OUT/policy.jsonl TARGET      (in the engines' environment)

Supervised, on the tokens of loss_mask alone: AdamW on the last LAYERS layers and the final norm,
BATCH sequences a step, one pass over the first ROWS, float32 weights under bf16 autocast; saved in
bf16 beside the tokenizer of MODEL.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

ROWS, LAYERS, BATCH, RATE, SEED = 192, 10, 6, 3e-4, 0


def loss_of(model: Any, row: dict[str, Any]) -> torch.Tensor:
    """Mean -ln p over the row's masked tokens."""
    ids = torch.tensor([row["token_ids"]])
    wanted = torch.tensor(row["loss_mask"][1:]).bool()
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.model(ids).last_hidden_state[0, :-1]
        logits = model.lm_head(hidden[wanted])
    return torch.nn.functional.cross_entropy(logits.float(), ids[0, 1:][wanted])


def train(model: Any, rows: list[dict[str, Any]]) -> None:
    model.requires_grad_(False)
    parts = [*model.model.layers[-LAYERS:], model.model.norm]
    learned = [p for part in parts for p in part.requires_grad_(True).parameters()]
    optimizer = torch.optim.AdamW(learned, lr=RATE, weight_decay=0.0)
    steps = range(0, len(rows), BATCH)
    for number, first in enumerate(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (number + 1) / 4) * (1 - number / len(steps))
        batch = rows[first : first + BATCH]
        total = 0.0
        for row in batch:
            loss = loss_of(model, row) / len(batch)
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {number + 1} of {len(steps)}: loss {total:.3f}", flush=True)


def main() -> None:
    source, file, target = map(Path, sys.argv[1:])
    if (target / "config.json").is_file():
        print(f"{target} is there already")
        return
    torch.manual_seed(SEED)
    rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    train(model, rows[:ROWS])
    model.to(torch.bfloat16).save_pretrained(target)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)


if __name__ == "__main__":
    main()
