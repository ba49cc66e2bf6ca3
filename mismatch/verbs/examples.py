"""Windows of tokens before and after, for the viewer: the worst spans of each road and cause."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mismatch.glossary import CAUSES
from mismatch.model import Condition
from mismatch.retokenize.causes import Text
from mismatch.retokenize.drift import Drift, Read
from mismatch.retokenize.rollouts import Rollout
from mismatch.retokenize.spans import across

#: Examples of each road and cause; tokens of the old ids shown before and after the span.
MANY, BEFORE, AFTER = 2, 30, 40


@dataclass(frozen=True, slots=True)
class Scored:
    """One engine's log-probabilities: (road, row) -> (n,), NaN where not scored, inf where the
    engine said NaN. Road "sampled" is the rollout as it was drawn; a row that a road left alone has
    no values of its own there.
    """

    condition: Condition
    path: str
    values: Mapping[tuple[str, int], np.ndarray]


def examples(
    rollouts: Sequence[Rollout],
    reads: Sequence[Read],
    roads: Mapping[str, Sequence[Drift | None]],
    scores: Sequence[Scored],
) -> list[dict[str, Any]]:
    """MANY of each road and cause, of different rollouts: those whose inserted token is the least
    likely by the first engine, and of all of them the least likely first; where nothing was scored
    in the order of roads, causes and rows.
    """
    found = []
    for road, drifts in roads.items():
        for cause in CAUSES:
            picked = _picked(road, cause, drifts, scores)
            found += [
                _example(road, n, k, drifts[n], rollouts[n], reads[n], scores) for n, k in picked
            ]
    return sorted(found, key=lambda example: example["least"] or 0.0)


def _picked(
    road: str, cause: str, drifts: Sequence[Drift | None], scores: Sequence[Scored]
) -> list[tuple[int, int]]:
    """(row, number of the span), at most one of each row."""
    ranked: dict[int, tuple[float, int]] = {}
    for n, drift in enumerate(drifts):
        for k, own in enumerate(drift.causes if drift else ()):
            if own == cause:
                rank = _least(road, n, k, drift, scores)
                ranked[n] = min(ranked.get(n, (np.inf, k)), (rank, k))
    best = sorted(ranked, key=lambda n: (ranked[n][0], n))[:MANY]
    return [(n, ranked[n][1]) for n in best]


def _least(road: str, n: int, k: int, drift: Drift | None, scores: Sequence[Scored]) -> float:
    """The lowest log-probability among a span's inserted ids; 0 where there is none."""
    assert drift is not None
    if not scores or (road, n) not in scores[0].values:
        return 0.0
    span = drift.spans[k]
    values = scores[0].values[road, n][span.c : span.d][drift.inserted[span.c : span.d]]
    values = values[np.isfinite(values)]
    return float(values.min()) if len(values) else 0.0


def _example(
    road: str,
    n: int,
    k: int,
    drift: Drift | None,
    rollout: Rollout,
    read: Read,
    scores: Sequence[Scored],
) -> dict[str, Any]:
    assert drift is not None
    span = drift.spans[k]
    low, high = max(0, span.a - BEFORE), min(len(rollout.ids), span.b + AFTER)
    new_low = across(drift.spans, low, after=False)
    new_high = max(across(drift.spans, high, after=True), span.d)
    lost = _marks(drift, len(rollout.ids), old=True)
    old = (rollout.ids, read.text, rollout.sampled, lost)
    new = (drift.ids, drift.text, drift.trained, _marks(drift, len(drift.ids), old=False))
    return {
        "road": road,
        "cause": drift.causes[k],
        "row": n + 1,
        "group": rollout.group,
        "least": _least(road, n, k, drift, scores) if scores else None,
        "before": _tokens(old, None, low, high, _values("sampled", n, scores)),
        "after": _tokens(new, drift.inserted, new_low, new_high, _values(road, n, scores)),
    }


def _marks(drift: Drift, length: int, *, old: bool) -> list[str]:
    """The cause of each id that a span covers, "" elsewhere."""
    marks = [""] * length
    for span, cause in zip(drift.spans, drift.causes, strict=True):
        a, b = (span.a, span.b) if old else (span.c, span.d)
        marks[a:b] = [cause] * (b - a)
    return marks


def _values(road: str, n: int, scores: Sequence[Scored]) -> dict[str, np.ndarray]:
    return {s.condition.id: s.values[road, n] for s in scores if (road, n) in s.values}


def _tokens(
    side: tuple[np.ndarray, Text, np.ndarray, list[str]],
    inserted: np.ndarray | None,
    low: int,
    high: int,
    values: Mapping[str, np.ndarray],
) -> list[dict[str, Any]]:
    """state: `off` (not trained on), `kept`, `changed` (gone, or moved by a span), `inserted`."""
    ids, text, trained, marks = side
    found = []
    for t in range(low, high):
        state = "off" if not trained[t] else "changed" if marks[t] else "kept"
        if inserted is not None and inserted[t]:
            state = "inserted"
        token: dict[str, Any] = {"position": t, "id": int(ids[t]), "text": text.of(t, t + 1)}
        token |= {"state": state, "cause": marks[t]}
        lps = {name: float(v[t]) for name, v in values.items() if np.isfinite(v[t])}
        found.append({**token, "logprobs": lps} if lps else token)
    return found
