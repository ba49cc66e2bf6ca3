"""What the rungs read: both sides of one pair, on the tokens they scored; and how they answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from mismatch.compare.distribution import Top
from mismatch.compare.stats import begins
from mismatch.model import split_spec

Row = dict[str, str]


@dataclass(frozen=True)
class Side:
    """name: train, infer, left or right. logprob: (n,) float32 nats of the scored tokens.

    facts: what was observed in the live engine; empty for a dump that somebody recorded.
    """

    name: str
    logprob: np.ndarray
    provenance: Mapping[str, Any]
    top: Top | None = None
    entropy: np.ndarray | None = None

    @property
    def facts(self) -> Mapping[str, Any]:
        return self.provenance.get("facts") or {}

    @property
    def is_dump(self) -> bool:
        """Somebody recorded the values; what ran is not known."""
        return not self.facts or "recorded" in self.facts

    @property
    def observed(self) -> Mapping[str, Any]:
        return self.facts.get("observed") or {}

    @property
    def asked(self) -> Mapping[str, str]:
        """The options of its condition; a dump may have none."""
        return split_spec(str(self.provenance.get("condition", "unknown")))[1]


@dataclass(frozen=True)
class Evidence:
    """One pair. sequence, position, token_id: (n,) of the scored tokens, sorted by sequence.

    ids: every sequence whole, scored or not. sampled_by, metrics, routes (None where a side has
    none) and replayed: as in summary.json.
    """

    left: Side
    right: Side
    sequence: np.ndarray
    position: np.ndarray
    token_id: np.ndarray
    ids: tuple[np.ndarray, ...]
    sampled_by: str
    metrics: Mapping[str, Mapping[str, float | None]]
    routes: Mapping[str, Any] | None = None
    replayed: Mapping[str, str] = field(default_factory=dict)

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.left, self.right

    def estimate(self, key: str) -> Mapping[str, float | None]:
        """A metric of summary.json; empty where it is not there."""
        return self.metrics.get(key) or {}

    @cached_property
    def finite(self) -> np.ndarray:
        """(n,) finite on both sides: the others are counted elsewhere and say nothing here."""
        return np.asarray(np.isfinite(self.left.logprob) & np.isfinite(self.right.logprob))

    @cached_property
    def d(self) -> np.ndarray:
        """(n,) float64 nats, left - right; 0 where a side is not finite."""
        with np.errstate(invalid="ignore"):
            d = self.left.logprob.astype(np.float64) - self.right.logprob.astype(np.float64)
        return np.where(self.finite, d, 0.0)

    @cached_property
    def rows(self) -> list[slice]:
        """The scored tokens of each sequence that has any."""
        starts = begins(self.sequence)
        ends = np.append(starts, len(self.sequence))[1:]
        return [slice(int(a), int(b)) for a, b in zip(starts, ends, strict=True)]

    @cached_property
    def run_starts(self) -> np.ndarray:
        """(n,) the first token of each contiguous scored stretch: a turn, where masks have gaps."""
        new = np.diff(self.sequence, prepend=-1) != 0
        return np.asarray(new | (np.diff(self.position, prepend=-1) != 1))


def passed(rung: str, evidence: str) -> Row:
    return {"rung": rung, "verdict": "pass", "evidence": evidence, "todo": ""}


def unchecked(rung: str, evidence: str, todo: str = "") -> Row:
    return {"rung": rung, "verdict": "not checked", "evidence": evidence, "todo": todo}


def failed(rung: str, fault: str, evidence: str, todo: str) -> Row:
    """fault: one word for machines; the self-test asks for it by name."""
    return {"rung": rung, "verdict": "fail", "fault": fault, "evidence": evidence, "todo": todo}
