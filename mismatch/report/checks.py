"""Preflight rungs of all pairs, with the same answer told once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mismatch.report.pairs import Check, Pair

_ORDER = ("fail", "not checked", "pass")

NOT_RUN = "No check for a shift, a wrong mask or stale weights ran: they would look like a gap."


def grouped(pairs: Sequence[Pair]) -> list[tuple[Check, list[str]]]:
    """(check, ids of the pairs it was made on): failures first, then what was not checked.

    The `capture` rung is left out: it is a failed pair, and shown as one.
    """
    found: dict[Check, list[str]] = {}
    for pair in pairs:
        for check in pair.checks:
            if check.rung != "capture":
                found.setdefault(check, []).append(pair.id)
    return sorted(found.items(), key=lambda item: _rank(item[0].verdict))


def climbed(pairs: Sequence[Pair]) -> list[tuple[Check, list[str]]]:
    """The same in the order of the rungs; of one rung, failures first."""
    order = [rung.name for rung in rungs(pairs)]
    return sorted(grouped(pairs), key=lambda item: order.index(item[0].rung))


def tally(pairs: Sequence[Pair]) -> str:
    """`1 fail, 5 not checked, 10 pass`, over all pairs."""
    verdicts = [check.verdict for check, ids in grouped(pairs) for _ in ids]
    return ", ".join(f"{verdicts.count(v)} {v}" for v in sorted(set(verdicts), key=_rank))


@dataclass(frozen=True, slots=True)
class Rung:
    """One rung over all pairs: its worst verdict decides the colour."""

    name: str
    said: str
    tone: str


def rungs(pairs: Sequence[Pair]) -> list[Rung]:
    """In the order they are climbed; `pass on 6`, or `2 fail, 4 pass`."""
    found: dict[str, list[str]] = {}
    for check in (c for pair in pairs for c in pair.checks if c.rung != "capture"):
        found.setdefault(check.rung, []).append(check.verdict)
    return [Rung(name, _said(verdicts), _TONES[_rank(min(verdicts, key=_rank))])
            for name, verdicts in found.items()]  # fmt: skip


_TONES = ("broken", "unknown", "calm")


def _said(verdicts: Sequence[str]) -> str:
    kinds = sorted(set(verdicts), key=_rank)
    if len(kinds) == 1:
        return kinds[0]
    return ", ".join(f"{verdicts.count(v)} {v}" for v in kinds)


def _rank(verdict: str) -> int:
    return _ORDER.index(verdict) if verdict in _ORDER else 0


#: As many pairs are named one by one.
_NAMED = 6


def where(ids: Sequence[str], pairs: Sequence[Pair]) -> str:
    """Some of the pairs that were measured, in few words."""
    measured = [p for p in pairs if p.tokens]
    if len(ids) == len(measured) > 1:
        return f"all {len(ids)} pairs"
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return ", ".join(ids[:_NAMED]) + more
