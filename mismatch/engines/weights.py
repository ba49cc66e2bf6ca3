"""Digests of weights as an engine holds them, by the checkpoint's own names; runs in the guest.

Two engines load one checkpoint into other dtypes, fused matrices and padded vocabularies. Told
apart by name and digested in every dtype that a tensor can be rounded to, the same weights have the
same digest wherever they are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch

from mismatch.engines.dtypes import DTYPES, short

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
        for dtype, digest in kept.items():
            digest.update(_bytes(tensor, DTYPES.get(dtype, tensor.dtype)))
    return {
        name: {"dtype": dtypes[name], **{d: h.hexdigest()[:16] for d, h in kept.items()}}
        for name, kept in hashes.items()
    }


def _bytes(tensor: Any, dtype: Any) -> memoryview:
    """Row-major, and no zero negative: reading a weight by a product loses that sign."""
    plain = (tensor.detach() + 0).to(dtype).contiguous().cpu()
    bits: memoryview = plain.view(_BITS[plain.element_size()]).numpy().reshape(-1).data
    return bits
