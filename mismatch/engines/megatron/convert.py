"""Which parts of a Hugging Face Llama's tensors a megatron rank holds, and in which order.

Plain data: what reads the parts may be torch or numpy. megatron fuses q, k and v into one matrix
whose rows are group-major (for each key/value group: its query heads, its key, its value), and gate
and up into one; a rank of tensor parallelism holds rows (columns, for what comes after) of each.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mismatch.engines.megatron.llama import Llama

Span = tuple[int, int]  # [start, end)


@dataclass(frozen=True)
class Part:
    """Rows and columns of one tensor of the checkpoint; None = all of them."""

    source: str
    rows: Span | None = None
    columns: Span | None = None


@dataclass(frozen=True)
class Weight:
    """Parts put below each other, then so many rows of zeros."""

    parts: tuple[Part, ...]
    zeros: int = 0


@dataclass(frozen=True)
class Place:
    """Where a rank stands. layers: those of its pipeline stage. fused_norms: Transformer Engine
    keeps a norm in the matrix behind it.
    """

    layers: range
    rank: int = 0
    ranks: int = 1
    first: bool = True
    last: bool = True
    fused_norms: bool = False


def padded_vocabulary(model: Llama, tp: int) -> int:
    """Rows of the embedding: the next multiple of tp. Padded rows are zero, and never scored."""
    return -(-model.vocabulary // tp) * tp


def weights(model: Llama, place: Place) -> dict[str, Weight]:
    """By megatron's parameter name, all that the rank holds."""
    found: dict[str, Weight] = {}
    if place.first:
        found["embedding.word_embeddings.weight"] = _vocabulary(
            model, place, "model.embed_tokens.weight"
        )
    for own, layer in enumerate(place.layers):
        names = _layer(model, place, f"model.layers.{layer}.")
        found |= {f"decoder.layers.{own}.{name}": weight for name, weight in names.items()}
    if place.last:
        found["decoder.final_layernorm.weight"] = _whole("model.norm.weight")
        if not shares_embedding(model, place):
            head = "model.embed_tokens.weight" if model.tied else "lm_head.weight"
            found["output_layer.weight"] = _vocabulary(model, place, head)
    return found


def shares_embedding(model: Llama, place: Place) -> bool:
    """Tied weights are one parameter where one stage has both ends of the model."""
    return model.tied and place.first and place.last


def _layer(model: Llama, place: Place, prefix: str) -> dict[str, Weight]:
    attention, mlp = f"{prefix}self_attn.", f"{prefix}mlp."
    columns = _share(place, model.heads * model.head_dim)
    ffn = _share(place, model.ffn)
    norms = (
        ("self_attention.linear_qkv.layer_norm_weight", "mlp.linear_fc1.layer_norm_weight")
        if place.fused_norms
        else ("input_layernorm.weight", "pre_mlp_layernorm.weight")
    )
    return {
        norms[0]: _whole(f"{prefix}input_layernorm.weight"),
        norms[1]: _whole(f"{prefix}post_attention_layernorm.weight"),
        "self_attention.linear_qkv.weight": Weight(tuple(_qkv(model, place, attention))),
        "self_attention.linear_proj.weight": Weight(
            (Part(f"{attention}o_proj.weight", columns=columns),)
        ),
        "mlp.linear_fc1.weight": Weight(
            tuple(Part(f"{mlp}{name}_proj.weight", rows=ffn) for name in ("gate", "up"))
        ),
        "mlp.linear_fc2.weight": Weight((Part(f"{mlp}down_proj.weight", columns=ffn),)),
    }


def _qkv(model: Llama, place: Place, prefix: str) -> Iterable[Part]:
    """The rank's equal share of the rows of the group-major matrix. With more ranks than groups a
    share cuts through a group, and megatron gathers it.
    """
    size = model.head_dim
    queries = model.heads // model.groups * size
    low, high = _share(place, (queries + 2 * size) * model.groups)
    at = 0
    for group in range(model.groups):
        for name, rows in (("q", queries), ("k", size), ("v", size)):
            start, end = max(low - at, 0), min(high - at, rows)
            if start < end:
                begin = group * rows
                yield Part(f"{prefix}{name}_proj.weight", rows=(begin + start, begin + end))
            at += rows


def _vocabulary(model: Llama, place: Place, source: str) -> Weight:
    low, high = _share(place, padded_vocabulary(model, place.ranks))
    inside = (min(low, model.vocabulary), min(high, model.vocabulary))
    return Weight((Part(source, rows=inside),), zeros=high - low - (inside[1] - inside[0]))


def _share(place: Place, whole: int) -> Span:
    part = whole // place.ranks
    return place.rank * part, (place.rank + 1) * part


def _whole(source: str) -> Weight:
    return Weight((Part(source),))
