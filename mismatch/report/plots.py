"""Figures as inline SVG. Everything is drawn in classes, so that light and dark are CSS alone.

x is in percent and y in pixels. Markup.format escapes what it is given.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from mismatch.report.axes import LinearAxis, LogAxis, SignedAxis, Tick, linear_axis, signed_axis
from mismatch.report.pairs import Bin, Estimate
from mismatch.report.shares import Shares, percent
from mismatch.report.words import clean, number, with_interval

_HEIGHT = 190  # of a plot area, pixels
_BINS = 81  # odd: the middle bin holds d = 0

_SVG = Markup('<svg class="plot" height="{}" role="img" aria-label="{}">{}</svg>')
_LINE = Markup('<line class="{}" x1="{:.2f}%" x2="{:.2f}%" y1="{:.1f}" y2="{:.1f}"/>')
_TEXT = Markup('<text class="{}" x="{:.2f}%" y="{:.1f}">{}</text>')
_RECT = Markup(
    '<rect class="{}" x="{:.3f}%" width="{:.3f}%" y="{:.1f}" height="{:.1f}">'
    "<title>{}</title></rect>"
)
_DOT = Markup('<circle class="{}" cx="{:.2f}%" cy="{:.1f}" r="{}"><title>{}</title></circle>')


def _svg(height: float, label: str, parts: Sequence[Markup]) -> Markup:
    return _SVG.format(round(height), label, Markup("").join(parts))


# ---------------------------------------------------------------- one strip: a value on a log axis


@dataclass(frozen=True, slots=True)
class Mark:
    """An estimate on a strip. role: the CSS class that tells the gap from its floors."""

    role: str
    name: str
    found: Estimate


def strip(marks: Sequence[Mark], axis: LogAxis, sequences: int, guide: float | None) -> Markup:
    """One row: intervals as bars, values as dots, and a guide line where noise alone would be."""
    height = 22
    parts = [_grid_line(tick, height) for tick in axis.ticks]
    if guide is not None:
        at = 100 * axis.at(guide)
        parts.append(_LINE.format("guide", at, at, 0, height))
    parts += [part for mark in marks for part in _mark(mark, axis, height / 2, sequences)]
    label = "; ".join(f"{m.name}: {with_interval(m.found, sequences)}" for m in marks)
    return _svg(height, label, parts)


def _mark(mark: Mark, axis: LogAxis, y: float, sequences: int) -> list[Markup]:
    found = mark.found
    if found.value is None:
        return []
    parts = []
    if found.low is not None and found.high is not None:
        low, high = 100 * axis.at(found.low), 100 * axis.at(found.high)
        parts.append(_LINE.format(f"range {mark.role}", low, high, y, y))
    title = f"{mark.name}: {with_interval(found, sequences)}"
    return [*parts, _DOT.format(f"dot {mark.role}", 100 * axis.at(found.value), y, 5, title)]


def strip_axis(axis: LogAxis) -> Markup:
    """The tick labels that stand above or below a column of strips."""
    parts = [_TEXT.format(f"tick {_anchor(t.at)}", 100 * t.at, 12, t.label) for t in axis.ticks]
    return _svg(16, "k3, logarithmic; exact 0 has a place of its own at the left", parts)


def _grid_line(tick: Tick, height: float) -> Markup:
    kind = "grid zero" if tick.label == "0" else "grid"
    return _LINE.format(kind, 100 * tick.at, 100 * tick.at, 0, height)


def _anchor(at: float) -> str:
    return "end" if at > 0.97 else "start" if at < 0.02 else "mid"


# ---------------------------------------------------------------- the histogram of d


@dataclass(frozen=True, slots=True)
class Spread:
    """What the histogram drew: counts per bin, and what its caption must say."""

    counts: np.ndarray
    axis: SignedAxis
    exact: int
    finite: int
    not_finite: int


def spread(d: np.ndarray) -> Spread | None:
    """Bin d (all tokens, none thinned) on an asinh axis; None when nothing is finite.

    The axis turns logarithmic at the median of the |d| that are not 0.
    """
    finite = d[np.isfinite(d)].astype(np.float64)
    if not len(finite):
        return None
    size = np.abs(finite)
    moved = size[size > 0]
    scale = float(np.median(moved)) if len(moved) else 1.0
    axis = signed_axis(float(size.max()), _one_digit(scale))
    edge = math.asinh(axis.reach / axis.scale)
    counts, _ = np.histogram(np.arcsinh(finite / axis.scale), _BINS, (-edge, edge))
    return Spread(counts, axis, int((size == 0).sum()), len(finite), int(len(d) - len(finite)))


def _one_digit(value: float) -> float:
    return float(f"{value:.0e}")


def histogram(found: Spread) -> Markup:
    """Bars by sign, log count, so that one token in the tail can be seen."""
    top = math.log10(max(int(found.counts.max()), 10)) + _ONE
    parts = [part for k in range(7) for part in _count_line(k, top)]
    parts += [_bar(k, int(n), found.axis, top) for k, n in enumerate(found.counts.tolist()) if n]
    for ratio, label in ((0.5, "r = ½"), (2.0, "r = 2")):
        parts += _ratio_line(math.log(ratio), label, found.axis)
    for tick in found.axis.ticks:
        role, at = f"tick {_anchor(tick.at)}", 100 * tick.at
        parts.append(_TEXT.format(role, at, _HEIGHT + 16, tick.label))
    parts.append(_LINE.format("base", 0, 100, _HEIGHT, _HEIGHT))
    label = f"histogram of d over {found.finite:,} tokens"
    return _svg(_HEIGHT + 22, label, parts)


#: A single token is this high (in decades): log10(1) = 0 would be invisible.
_ONE = 0.35


def _count_line(exponent: int, top: float) -> list[Markup]:
    y = _HEIGHT * (1 - (exponent + _ONE) / top)
    if y < 0:
        return []
    label = f"{10**exponent:,}"
    return [_LINE.format("grid", 0, 100, y, y), _TEXT.format("tick axis", 0, y + 3.5, label)]


def _bar(k: int, n: int, axis: SignedAxis, top: float) -> Markup:
    width = 100 / _BINS
    height = _HEIGHT * (math.log10(n) + _ONE) / top
    middle = _BINS // 2
    role = "bar none" if k == middle else "bar neg" if k < middle else "bar pos"
    edge = math.asinh(axis.reach / axis.scale)
    low, high = (math.sinh((2 * j / _BINS - 1) * edge) * axis.scale for j in (k, k + 1))
    title = f"d from {number(low)} to {number(high)}: {n:,} tokens"
    return _RECT.format(role, k * width + 0.08, width - 0.16, _HEIGHT - height, height, title)


def _ratio_line(d: float, label: str, axis: SignedAxis) -> list[Markup]:
    at = 100 * axis.at(d)
    if not 5 < at < 95:
        return []
    side = "note before" if d > 0 else "note after"
    return [_LINE.format("guide", at, at, 0, _HEIGHT), _TEXT.format(side, at, 10, label)]


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
    parts = [part for tick in axis.ticks for part in _value_line(tick)]
    for floor in floors:
        y = _y(axis, floor.value)
        parts.append(_LINE.format("guide", 0, 100, y, y))
    for k, row in enumerate(rows):
        middle = 100 * (k + 0.5) / len(rows)
        for key, role, shift in _SERIES:
            parts.append(_point(row.metric(key), role, shift, middle, axis, sequences))
        level = 26 * (k % 2) if len(rows) > _ON_ONE_LEVEL else 0
        parts += _bin_label(row, middle, _HEIGHT + 16 + level)
    height = _HEIGHT + (62 if len(rows) > _ON_ONE_LEVEL else 36)
    return _svg(height, f"mean |d| and mean d in {len(rows)} bins", parts)


def _y(axis: LinearAxis, value: float) -> float:
    return _HEIGHT * (1 - axis.at(value))


def _value_line(tick: Tick) -> list[Markup]:
    y = _HEIGHT * (1 - tick.at)
    line = _LINE.format("base" if tick.label == "0" else "grid", 0, 100, y, y)
    return [line, _TEXT.format("tick axis", 0, y + 3.5, tick.label)]


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
    dot = _DOT.format(f"dot {role}", x, _y(axis, found.value), 4, title)
    return _POINT.format(shift, role=role, x=x, low=_y(axis, low), high=_y(axis, high), dot=dot)


def _bin_label(row: Bin, x: float, y: float) -> list[Markup]:
    size = f"n={_short(row.tokens)}" if row.tokens else "no token"
    return [
        _TEXT.format("tick mid", x, y, clean(row.label)),
        _TEXT.format("tick mid dim", x, y + 12, size),
    ]


def _short(n: int) -> str:
    return f"{n:,}" if n < 10_000 else f"{n / 1000:.0f}k" if n < 10**6 else f"{n / 10**6:.1f}M"


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
    parts = [_LINE.format("grid", at(x), at(x), 0, height - 8) for x in (0.0, 1.0)]
    for row, (knob, step, end) in enumerate(zip(shares.knobs, steps, ends, strict=True)):
        y, said = row * _ROW + 4, percent(knob.share)
        start, stop = sorted((at(end - step), at(end)))
        kind = "bar neg" if step < 0 else "bar pos"
        parts.append(_TEXT.format("tick start", 0, y + 11, knob.knob))
        parts.append(_RECT.format(kind, start, max(stop - start, 0.15), y, 14, said))
        parts.append(_TEXT.format("tick start", _LEFT + _WIDTH + 1, y + 11, said))
    told = ", ".join(f"{k.knob} {percent(k.share)}" for k in shares.knobs)
    return _svg(height, f"waterfall of {shares.title}: {told}", parts)
