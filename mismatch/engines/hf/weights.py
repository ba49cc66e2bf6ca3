"""The weights of a transformers model, whole, by the checkpoint's names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mismatch.engines.weights import digests

HEAD = "lm_head.weight"


def read(model: Any) -> dict[str, Any]:
    """The fact `weights`. Ranks that share the model must all call it: shards are gathered."""
    return {"tensors": digests(_named(model)), "unread": {}}


def _named(model: Any) -> Iterator[tuple[str, Any]]:
    names = set()
    for name, parameter in model.named_parameters():
        plain = name.replace("_orig_mod.", "")  # a compiled module's
        names.add(plain)
        yield plain, _whole(parameter)
    head = model.get_output_embeddings()
    if HEAD not in names and head is not None:  # tied to the embedding, and named once
        yield HEAD, _whole(head.weight)


def _whole(parameter: Any) -> Any:
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
