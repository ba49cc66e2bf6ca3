"""Where two lists of ids differ, and which ids of the new list a trainer would train on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np


@dataclass(frozen=True, slots=True)
class Span:
    """old[a:b] was replaced by new[c:d]; one of the two may be empty."""

    a: int
    b: int
    c: int
    d: int


def differences(old: Sequence[int], new: Sequence[int]) -> list[Span]:
    """The spans in which new differs from old, in order; none where they are equal.

    Between two spans the lists are equal. What is common at both ends is cut off first, since the
    matcher's time grows with the square of what is left.
    """
    head = _common(old, new)
    tail = min(_common(old[::-1], new[::-1]), len(old) - head, len(new) - head)
    left, right = old[head : len(old) - tail], new[head : len(new) - tail]
    codes = SequenceMatcher(None, left, right, autojunk=False).get_opcodes()
    return [
        Span(head + a, head + b, head + c, head + d) for tag, a, b, c, d in codes if tag != "equal"
    ]


def _common(old: Sequence[int], new: Sequence[int]) -> int:
    """How many ids are equal from the start."""
    pairs = zip(old, new, strict=False)
    return next((k for k, (x, y) in enumerate(pairs) if x != y), min(len(old), len(new)))


def across(spans: Sequence[Span], at: int, *, after: bool) -> int:
    """Where the boundary before old[at] lies in new; inside a span at its start or (after) end."""
    shift = 0
    for span in spans:
        if at < span.a or (at == span.a and not after):
            break
        if at < span.b:
            return span.d if after else span.c
        shift = span.d - span.b
    return at + shift


def never_sampled(
    spans: Sequence[Span], sampled: np.ndarray, old: Sequence[int], new: Sequence[int],
    special: Collection[int],
) -> np.ndarray:  # fmt: skip
    """(len(new),) bool: ids that a trainer trains on and the policy did not draw there.

    Of a span they are all of its new ids where a sampled id was replaced, or where they stand
    before a sampled id. After the last id of a run only the end of turn counts that the run did
    not have: what follows is the next message's.
    """
    found = np.zeros(len(new), bool)
    for span in spans:
        if sampled[span.a : span.b].any() or _before_sampled(span, sampled):
            found[span.c : span.d] = True
        elif _closes(span, sampled, old, special) and new[span.c] in special:
            found[span.c] = True
    return found


def _before_sampled(span: Span, sampled: np.ndarray) -> bool:
    return span.a == span.b and span.a < len(sampled) and bool(sampled[span.a])


def _closes(span: Span, sampled: np.ndarray, old: Sequence[int], special: Collection[int]) -> bool:
    """New ids right behind a run that was cut before its end of turn."""
    cut = span.a > 0 and bool(sampled[span.a - 1]) and old[span.a - 1] not in special
    return cut and span.c < span.d


def trained(spans: Sequence[Span], sampled: np.ndarray, inserted: np.ndarray) -> np.ndarray:
    """(len(new),) bool: sampled ids that are still there, and `inserted` ones."""
    keep = inserted.copy()
    end_old = end_new = 0
    for span in [*spans, Span(len(sampled), len(sampled), len(inserted), len(inserted))]:
        keep[end_new : span.c] |= sampled[end_old : span.a]
        end_old, end_new = span.b, span.d
    return keep
