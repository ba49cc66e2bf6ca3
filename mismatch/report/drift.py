"""What builds up over a sequence: D against length, what is left of the sample, and who agrees."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from mismatch.report.axes import LinearAxis, linear_axis
from mismatch.report.pairs import Agreement, Estimate, Prefix
from mismatch.report.sequences import Sequences
from mismatch.report.svg import (
    DOT,
    HEIGHT,
    LINE,
    TEXT,
    Point,
    anchor,
    box,
    feet,
    levels,
    line,
    short,
    stairs,
    svg,
    y_of,
)
from mismatch.report.words import count, number, with_interval

#: Sequences drawn one by one; beyond that those with the largest |D|, and every k-th of the others.
DRAWN, EXTREME = 1200, 200


@dataclass(frozen=True, slots=True)
class Drift:
    """drawing, and what its caption must say of it."""

    drawing: Markup
    drawn: int
    step: int
    sequences: int
    slope: Estimate


def drift(found: Sequences, slope: Estimate, sequences: int) -> Drift | None:
    """D of each sequence against its length, with the line of least squares; None without a token.

    slope: per 1,000 tokens, as the metrics have it: the line goes through the means with that.
    """
    length, total = (column[found.finite > 0] for column in (found.finite, found.total))
    if not len(length):
        return None
    chosen, step = _thinned(total)
    x = linear_axis([float(length.max())])
    y = linear_axis([float(total.min()), float(total.max())])
    parts = [*levels(y.ticks), *feet(x.ticks)]
    numbers = found.number[found.finite > 0]
    for k in chosen.tolist():
        at, up = x.at(float(length[k])), y.at(float(total[k]))
        size = count(int(length[k]), "token")
        said = f"sequence {numbers[k]}: D = {number(float(total[k]))}, {size}"
        parts.append(DOT.format("dot gap faint", 100 * at, y_of(up), 3, said))
    parts.append(box(_lines(length, total, slope, x, y)))
    label = (
        f"D against length of {len(chosen):,} sequences; slope {with_interval(slope, sequences)}"
    )
    return Drift(svg(HEIGHT + 22, label, parts), len(chosen), step, len(length), slope)


def _thinned(total: np.ndarray) -> tuple[np.ndarray, int]:
    """Indices of what is drawn, ascending, and of how many that are not extreme one is."""
    if len(total) <= DRAWN:
        return np.arange(len(total)), 1
    extreme = np.sort(np.argsort(-np.abs(total), kind="stable")[:EXTREME])
    is_other = np.ones(len(total), bool)
    is_other[extreme] = False
    others = np.flatnonzero(is_other)
    step = math.ceil(len(others) / (DRAWN - EXTREME))
    return np.union1d(extreme, others[::step]), step


def _lines(
    length: np.ndarray, total: np.ndarray, slope: Estimate, x: LinearAxis, y: LinearAxis
) -> list[Markup]:
    """The slope solid, the ends of its interval dashed, all through the means."""
    middle, level = float(length.mean()), float(total.mean())
    ends = (float(length.min()), float(length.max()))
    drawn = []
    for role, value in (("guide", slope.low), ("guide", slope.high), ("curve fit", slope.value)):
        if value is not None and ends[0] < ends[1]:
            rises = [(x.at(e), y.at(level + value / 1000 * (e - middle))) for e in ends]
            drawn.append(line(role, rises))
    return drawn


def ess(rows: Sequence[Prefix], sequences: int) -> Markup:
    """ESS / n of the sequences' first so many tokens, and what k3 alone predicts."""
    axis = LinearAxis(0.0, 1.0, 0.25)
    parts = levels(axis.ticks)
    places = [(k + 0.5) / len(rows) for k in range(len(rows))]
    known = [
        (at, r.predicted) for at, r in zip(places, rows, strict=True) if r.predicted is not None
    ]
    if len(known) > 1:
        parts.append(box([line("curve expected", known)]))
    for at, row in zip(places, rows, strict=True):
        parts += _share(row.ess, 100 * at, sequences)
        parts.append(TEXT.format("tick mid", 100 * at, HEIGHT + 16, short(row.length)))
        parts.append(
            TEXT.format("tick mid dim", 100 * at, HEIGHT + 28, f"n={short(row.sequences)}")
        )
    return svg(HEIGHT + 34, f"effective sample size at {len(rows)} lengths", parts)


def _share(found: Estimate, x: float, sequences: int) -> list[Markup]:
    if found.value is None:
        return []
    parts = []
    if found.low is not None and found.high is not None:
        parts.append(LINE.format("range thin gap", x, x, y_of(found.low), y_of(found.high)))
    said = f"ESS / n: {with_interval(found, sequences)}"
    return [*parts, DOT.format("dot gap", x, y_of(found.value), 4, said)]


def agreement(rows: Sequence[Agreement], floors: Sequence[Sequence[Agreement]]) -> Markup:
    """Shares that agree on their first tokens, with their band; of floors the shares alone."""
    longest = max(row.length for row in rows)

    def at(row: Agreement) -> float:
        return math.log2(row.length) / max(math.log2(longest), 1.0)

    def steps(shown: Sequence[Agreement], of: Callable[[Agreement], float | None]) -> list[Point]:
        return stairs([(min(at(r), 1.0), y) for r in shown if (y := of(r)) is not None])

    low, high = (steps(rows, lambda r: r.share.low), steps(rows, lambda r: r.share.high))
    paths = [line("band", [*low, *high[::-1]])] if low else []
    paths += [line("curve expected", steps(floor, lambda r: r.share.value)) for floor in floors]
    paths.append(line("curve agree", steps(rows, lambda r: r.share.value)))
    parts = [*levels(LinearAxis(0.0, 1.0, 0.25).ticks), box(paths)]
    octaves = [row for row in rows if row.length & (row.length - 1) == 0]
    for row in octaves[:: math.ceil(len(octaves) / _FEET)]:
        parts.append(
            TEXT.format(f"tick {anchor(at(row))}", 100 * at(row), HEIGHT + 16, short(row.length))
        )
    return svg(HEIGHT + 22, f"share that agrees on its first tokens, up to {longest:,}", parts)


#: Lengths written below a figure at most.
_FEET = 7
