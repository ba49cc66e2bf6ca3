"""Estimates as figures: strips on a log axis, the gap by bin, the waterfall of an attribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from mismatch.report.axes import LinearAxis, LogAxis, Tick, linear_axis
from mismatch.report.pairs import Bin, Estimate
from mismatch.report.shares import Shares, percent
from mismatch.report.svg import DOT, HEIGHT, LINE, RECT, TEXT, anchor, levels, short, svg, y_of
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
        parts.append(LINE.format(f"range {mark.role}", low, high, y, y))
    title = f"{mark.name}: {with_interval(found, sequences)}"
    return [*parts, DOT.format(f"dot {mark.role}", 100 * axis.at(found.value), y, 5, title)]


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
    """mean |d| (filled) and mean d (hollow) of each bin with intervals; floors dashed."""
    seen = [row.metric(key) for row in rows for key, _, _ in _SERIES]
    values = [v for e in seen for v in (e.value, e.low, e.high) if v is not None]
    axis = linear_axis([*values, *(f.value for f in floors)])
    parts = levels(axis.ticks)
    for floor in floors:
        y = _y(axis, floor.value)
        parts.append(LINE.format("guide", 0, 100, y, y))
    for k, row in enumerate(rows):
        middle = 100 * (k + 0.5) / len(rows)
        for key, role, shift in _SERIES:
            parts.append(_point(row.metric(key), role, shift, middle, axis, sequences))
        level = 26 * (k % 2) if len(rows) > _ON_ONE_LEVEL else 0
        parts += _bin_label(row, middle, HEIGHT + 16 + level)
    height = HEIGHT + (62 if len(rows) > _ON_ONE_LEVEL else 36)
    return svg(height, f"mean |d| and mean d in {len(rows)} bins", parts)


def _y(axis: LinearAxis, value: float) -> float:
    return y_of(axis.at(value))


_POINT = Markup(
    '<g transform="translate({})"><line class="range thin {role}" x1="{x:.2f}%" x2="{x:.2f}%" '
    'y1="{low:.1f}" y2="{high:.1f}"/>{dot}</g>'
)


def _point(
    found: Estimate, role: str, shift: int, x: float, axis: LinearAxis, sequences: int
) -> Markup:
    if found.value is None:
        return Markup("")
    low = found.value if found.low is None else found.low
    high = found.value if found.high is None else found.high
    name = "mean |d|" if role == "gap" else "mean d"
    title = f"{name}: {with_interval(found, sequences)}"
    dot = DOT.format(f"dot {role}", x, _y(axis, found.value), 4, title)
    return _POINT.format(shift, role=role, x=x, low=_y(axis, low), high=_y(axis, high), dot=dot)


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
