"""What retokenize.json says: rates by road and cause, each engine's values, and examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from mismatch import store
from mismatch.compare import inserted as measures
from mismatch.glossary import CAUSES
from mismatch.retokenize.drift import Drift, Read
from mismatch.retokenize.rollouts import Rollout
from mismatch.verbs.examples import Scored, examples
from mismatch.verbs.roads import Travelled

SEED = 0


def summary(
    asked: Mapping[str, Any], travelled: Travelled, scores: Sequence[Scored]
) -> dict[str, Any]:
    """retokenize.json. Carries no time, host or path: equal inputs give equal bytes."""
    roads = travelled.roads
    return {
        "schema": store.SCHEMA,
        "command": dict(asked),
        "tokenizer": dict(travelled.about),
        "input": _input(travelled.rollouts, travelled.reads),
        "roads": {road: rates(travelled.rollouts, found) for road, found in roads.items()},
        "groups": {
            name: rates(*_only(travelled.rollouts, roads["template"], name))
            for name in sorted({r.group for r in travelled.rollouts} - {""})
        },
        "scores": [_score(one, travelled) for one in scores],
        "examples": examples(travelled.rollouts, travelled.reads, roads, scores),
    }


def _input(rollouts: Sequence[Rollout], reads: Sequence[Read]) -> dict[str, int]:
    turns = [turn for read in reads for turn in read.turns]
    return {
        "rollouts": len(rollouts),
        "without_messages": sum(r.messages is None for r in rollouts),
        "sampled_tokens": sum(int(r.sampled.sum()) for r in rollouts),
        "turns": len(turns),
        "turns_with_calls": sum(bool(t.calls) for t in turns),
        "rollouts_with_calls": sum(any(t.calls for t in read.turns) for read in reads),
        "turns_that_do_not_parse": sum(t.is_broken for t in turns),
    }


def _only(
    rollouts: Sequence[Rollout], drifts: Sequence[Drift | None], group: str
) -> tuple[list[Rollout], list[Drift | None]]:
    keep = [n for n, r in enumerate(rollouts) if r.group == group]
    return [rollouts[n] for n in keep], [drifts[n] for n in keep]


# ---------------------------------------------------------------- rates


def rates(rollouts: Sequence[Rollout], drifts: Sequence[Drift | None]) -> dict[str, Any]:
    """How often a road changes a rollout, by how many tokens, and why.

    Over the rollouts that took the road. drifted: rollouts of which sampled tokens changed.
    inserted_per_1000, lost_per_1000: of the sampled tokens.
    """
    rows = [(r, d) for r, d in zip(rollouts, drifts, strict=True) if d is not None]
    sampled = np.array([r.sampled.sum() for r, _ in rows])
    found = [d for _, d in rows]
    own = [[c for c in CAUSES if c in d.causes] for d in found]
    changed = sum(any(c != "prompt" for c in causes) for causes in own)
    made = np.array([d.inserted.sum() for d in found])
    lost = np.array([sum(d.lost) for d in found])
    counts = {"inserted": (made, sampled), "lost": (lost, sampled)}
    for cause in CAUSES:
        counts[cause] = (np.array([d.inserted_by(cause).sum() for d in found]), sampled)
    measured = measures.ratios(counts, SEED, per=1000)
    return {
        "rollouts": len(rows),
        "sampled_tokens": int(sampled.sum()),
        "drifted": {"count": changed, **measures.fraction(changed, len(rows))},
        "inserted": {"count": int(made.sum()), "per_1000": measured["inserted"]},
        "lost": {"count": int(lost.sum()), "per_1000": measured["lost"]},
        "causes": {
            cause: _of_cause(cause, found, measured[cause])
            for cause in CAUSES
            if any(cause in causes for causes in own)
        },
    }


def _of_cause(cause: str, drifts: Sequence[Drift], per_1000: Mapping[str, Any]) -> dict[str, Any]:
    count = sum(cause in d.causes for d in drifts)
    lost = [n for d in drifts for c, n in zip(d.causes, d.lost, strict=True) if c == cause]
    return {
        "rollouts": {"count": count, **measures.fraction(count, len(drifts))},
        "spans": sum(d.causes.count(cause) for d in drifts),
        "inserted": int(sum(d.inserted_by(cause).sum() for d in drifts)),
        "inserted_per_1000": dict(per_1000),
        "lost": int(sum(lost)),
    }


# ---------------------------------------------------------------- each engine's values


@dataclass(frozen=True, slots=True)
class _Batch:
    """The trained tokens of a batch, sorted by sequence; each (n,)."""

    sequence: np.ndarray
    logprob: np.ndarray
    inserted: np.ndarray

    def where(self, keep: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.sequence[keep], self.logprob[keep]


def _score(scored: Scored, travelled: Travelled) -> dict[str, Any]:
    """sampled: the rollouts as drawn. roads: what a trainer that took this road trains on, rows
    that it left alone among them.
    """
    drawn = [scored.values["sampled", n] for n in range(len(travelled.rollouts))]
    nothing = [np.zeros(len(values), bool) for values in drawn]
    sampled, lost = _batch(drawn, nothing)
    return {
        "condition": scored.condition.id,
        "spec": scored.condition.spec,
        "path": scored.path,
        "not_finite": lost,
        "sampled": measures.values(*sampled.where(~sampled.inserted)),
        "roads": {
            road: _road(scored, road, drifts, drawn) for road, drifts in travelled.roads.items()
        },
    }


def _road(
    scored: Scored, road: str, drifts: Sequence[Drift | None], drawn: Sequence[np.ndarray]
) -> dict[str, Any]:
    rows = [(n, d) for n, d in enumerate(drifts) if d is not None]
    # A row of which the road left no id has no values; one that it left alone has those drawn.
    logprobs = [scored.values.get((road, n), drawn[n][: len(d.ids)]) for n, d in rows]

    def marked(flags: Callable[[Drift], np.ndarray]) -> _Batch:
        return _batch(logprobs, [flags(d) for _, d in rows])[0]

    whole, lost = _batch(logprobs, [d.inserted for _, d in rows])
    causes = [c for c in CAUSES if any(d.inserted_by(c).any() for _, d in rows)]
    return {
        "rollouts": len(rows),
        "not_finite": lost,
        "kept": measures.values(*whole.where(~whole.inserted)),
        **_inserted(whole),
        "causes": {c: _inserted(marked(lambda d, c=c: d.inserted_by(c))) for c in causes},  # type: ignore[misc]
    }


def _inserted(batch: _Batch) -> dict[str, Any]:
    return {
        "inserted": measures.values(*batch.where(batch.inserted)),
        "share": measures.weights(batch.sequence, batch.logprob, batch.inserted, SEED),
    }


def _batch(logprobs: Sequence[np.ndarray], inserted: Sequence[np.ndarray]) -> tuple[_Batch, int]:
    """Scored tokens of sequences laid end to end, and how many of them were not finite and are left
    out.
    """
    lengths = [len(values) for values in logprobs]
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    values = np.concatenate(logprobs) if logprobs else np.zeros(0)
    flags = np.concatenate(inserted) if inserted else np.zeros(0, bool)
    keep = np.isfinite(values)
    lost = int(np.isinf(values).sum())
    return _Batch(sequence[keep], values[keep].astype(float), flags[keep]), lost
