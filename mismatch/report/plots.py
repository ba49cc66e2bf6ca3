"""Estimates as figures: strips on a log axis, the gap by bin, the waterfall of an attribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mismatch.report.axes import LinearAxis, LogAxis, Tick, linear_axis
from mismatch.report.pairs import Bin, Estimate
from mismatch.report.shares import Shares, percent
from mismatch.report.svg import (
    DOT,
    HEIGHT,
    LINE,
    RECT,
    TEXT,
    anchor,
    arrow,
    diamond,
    doubted,
    levels,
    short,
    svg,
    y_of,
)
from mismatch.report.words import clean, with_interval

# ---------------------------------------------------------------- one strip: a value on a log axis


@dataclass(frozen=True, slots=True)
class Mark:
    """An estimate on a strip. role: the CSS class that tells the gap from its floors. bar: whether
    its interval is drawn, or only said.
    """

    role: str
    name: str
    found: Estimate
    bar: bool = True


def strip(marks: Sequence[Mark], axis: LogAxis, sequences: int, guide: float | None) -> Markup:
    """One row: intervals as bars, values as dots, and a guide line where noise alone would be."""
    height = 22
    parts = [_grid_line(tick, height) for tick in axis.ticks]
    if guide is not None:
        at = 100 * axis.at(guide)
        parts.append(LINE.format("guide", at, at, 0, height))
    parts += [part for mark in marks for part in _mark(mark, axis, height / 2, sequences)]
    label = "; ".join(f"{m.name}: {with_interval(m.found, sequences)}" for m in marks)
    return svg(height, label, parts)


def _mark(mark: Mark, axis: LogAxis, y: float, sequences: int) -> list[Markup]:
    found = mark.found
    if found.value is None:
        return []
    parts = []
    if mark.bar and found.low is not None and found.high is not None:
        low, high = 100 * axis.at(found.low), 100 * axis.at(found.high)
        parts.append(LINE.format(f"range {mark.role}{doubted(found)}", low, high, y, y))
    title = f"{mark.name}: {with_interval(found, sequences)}"
    return [
        *parts,
        DOT.format(f"dot {mark.role}{doubted(found)}", 100 * axis.at(found.value), y, 5, title),
    ]


def strip_axis(axis: LogAxis) -> Markup:
    """The tick labels that stand above or below a column of strips."""
    zero, *decades = axis.ticks
    parts = [
        TEXT.format("tick zero", 100 * zero.at, 12, zero.label),
        *(TEXT.format(f"tick {anchor(t.at)}", 100 * t.at, 12, t.label) for t in decades),
    ]
    return svg(16, "k3, logarithmic; exact 0 has a place of its own at the left", parts)


def _grid_line(tick: Tick, height: float) -> Markup:
    kind = "grid zero" if tick.label == "0" else "grid"
    return LINE.format(kind, 100 * tick.at, 100 * tick.at, 0, height)


# ---------------------------------------------------------------- the gap by bin


@dataclass(frozen=True, slots=True)
class FloorLine:
    """A horizontal line: mean |d| of one side against itself, over all its tokens."""

    name: str
    value: float


#: (metric, CSS class, pixels beside the middle of the bin)
_SERIES = (("abs_logprob_diff_mean", "gap", -6), ("logprob_diff_mean", "bias", 6))

#: With more bins than this their labels stand on two levels, or they would run into each other.
_ON_ONE_LEVEL = 5


def by_bin(rows: Sequence[Bin], floors: Sequence[FloorLine], sequences: int) -> Markup:
    """mean |d| (dots) and mean d (diamonds) of each bin with intervals; floors dashed."""
    axis = _axis_of(rows, floors)
    parts = levels(axis.ticks)
    for floor in floors:
        y = y_of(axis.at(floor.value))
        parts.append(LINE.format("guide", 0, 100, y, y))
    for k, row in enumerate(rows):
        middle = 100 * (k + 0.5) / len(rows)
        for key, role, shift in _SERIES:
            parts.append(_point(row.metric(key), role, shift, middle, axis, sequences))
        level = 26 * (k % 2) if len(rows) > _ON_ONE_LEVEL else 0
        parts += _bin_label(row, middle, HEIGHT + 16 + level)
    height = HEIGHT + (62 if len(rows) > _ON_ONE_LEVEL else 36)
    return svg(height, f"mean |d| and mean d in {len(rows)} bins", parts)


def _axis_of(rows: Sequence[Bin], floors: Sequence[FloorLine]) -> LinearAxis:
    """Holds every value, and the bounds that say something. A bound that is not trusted, or that
    lies beyond the largest |d| of its bin (few tokens, or few that differ), would leave no room for
    all the others.
    """
    held = [floor.value for floor in floors]
    for row in rows:
        largest = row.metric("abs_logprob_diff_max").value
        for found in (row.metric(key) for key, _, _ in _SERIES):
            bounds = [b for b in (found.low, found.high) if b is not None and found.trusted]
            held += [b for b in bounds if largest is None or abs(b) <= largest]
            held += [] if found.value is None else [found.value]
    return linear_axis(held)


def are_cut(rows: Sequence[Bin], floors: Sequence[FloorLine]) -> bool:
    """Whether a bar goes on beyond the plot area of `by_bin`."""
    axis = _axis_of(rows, floors)
    shown = [row.metric(key) for row in rows for key, _, _ in _SERIES]
    drawn = [at for e in shown if e.has_interval for at in (e.low, e.high) if at is not None]
    return any(_is_beyond(axis.at(bound)) for bound in drawn)


def _is_beyond(at: float) -> bool:
    """Whether a place of 0..1 lies outside it by more than rounding."""
    return not -1e-9 <= at <= 1 + 1e-9


_BAR = Markup(
    '<line class="range thin {role}" x1="{x:.2f}%" x2="{x:.2f}%" y1="{low:.1f}" y2="{high:.1f}"/>'
)
_POINT = Markup('<g transform="translate({})">{}</g>')


def _point(
    found: Estimate, role: str, shift: int, x: float, axis: LinearAxis, sequences: int
) -> Markup:
    if found.value is None:
        return Markup("")
    title = f"{'mean |d|' if role == 'gap' else 'mean d'}: {with_interval(found, sequences)}"
    y, kind = y_of(axis.at(found.value)), f"{role}{doubted(found)}"
    mark = (
        DOT.format(f"dot {kind}", x, y, 4, title) if role == "gap" else diamond(kind, x, y, title)
    )
    return _POINT.format(shift, Markup("").join([*_bar(found, kind, x, axis, title), mark]))


def _bar(found: Estimate, kind: str, x: float, axis: LinearAxis, title: str) -> list[Markup]:
    """The interval; an arrow where it goes on beyond the plot area."""
    if found.low is None or found.high is None:
        return []
    low, high = axis.at(found.low), axis.at(found.high)
    ends = [y_of(min(max(at, 0.0), 1.0)) for at in (low, high)]
    parts = [_BAR.format(role=kind, x=x, low=ends[0], high=ends[1])]
    for at, y in zip((low, high), ends, strict=True):
        if _is_beyond(at):
            parts.append(arrow(kind, x, y, title, up=at > 1))
    return parts


def _bin_label(row: Bin, x: float, y: float) -> list[Markup]:
    size = f"n={short(row.tokens)}" if row.tokens else "no token"
    return [
        TEXT.format("tick mid", x, y, clean(row.label)),
        TEXT.format("tick mid dim", x, y + 12, size),
    ]


# ---------------------------------------------------------------- the waterfall of an attribution

_ROW, _LEFT, _WIDTH = 26, 26.0, 52.0  # pixels, percent, percent


def waterfall(shares: Shares) -> Markup:
    """Each knob's share as a step from 0 to the whole gap; a negative one steps back."""
    steps = [k.share.value or 0.0 for k in shares.knobs]
    ends = [sum(steps[: k + 1]) for k in range(len(steps))]
    low, high = min([0.0, *ends]), max([1.0, *ends])

    def at(x: float) -> float:
        return _LEFT + _WIDTH * (x - low) / (high - low)

    height = _ROW * (len(steps) + 1)
    parts = [LINE.format("grid", at(x), at(x), 0, height - 8) for x in (0.0, 1.0)]
    for row, (knob, step, end) in enumerate(zip(shares.knobs, steps, ends, strict=True)):
        y, said = row * _ROW + 4, percent(knob.share)
        start, stop = sorted((at(end - step), at(end)))
        kind = "bar neg" if step < 0 else "bar pos"
        parts.append(TEXT.format("tick start", 0, y + 11, clean(knob.knob)))
        parts.append(RECT.format(kind, start, max(stop - start, 0.15), y, 14, said))
        parts.append(TEXT.format("tick start", _LEFT + _WIDTH + 1, y + 11, said))
    told = ", ".join(f"{k.knob} {percent(k.share)}" for k in shares.knobs)
    return svg(height, clean(f"waterfall of {shares.title}: {told}"), parts)
