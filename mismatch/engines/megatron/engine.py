"""megatron: megatron-core's GPTModel as the training engine, scoring ids in one forward pass."""

from __future__ import annotations

import math
from pathlib import Path

from mismatch.engines.base import DISTRIBUTION, SAMPLER, Engine, Machine
from mismatch.engines.megatron import refusals
from mismatch.model import Condition, Option


def refuse(condition: Condition, machine: Machine) -> str | None:
    return refusals.reason(condition.options, machine.gpus)


def ranks(condition: Condition) -> int:
    """Processes that share the model and the sequence: tp x pp x cp."""
    sizes = [condition.options.get(name, 1) for name in ("tp", "pp", "cp")]
    return math.prod(size for size in sizes if isinstance(size, int))


def environment(condition: Condition) -> dict[str, str]:
    """As megatron's launchers set it: kernels of tp are queued in the order they were issued."""
    return {"CUDA_DEVICE_MAX_CONNECTIONS": "1"} if condition.options.get("tp", 1) != 1 else {}


#: What needs a model of its own.
LOAD = {
    "dtype": Option("str", "weights and compute (default fp32, as TransformerConfig's)",
                    ("fp32", "bf16", "fp16")),
    "attention": Option(
        "str",
        "attention backend; local is megatron's own modules, the rest are Transformer Engine's "
        "(default: local on a CPU, auto on a GPU)",
        ("local", "unfused", "fused", "flash", "auto"),
    ),
    "tp": Option("int", "tensor parallel ranks", minimum=1, maximum=1024),
    "sp": Option("bool", "sequence parallelism over the ranks of tp"),
    "pp": Option("int", "pipeline stages", minimum=1, maximum=1024),
    "cp": Option("int", "context parallel ranks", minimum=1, maximum=1024),
    "ep": Option("int", "expert parallel ranks (of a dense model: 1)", minimum=1, maximum=1024),
    "threads": Option("int", "threads of one rank on a CPU", minimum=1, maximum=1024),
}  # fmt: skip

#: What may change from one capture to the next.
REQUEST = {
    "batch": Option("batch", "sequences in one forward pass, padded right (default 1)", minimum=1,
                    scope="request"),
    "logprob_dtype": Option("str", "logits are cast to it before log-softmax (default fp32)",
                            ("fp32", "model", "fp64"), scope="request"),
    **SAMPLER,
    **DISTRIBUTION,
}  # fmt: skip


ENGINE = Engine(
    name="megatron",
    summary="megatron-core forward pass, the trainer's side",
    paths=frozenset({"score"}),
    options={**LOAD, **REQUEST},
    imports="megatron.core",
    distributions=("megatron-core", "torch"),
    requirements=Path(__file__).parent / "requirements.txt",
    batch=1,
    # How many share a forward pass is the capture's: the floor's differs from the condition's.
    observed=tuple(name for name in (*LOAD, *REQUEST) if name != "batch"),
    refuse=refuse,
    environment=environment,
    ranks=ranks,
)
