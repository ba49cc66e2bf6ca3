"""hf: transformers as the training engine, scoring ids the way a trainer's forward pass does."""

from __future__ import annotations

from pathlib import Path

from mismatch.engines.base import Engine, Machine
from mismatch.model import Condition, Option


def refuse(condition: Condition, machine: Machine) -> str | None:
    options = condition.options
    if options.get("attention") in ("flash_attention_2", "flash_attention_3") and not machine.gpus:
        return f"attention={options['attention']} needs a GPU and there is none"
    if options.get("device") == "cuda" and not machine.gpus:
        return "device=cuda needs a GPU and there is none"
    if options.get("padding") and options.get("batch", 1) == 1:
        return "padding has no meaning with one sequence in a batch (batch=1); set batch too"
    return None


ENGINE = Engine(
    name="hf",
    summary="transformers forward pass, the trainer's side",
    paths=frozenset({"score"}),
    options={
        "dtype": Option("str", "weights and compute", ("fp32", "bf16", "fp16")),
        "attention": Option(
            "str",
            "attention implementation",
            ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3"),
        ),
        "batch": Option("batch", "sequences in one forward pass (default 1)", minimum=1,
                        scope="request"),
        "padding": Option("str", "padding side of a batch (default right)", ("left", "right"),
                          scope="request"),
        "device": Option("str", "where the model runs (default: cuda if there is one)",
                         ("cpu", "cuda")),
    },
    imports="transformers",
    distributions=("torch", "transformers", "tokenizers", "accelerate"),
    requirements=Path(__file__).parent / "requirements.txt",
    batch=1,
    observed=("dtype", "attention", "device", "padding"),
    refuse=refuse,
)  # fmt: skip
