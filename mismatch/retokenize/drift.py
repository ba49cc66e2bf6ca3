"""One rollout down two roads: ids -> text -> ids, and ids -> messages -> chat template -> ids."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mismatch.retokenize.causes import Run, Text, causes
from mismatch.retokenize.messages import Turn, parse_turn
from mismatch.retokenize.rollouts import Rollout
from mismatch.retokenize.spans import Span, differences, never_sampled, trained


@dataclass(frozen=True, slots=True)
class Drift:
    """What a road made of one rollout.

    ids: (m,) int32, the new ids. trained: (m,) bool, those that a trainer trains on. inserted: (m,)
    bool, those of them that the policy did not draw there. spans: where old and new differ, each
    with its cause. lost: sampled ids of each span that are gone.
    """

    ids: np.ndarray
    trained: np.ndarray
    inserted: np.ndarray
    spans: tuple[Span, ...]
    causes: tuple[str, ...]
    lost: tuple[int, ...]
    text: Text

    def inserted_by(self, cause: str) -> np.ndarray:
        """(m,) bool: the inserted ids of one cause."""
        found = np.zeros(len(self.ids), bool)
        for span, own in zip(self.spans, self.causes, strict=True):
            if own == cause:
                found[span.c : span.d] = self.inserted[span.c : span.d]
        return found


@dataclass(frozen=True, slots=True)
class Read:
    """A rollout's ids as text, and its sampled turns as messages."""

    text: Text
    runs: tuple[Run, ...]

    @property
    def turns(self) -> list[Turn]:
        return [run.turn for run in self.runs]


def read(rollout: Rollout, answer: Mapping[str, Any], special: Collection[int]) -> Read:
    """The sampled turns of a rollout, parsed. answer: the tokenizer's, with text and ends.

    Special tokens at the end of a turn (its end, padding) are no content.
    """
    text = Text(answer["text"], answer["ends"])
    found = []
    for a, b in rollout.runs:
        last = b
        while last > a and int(rollout.ids[last - 1]) in special:
            last -= 1
        found.append(Run(a, b, text.at(a), parse_turn(text.of(a, last))))
    return Read(text, tuple(found))


def by_text(rollout: Rollout, known: Read, again: Sequence[Mapping[str, Any]]) -> Drift:
    """Each run replaced by its own text encoded anew. again: the tokenizer's answer for each run.

    All ids of a run's new form are trained on; what stands around the runs stays as it is.
    """
    old = rollout.ids.tolist()
    new: list[int] = []
    ends: list[int] = []
    text, spans, end = "", [], 0
    for (a, b), run in zip(rollout.runs, again, strict=True):
        text, ends = _kept(known.text, end, a, text, ends)
        shift, start = len(new) + a - end, len(text)
        new += old[end:a] + list(run["ids"])
        spans += [
            Span(s.a + a, s.b + a, s.c + shift, s.d + shift)
            for s in differences(old[a:b], run["ids"])
        ]
        ends += [start + e for e in run["ends"]]
        text, end = text + run["text"], b
    text, ends = _kept(known.text, end, len(old), text, ends)
    new += old[end:]
    made = Text(text, ends)
    why = ["not_text" if "\ufffd" in known.text.of(s.a, s.b) else "bpe" for s in spans]
    inserted = np.zeros(len(new), bool)
    for span in spans:
        inserted[span.c : span.d] = True
    return _drift(rollout, new, made, spans, why, inserted)


def _kept(old: Text, a: int, b: int, text: str, ends: list[int]) -> tuple[str, list[int]]:
    """`text` and `ends` with those of the old ids [a, b) behind them."""
    shift = len(text) - old.at(a)
    return text + old.of(a, b), ends + [e + shift for e in old.ends[a:b]]


def by_template(
    rollout: Rollout, known: Read, answer: Mapping[str, Any], special: Collection[int]
) -> Drift:
    """The whole conversation as the template renders it. answer: the tokenizer's."""
    old, new = rollout.ids.tolist(), list(answer["ids"])
    made = Text(answer["text"], answer["ends"])
    spans = differences(old, new)
    inserted = never_sampled(spans, rollout.sampled, old, new, special)
    why = causes(spans, known.text, made, known.runs, inserted.tolist())
    return _drift(rollout, new, made, spans, why, inserted)


def _drift(
    rollout: Rollout,
    new: Sequence[int],
    text: Text,
    spans: Sequence[Span],
    why: Sequence[str],
    inserted: np.ndarray,
) -> Drift:
    return Drift(
        np.array(new, np.int32),
        trained(spans, rollout.sampled, inserted),
        inserted,
        tuple(spans),
        tuple(why),
        tuple(int(rollout.sampled[s.a : s.b].sum()) for s in spans),
        text,
    )
