"""Digests of weights as an engine holds them, by the checkpoint's own names; runs in the guest.

Two engines load one checkpoint into other dtypes, fused matrices and padded vocabularies. Told
apart by name and digested in every dtype that a tensor can be rounded to, the same weights have the
same digest wherever they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from mismatch.engines.dtypes import DTYPES, SHORT, short

#: What a tensor is rounded to beside its own dtype. bf16 into fp16 too: where that is exact, a bf16
#: and a fp16 copy of one checkpoint meet there.
ROUNDED = {"fp32": ("bf16", "fp16"), "bf16": ("fp16",), "fp16": ("bf16",)}

#: Bits as an integer of the same size: numpy has no bf16.
_BITS = {4: torch.int32, 2: torch.int16, 8: torch.int64, 1: torch.int8}


def digests(tensors: Iterable[tuple[str, Any]]) -> dict[str, dict[str, str]]:
    """name -> {"dtype": its own, and for each dtype it was digested in 16 hex digits of sha256}.

    A tensor may come in pieces of one name (experts, shards of a fused matrix), in order.
    """
    hashes: dict[str, dict[str, Any]] = {}
    dtypes: dict[str, str] = {}
    for name, tensor in tensors:
        own = dtypes.setdefault(name, short(tensor.dtype))
        kept = hashes.setdefault(name, {d: hashlib.sha256() for d in (own, *ROUNDED.get(own, ()))})
        plain = tensor.detach().cpu()
        for dtype, digest in kept.items():
            digest.update(_bytes(plain.to(DTYPES.get(dtype, plain.dtype))))
    return {
        name: {"dtype": dtypes[name], **{d: h.hexdigest()[:16] for d, h in kept.items()}}
        for name, kept in hashes.items()
    }


def _bytes(tensor: Any) -> memoryview:
    """Row-major, and no zero negative: reading a weight by a product loses that sign, and rounding
    to fewer bits makes such zeros. torch adds nothing to 8-bit floats, which no product reads.
    """
    tensor = tensor + 0 if tensor.dtype in SHORT else tensor
    bits = tensor.contiguous().view(_BITS[tensor.element_size()]).numpy()
    found: memoryview = bits.reshape(-1).data
    return found


# ---------------------------------------------------------------- as vllm and sglang hold them

#: A fused matrix's parts, in order, by the names a checkpoint gives them.
PARTS = {"qkv_proj": ("q_proj", "k_proj", "v_proj"), "gate_up_proj": ("gate_proj", "up_proj")}
#: Stacked experts, by the names transformers gives them.
EXPERTS = {"w13_weight": "gate_up_proj", "w2_weight": "down_proj"}

#: (layer, its weight) -> the (out, in) weight that its kernel multiplies with, or why it cannot
#: be read.
Live = Callable[[Any, Any], Any]


def unfused(
    model: Any, linear: Any, embedding: Any, live: Live, unread: dict[str, str]
) -> Iterator[tuple[str, Any]]:
    """Every tensor by its name in the checkpoint, whole and without the vocabulary's padding.

    linear, embedding: the engine's classes. What cannot be read is named in `unread`.
    """
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            tensor = parameter
            at = f"{prefix}.{name}" if prefix else name
            if name in EXPERTS:
                at = f"{prefix.removesuffix('.routed_experts')}.{EXPERTS[name]}"
            if name in ("weight", *EXPERTS):
                tensor = live(module, parameter)
            if isinstance(tensor, str):
                unread[at] = tensor
            elif isinstance(module, linear):
                parts = _split(prefix, name, module, tensor)
                if not parts:
                    unread[at] = "it lies in its kernel's own layout"
                yield from parts
            elif isinstance(module, embedding):
                yield at, tensor[: module.org_vocab_size]
            else:
                yield at, tensor


def _split(prefix: str, name: str, module: Any, weight: Any) -> list[tuple[str, Any]]:
    """The parts of a fused matrix; none where its rows are not theirs, as a kernel for quantised
    weights may want columns, or hold one scale for all.
    """
    above, _, last = prefix.rpartition(".")
    if last not in PARTS:
        return [(f"{prefix}.{name}", weight)]
    sizes = list(module.output_partition_sizes)
    if not weight.dim() or len(weight) != sum(sizes):
        return []
    rows = zip(PARTS[last], weight.split(sizes), strict=True)
    return [(f"{above}.{part}.{name}", part_rows) for part, part_rows in rows]


def shown(tensors: Iterator[tuple[str, Any]], unread: dict[str, str], ranks: int) -> dict[str, Any]:
    """The fact `weights` of an engine of so many ranks."""
    if ranks > 1:
        return {"tensors": {}, "unread": {"all": f"they are split over {ranks} ranks"}}
    return {"tensors": digests(tensors), "unread": unread}
