"""hf: transformers as the training engine, scoring ids the way a trainer's forward pass does."""

from __future__ import annotations

from pathlib import Path

from mismatch.engines.base import DISTRIBUTION, ROUTES, SAMPLER, Engine, Machine
from mismatch.engines.hf import refusals
from mismatch.model import Condition, Option


def refuse(condition: Condition, machine: Machine) -> str | None:
    if condition.options.get("device") == "cpu" and machine.gpus and "tp" in condition.options:
        return "tp with device=cpu: transformers puts its ranks on the GPUs where there are any"
    return refusals.reason(condition.options, machine.gpus)


def ranks(condition: Condition) -> int:
    """Processes that share the model, or the sequence: tp, fsdp or cp (one of them)."""
    sizes = [condition.options.get(name, 1) for name in refusals.PARALLEL]
    return max(size for size in sizes if isinstance(size, int))


def environment(condition: Condition) -> dict[str, str]:
    """cuBLAS reads how it may use its workspace when it starts, before any Python of ours."""
    if condition.options.get("deterministic") is True:
        return {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
    return {}


#: What needs a model of its own.
LOAD = {
    "dtype": Option("str", "weights and compute", ("fp32", "bf16", "fp16")),
    "attention": Option(
        "str",
        "attention implementation",
        ("eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3"),
    ),
    "device": Option("str", "where the model runs (default: cuda if there is one)",
                     ("cpu", "cuda")),
    "compile": Option("bool", "torch.compile of the whole model"),
    "tp": Option("int", "tensor parallel ranks, by the model's own plan", minimum=1, maximum=1024),
    "fsdp": Option("int", "FSDP2 ranks, every layer and the root sharded", minimum=2,
                   maximum=1024),
    "cp": Option("int", "context parallel ranks (torch's ring attention)", minimum=2,
                 maximum=1024),
    "fsdp_mixed": Option("str", "dtype in which FSDP gathers its fp32 weights", ("bf16", "fp16")),
    "lm_head": Option("str", "dtype of the last projection alone", ("fp32",)),
    "quantization": Option("str", "emulated in the decoder's linear layers",
                           ("fp8", "fp8_weights", "int8")),
    "tf32": Option("bool", "fp32 products in TF32 on a GPU"),
    "deterministic": Option("bool", "torch's deterministic algorithms"),
    "threads": Option("int", "threads of one rank on a CPU", minimum=1, maximum=1024),
}  # fmt: skip

#: What may change from one capture to the next.
REQUEST = {
    "batch": Option("batch", "sequences in one forward pass (default 1)", minimum=1,
                    scope="request"),
    "padding": Option("str", "padding side of a batch (default right)", ("left", "right"),
                      scope="request"),
    "packing": Option("bool", "a batch in one row, positions reset, no padding", scope="request"),
    "autocast": Option("str", "torch.autocast over fp32 weights", ("bf16", "fp16"),
                       scope="request"),
    "sdpa_kernel": Option("str", "the one kernel that sdpa may use",
                          ("math", "flash", "efficient", "cudnn"), scope="request"),
    "logits": Option("str", "whole, or the head over N positions at a time", scope="request",
                     pattern=r"whole|chunked:[1-9]\d{0,5}", takes_text="whole|chunked:N"),
    "logprob_dtype": Option("str", "logits are cast to it before log-softmax (default fp32)",
                            ("fp32", "model", "fp64"), scope="request"),
    "cache": Option("str", "decode token by token with a KV cache (default none)",
                    ("none", "dynamic", "static"), scope="request"),
    "routes": ROUTES,
    "replay_routes": Option("bool", "tokens go to the experts that the rollout sent them to",
                            scope="request"),
    "damage": Option("str", "breaks the model on purpose: for `selftest` alone",
                     ("steps", "other", "embedding", "rope", "logits", "lse"), scope="request"),
    **SAMPLER,
    **DISTRIBUTION,
}  # fmt: skip


ENGINE = Engine(
    name="hf",
    summary="transformers forward pass, the trainer's side",
    paths=frozenset({"score"}),
    options={**LOAD, **REQUEST},
    imports="transformers",
    distributions=("torch", "transformers", "tokenizers", "accelerate"),
    requirements=Path(__file__).parent / "requirements.txt",
    batch=1,
    # How many share a forward pass is the capture's: the floor's differs from the condition's.
    observed=tuple(name for name in (*LOAD, *REQUEST) if name not in ("batch", "damage")),
    refuse=refuse,
    environment=environment,
    ranks=ranks,
)
