"""How d is spread over tokens: its histogram, its tails, and the two probabilities."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from mismatch.report.axes import Decades, SignedAxis, decades, signed_axis
from mismatch.report.svg import (
    HEIGHT,
    LINE,
    RECT,
    TEXT,
    Point,
    anchor,
    box,
    cells,
    feet,
    level,
    line,
    svg,
)
from mismatch.report.words import number

_BINS = 81  # odd: the middle bin holds d = 0

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
    parts = [part for k in range(9) for part in _count_line(k, top)]
    parts += [_bar(k, int(n), found.axis, top) for k, n in enumerate(found.counts.tolist()) if n]
    for ratio, label in ((0.5, "r = ½"), (2.0, "r = 2")):
        parts += _ratio_line(math.log(ratio), label, found.axis)
    parts += feet(found.axis.ticks)
    parts.append(LINE.format("base", 0, 100, HEIGHT, HEIGHT))
    label = f"histogram of d over {found.finite:,} tokens"
    return svg(HEIGHT + 22, label, parts)


#: A single token is this high (in decades): log10(1) = 0 would be invisible.
_ONE = 0.35


def _count_line(exponent: int, top: float) -> list[Markup]:
    y = HEIGHT * (1 - (exponent + _ONE) / top)
    if y < 0:
        return []
    label = f"{10**exponent:,}"
    return [LINE.format("grid", 0, 100, y, y), TEXT.format("tick axis", 0, y + 3.5, label)]


def _bar(k: int, n: int, axis: SignedAxis, top: float) -> Markup:
    width = 100 / _BINS
    height = HEIGHT * (math.log10(n) + _ONE) / top
    middle = _BINS // 2
    role = "bar none" if k == middle else "bar neg" if k < middle else "bar pos"
    edge = math.asinh(axis.reach / axis.scale)
    low, high = (math.sinh((2 * j / _BINS - 1) * edge) * axis.scale for j in (k, k + 1))
    title = f"d from {number(low)} to {number(high)}: {n:,} tokens"
    return RECT.format(role, k * width + 0.08, width - 0.16, HEIGHT - height, height, title)


def _ratio_line(d: float, label: str, axis: SignedAxis) -> list[Markup]:
    at = 100 * axis.at(d)
    if not 5 < at < 95:
        return []
    side = "note before" if d > 0 else "note after"
    return [LINE.format("guide", at, at, 0, HEIGHT), TEXT.format(side, at, 10, label)]


# ---------------------------------------------------------------- the tails of d

#: Places at which a tail is drawn, evenly over the logarithm of the rank; the largest |d| is one.
TAIL_POINTS = 160


def tails(d: np.ndarray) -> Markup | None:
    """Share of tokens with |d| above x, each sign by itself, both axes logarithmic; None where no
    token differs.
    """
    finite = d[np.isfinite(d)]
    sides = {"neg": np.sort(-finite[finite < 0])[::-1], "pos": np.sort(finite[finite > 0])[::-1]}
    known = [size for size in sides.values() if len(size)]
    if not known:
        return None
    largest = max(float(size[0]) for size in known)
    middle = float(np.median(np.concatenate(known)))
    x = decades([largest, max(middle / 10, largest * 1e-6)])
    y = decades([1.0, 0.5 / len(finite)])  # a single token stands above the foot
    parts = [part for tick in y.ticks for part in level(tick.at, tick.label)]
    for k, ratio in enumerate((1.1, 2, 10)):
        parts += _mark_line(x.at(math.log(ratio)), f"r = {ratio}", 10 + 13 * k)
    paths = [
        line(f"curve {role}", _tail(size.astype(np.float64), len(finite), x, y))
        for role, size in sides.items()
        if len(size)
    ]
    parts += [box(paths), LINE.format("base", 0, 100, HEIGHT, HEIGHT)]
    parts += feet(x.ticks)
    return svg(HEIGHT + 22, f"tails of d over {len(finite):,} tokens, by sign", parts)


def _tail(size: np.ndarray, n: int, x: Decades, y: Decades) -> list[Point]:
    """The k-th largest has a share of k / n at or above it; beyond the largest is none, so the line
    falls to the foot there, and one token alone is a line too.
    """
    ranks = np.unique(np.geomspace(1, len(size), TAIL_POINTS).round().astype(int))
    found = [(x.at(float(size[k - 1])), y.at(k / n)) for k in ranks.tolist()]
    return [(found[0][0], 0.0), *([p for p in found if p[0] > 0] or found[:1])]


def _mark_line(at: float, label: str, y: float) -> list[Markup]:
    """Their labels stand one below the other, or they would run into each other."""
    if not 0.02 < at < 0.98:
        return []
    role = "note before" if at > 0.6 else "note after"
    return [
        LINE.format("guide", 100 * at, 100 * at, 0, HEIGHT),
        TEXT.format(role, 100 * at, y, label),
    ]


# ---------------------------------------------------------------- one probability on the other

GRID = 50  # cells along each side
#: Fewest tokens of a cell of each shade.
DENSITY = (1, 10, 100, 1_000, 10_000, 100_000)
_CHUNK = 1 << 20  # tokens whose probabilities are in memory at a time


def density(left: np.ndarray, right: np.ndarray) -> Markup | None:
    """p of the left side on p of the right, counted in cells: every finite token, none thinned.

    left, right: (n,) log-probabilities in nats.
    """
    counts = np.zeros((GRID, GRID))
    for start in range(0, len(left), _CHUNK):
        at = slice(start, start + _CHUNK)
        kept = np.isfinite(left[at]) & np.isfinite(right[at])
        one, other = (np.exp(np.minimum(side[at][kept], 0.0)) for side in (left, right))
        counts += np.histogram2d(other, one, GRID, [(0, 1), (0, 1)])[0]
    if not counts.any():
        return None
    shade_of = np.searchsorted(DENSITY, counts, side="right")
    shades = [
        cells(f"q{shade}", np.argwhere(shade_of == shade), GRID)
        for shade in range(1, len(DENSITY) + 1)
        if (shade_of == shade).any()
    ]
    parts = [box([*shades, line("guide", [(0, 0), (1, 1)])])]
    for place, label in ((0.0, "0"), (0.5, "0.5"), (1.0, "1")):
        parts += level(place, label)
        parts.append(TEXT.format(f"tick {anchor(place)}", 100 * place, HEIGHT + 16, label))
    return svg(
        HEIGHT + 22, f"density of the two probabilities of {int(counts.sum()):,} tokens", parts
    )
