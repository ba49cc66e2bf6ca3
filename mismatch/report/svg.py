"""The pieces that every figure is drawn from, as inline SVG in CSS classes: light and dark are CSS.

x is in percent and y in pixels, so that text keeps its size on a narrow screen; a shape with many
points is a path in a box of its own, stretched to fit. Markup.format escapes what it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from markupsafe import Markup

from mismatch.report.axes import Tick
from mismatch.report.pairs import Estimate

HEIGHT = 190  # of a plot area, pixels

_SVG = Markup('<svg class="plot" height="{}" role="img" aria-label="{}">{}</svg>')
LINE = Markup('<line class="{}" x1="{:.2f}%" x2="{:.2f}%" y1="{:.1f}" y2="{:.1f}"/>')
TEXT = Markup('<text class="{}" x="{:.2f}%" y="{:.1f}">{}</text>')
RECT = Markup(
    '<rect class="{}" x="{:.3f}%" width="{:.3f}%" y="{:.1f}" height="{:.1f}">'
    "<title>{}</title></rect>"
)
DOT = Markup('<circle class="{}" cx="{:.2f}%" cy="{:.1f}" r="{}"><title>{}</title></circle>')
#: A shape of pixels at a place in percent, as a dot is.
_SHAPE = Markup(
    '<svg class="shape" x="{:.2f}%" y="{:.1f}"><path class="{}" d="{}"><title>{}</title></path>'
    "</svg>"
)
_BOX = Markup(
    '<svg x="0" y="0" width="100%" height="{}" viewBox="0 0 1000 1000" preserveAspectRatio="none">'
    "{}</svg>"
)
_PATH = Markup('<path class="{}" d="{}"/>')

#: A point of a path, both coordinates 0..1, y upwards.
Point = tuple[float, float]


def svg(height: float, label: str, parts: Sequence[Markup]) -> Markup:
    return _SVG.format(round(height), label, Markup("").join(parts))


def diamond(role: str, x: float, y: float, title: str) -> Markup:
    return _SHAPE.format(x, y, f"dot {role}", "M0-5 5 0 0 5-5 0z", title)


def arrow(role: str, x: float, y: float, title: str, *, up: bool) -> Markup:
    """The end of a bar that goes on beyond the plot area."""
    return _SHAPE.format(x, y, f"beyond {role}", "M0-5 4 2-4 2z" if up else "M0 5 4-2-4-2z", title)


def doubted(found: Estimate) -> str:
    """The CSS class of a mark whose interval is not trusted: hollow, and its bar dotted."""
    return "" if found.trusted else " doubted"


def box(paths: Sequence[Markup]) -> Markup:
    """Paths over the whole plot area."""
    return _BOX.format(HEIGHT, Markup("").join(paths))


def line(role: str, points: Sequence[Point]) -> Markup:
    """A line through the points; its width is not stretched (CSS)."""
    at = " ".join(f"{1000 * x:.1f},{1000 * (1 - y):.1f}" for x, y in points)
    return _PATH.format(role, f"M{at}")


def stairs(points: Sequence[Point]) -> list[Point]:
    """The points of a step curve: each height holds until the next point."""
    steps = [p for one, next_ in pairwise(points) for p in (one, (next_[0], one[1]))]
    return [*steps, *points[-1:]]


def cells(role: str, places: np.ndarray, grid: int) -> Markup:
    """Filled squares of a grid x grid raster in one path. places: (n, 2) columns and rows, rows
    counted upwards.
    """
    size = 1000 / grid
    drawn = (
        f"M{c * size:g} {1000 - (r + 1) * size:g}h{size:g}v{size:g}h-{size:g}z"
        for c, r in places.tolist()
    )
    return _PATH.format(role, "".join(drawn))


def level(at: float, label: str, role: str = "grid") -> list[Markup]:
    """A line across the plot area, with its label at the left."""
    y = y_of(at)
    return [LINE.format(role, 0, 100, y, y), TEXT.format("tick axis", 0, y + 3.5, label)]


def levels(ticks: Sequence[Tick]) -> list[Markup]:
    """A y axis of values: 0 is the base."""
    return [p for t in ticks for p in level(t.at, t.label, "base" if t.label == "0" else "grid")]


def feet(ticks: Sequence[Tick]) -> list[Markup]:
    """The labels of an x axis."""
    return [TEXT.format(f"tick {anchor(t.at)}", 100 * t.at, HEIGHT + 16, t.label) for t in ticks]


def y_of(at: float) -> float:
    """0..1 upwards -> pixels downwards."""
    return HEIGHT * (1 - at)


def anchor(at: float) -> str:
    return "end" if at > 0.97 else "start" if at < 0.02 else "mid"


def short(n: int) -> str:
    return f"{n:,}" if n < 10_000 else f"{n / 1000:.0f}k" if n < 10**6 else f"{n / 10**6:.1f}M"
