"""What the page shows first, as data: the headline, and the rows of the table.

The template only places these; every choice (which pair, which floor, what is cut) is made here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from mismatch.glossary import NOT_TRUSTED
from mismatch.report import plots
from mismatch.report.axes import LogAxis, log_axis
from mismatch.report.noise import Noise, compared_floor, floor_mean, is_deterministic, noise
from mismatch.report.pairs import SLOTS, Estimate, Pair, setups
from mismatch.report.words import number

HEADLINES = {
    "more than noise": "The gap is more than noise",
    "not more than noise": "The gap is not more than noise",
    "not resolved": "Not resolved: the gap cannot be told from noise",
    "no floor": "No floor: whether the gap is noise is not known",
    "no interval": "No interval: too few sequences to tell the gap from noise",
    NOT_TRUSTED: "Interval not trusted: the sequences are too few or too unlike",
    "bit-equal": "Bit-equal: the two sides agree exactly",
    "check failed": "A check failed: this may not be numerics",
    "no evidence": "No evidence",
    "failed": "No evidence: the capture failed",
    "unsupported": "No evidence: this machine cannot run it",
}

FLOORS = ("batch", "repeat")


# ---------------------------------------------------------------- the headline


@dataclass(frozen=True, slots=True)
class Level:
    """One line of the headline figure: the gap, or one side against itself."""

    role: str
    name: str
    found: Estimate
    note: str
    strip: Markup


@dataclass(frozen=True, slots=True)
class Hero:
    """The five-second view of one pair."""

    pair: Pair
    noise: Noise
    headline: str
    levels: list[Level]
    floors: float | None
    floor_name: str
    floor_note: str


def hero(first: Pair | None, axis: LogAxis) -> Hero | None:
    """None when nothing was compared."""
    if first is None:
        return None
    found = noise(first)
    floors = floor_mean(first, "k3")
    return Hero(
        pair=first,
        noise=found,
        headline=_headline(first, found, floors),
        levels=_levels(first, axis),
        floors=floors,
        floor_name=compared_floor(first) or "noise",
        floor_note=_floor_note(first, floors),
    )


def _headline(pair: Pair, found: Noise, floors: float | None) -> str:
    """With the number a reader asks for next, where there is one."""
    if pair.nan_tokens or pair.inf_tokens:
        return f"No evidence: {pair.nan_tokens:,} NaN and {pair.inf_tokens:,} infinite tokens"
    gap = pair.metric("k3").value
    if found.verdict == "more than noise" and gap is not None and floors:
        times = number(gap / floors, digits=2)
        return f"{HEADLINES[found.verdict]}: {times} times the floors"
    return HEADLINES[found.verdict]


def _floor_note(pair: Pair, floors: float | None) -> str:
    if floors is not None:
        return "what noise alone would show"
    if compared_floor(pair) is None:
        return "not captured on both sides"
    return "deterministic: that is not the noise"


def _levels(pair: Pair, axis: LogAxis) -> list[Level]:
    found = [("gap", "gap", pair.metric("k3"), "")]
    for name in FLOORS:
        for side, slot in zip(pair.sides, SLOTS, strict=True):
            floor = pair.floor(name, slot, "k3")
            if floor is not None:
                quiet = name == "repeat" and is_deterministic(pair, slot)
                note = "deterministic: not the noise" if quiet else ""
                found.append(("floor", f"{name} floor, {side}", floor, note))
    guide = floor_mean(pair, "k3")
    return [
        Level(role, name, e, note, _strip([plots.Mark(role, name, e)], axis, pair, guide))
        for role, name, e, note in found
    ]


def _strip(marks: Sequence[plots.Mark], axis: LogAxis, pair: Pair, guide: float | None) -> Markup:
    return plots.strip(marks, axis, pair.sequences, guide)


# ---------------------------------------------------------------- the pair table


@dataclass(frozen=True, slots=True)
class TableRow:
    """One pair of the table; a failed one stands there too, with its reason. doubted: whether an
    interval of its strip is not trusted.
    """

    pair: Pair
    noise: Noise
    strip: Markup
    doubted: bool
    floors: list[tuple[str, list[str]]]


def shared_axis(pairs: Sequence[Pair]) -> LogAxis:
    """One k3 axis for the whole page, so that every strip can be compared with every other."""
    found = [p.metric("k3") for p in pairs]
    for pair in pairs:
        for name in FLOORS:
            found += [e for s in SLOTS if (e := pair.floor(name, s, "k3")) is not None]
    return log_axis([v for e in found for v in (e.value, e.low, e.high)])


def groups(pairs: Sequence[Pair], axis: LogAxis) -> list[tuple[str, list[TableRow]]]:
    """(title, rows) for each two conditions."""
    return [(title, [_row(p, axis) for p in members]) for title, members in setups(pairs)]


def _row(pair: Pair, axis: LogAxis) -> TableRow:
    marks = [plots.Mark("gap", "gap", pair.metric("k3"))]
    for side, slot in zip(pair.sides, SLOTS, strict=True):
        floor = pair.floor("batch", slot, "k3")
        if floor is not None:
            marks.insert(0, plots.Mark("floor", f"batch floor, {side}", floor, bar=False))
    strip = _strip(marks, axis, pair, floor_mean(pair, "k3"))
    floors = [(side, _floors(pair, s)) for side, s in zip(pair.sides, SLOTS, strict=True)]
    doubted = not all(mark.found.trusted for mark in marks)
    return TableRow(pair, noise(pair), strip, doubted, floors)


def _floors(pair: Pair, slot: str) -> list[str]:
    said = []
    batch, repeat = (pair.floor(name, slot, "k3") for name in FLOORS)
    if batch is not None:
        said.append(number(batch.value))
    if repeat is not None:
        quiet = is_deterministic(pair, slot)
        said.append("repeat: deterministic" if quiet else f"repeat: {number(repeat.value)}")
    return said or ["not captured"]


# ---------------------------------------------------------------- what was run


def command_facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was asked, as name and value; `study` where there was one."""
    asked = summary.get("command") or summary.get("study") or {}
    if not isinstance(asked, Mapping):
        return [("study", str(asked))]
    return [(str(k), v if isinstance(v, str) else json.dumps(v)) for k, v in asked.items()]
