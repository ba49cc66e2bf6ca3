"""A tokenizer of a few pieces, so that what a road does is known beforehand."""

from __future__ import annotations

from typing import Any

import numpy as np

from mismatch.retokenize.rollouts import Rollout

END = 0
#: Id -> text. Longer pieces first: the tokenizer takes the longest that fits.
PIECES = ["<end>", "<tool_call>", "</tool_call>", "<think>", "</think>", "user:", "bot:",
          '{"name": ', '"arguments": ', ", ", ": ", "hello", "he", "llo", "\ufffd",
          '"}', "}}",
          *(chr(c) for c in range(32, 127)), "\n"]  # fmt: skip


def encode(text: str) -> list[int]:
    ids = []
    while text:
        piece = max((p for p in PIECES if text.startswith(p)), key=len)
        ids.append(PIECES.index(piece))
        text = text[len(piece) :]
    return ids


def answer(ids: list[int]) -> dict[str, Any]:
    """What the tokenizer's guest says of ids."""
    lengths = np.cumsum([len(PIECES[i]) for i in ids])
    return {
        "ids": ids,
        "text": "".join(PIECES[i] for i in ids),
        "ends": [int(n) for n in lengths],
    }


def ids_of(*parts: str) -> list[int]:
    """Each part encoded by itself: `he`, `llo` are two ids, `hello` is one."""
    return [i for part in parts for i in encode(part)]


def rollout(*parts: tuple[str, bool]) -> Rollout:
    """(text, whether it was sampled) one after the other."""
    ids, mask = [], []
    for text, sampled in parts:
        own = encode(text)
        ids += own
        mask += [sampled] * len(own)
    return Rollout(np.array(ids, np.int32), np.array(mask, bool), None, None, "")
