"""What all figures share: size, colours, the caption that says what the numbers are, and bytes that
are equal for equal input.

No pyplot: a figure is an object that is returned, and nothing of this process is changed by it.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import text_to_path

from mismatch import store
from mismatch.errors import MismatchError
from mismatch.report.pairs import Estimate, Pair
from mismatch.report.words import clean, sample_size

#: Okabe & Ito's palette, which no common colour blindness confuses.
BLUE, ORANGE, GREEN, VERMILLION, PURPLE = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7"
GREY = "#767676"

#: Inches of one column of a two-column paper.
WIDTH = 3.4
#: Points of a caption, and how much of the width it fills: on a screen letters are up to 5% wider
#: than their outlines, since each begins on a whole pixel.
_SMALL, _FILLED = 5.5, 0.92

STYLE: dict[Any, Any] = {
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.labelsize": 7.5,
    "font.size": 7,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.5,
    "axes.axisbelow": True,
    "legend.fontsize": 6.5,
    "legend.frameon": False,
    "legend.borderaxespad": 0.2,
    "legend.handlelength": 1.3,
    "legend.handletextpad": 0.4,
    "lines.linewidth": 1.0,
    "savefig.dpi": 300,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "text.parse_math": False,  # a name with two dollars in it is a name
    "pdf.fonttype": 42,  # publishers refuse type 3
    "svg.hashsalt": "mismatch",
}
#: Suffix -> what would otherwise tell the time or the version in the file.
FORMATS: dict[str, dict[str, None]] = {
    ".png": {"Software": None},
    ".pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    ".svg": {"Date": None, "Creator": None},
}


@contextmanager
def style() -> Iterator[None]:
    """Drawing and saving under our settings alone, whatever the user's are."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        yield


def new(height: float, rows: int = 1, columns: int = 1) -> tuple[Figure, list[Axes]]:
    """A figure of one column's width; height in inches."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def save(figure: Figure, file: Path) -> None:
    """As its suffix says: PNG, PDF or SVG."""
    if file.suffix.lower() not in FORMATS:
        takes = "a file that ends in .png, .pdf or .svg"
        raise MismatchError("option-value", option="out", value=file.name, takes=takes)
    form, drawn = file.suffix.lower(), io.BytesIO()
    with style():
        figure.savefig(drawn, format=form[1:], metadata=FORMATS[form])
    store.write_bytes(file, drawn.getvalue())


# ---------------------------------------------------------------- words


def caption(figure: Figure, *sentences: str) -> None:
    """Below the axes; the figure grows by its lines, so that the axes keep their height."""
    lines = _wrapped(clean(" ".join(s for s in sentences if s)), _FILLED * figure.get_figwidth())
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=_SMALL, color="#404040")
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height + 0.1 * len(lines))


def _wrapped(text: str, inches: float) -> list[str]:
    """Lines as wide as that, by the widths of the letters themselves."""
    font, lines = FontProperties(size=_SMALL), [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".lstrip()
        wide, _, _ = text_to_path.get_text_width_height_descent(longer, font, ismath=False)
        lines[-1:] = [longer] if wide <= 72 * inches or not lines[-1] else [lines[-1], word]
    return lines


def about(pair: Pair) -> str:
    """Which pair, on which path, which way round, on how much."""
    left, right = pair.sides
    size = sample_size(pair.tokens, pair.sequences)
    return f"{pair.id} (path {pair.path}). d = lp_{left} - lp_{right}, nats; {size}."


INTERVALS = "Bars: 95%, bootstrap-t over sequences."


def doubts(found: Sequence[Estimate]) -> str:
    """What a reader of the bars must know of them."""
    if all(e.trusted for e in found):
        return ""
    return "Hollow, dotted: interval not trusted (too few sequences, or too unlike)."


def plain(value: float, _: int) -> str:
    """A tick: as short as it can be."""
    return f"{value:.4g}"


# ---------------------------------------------------------------- marks


def interval(
    axes: Axes, at: float, found: Estimate, color: str, *, marker: str = "o", label: str = ""
) -> None:
    """A value over `at`, with its interval upright; hollow and dotted where it is not trusted."""
    if found.value is None:
        return
    if found.low is not None and found.high is not None:
        line = "-" if found.trusted else ":"
        axes.plot([at, at], [found.low, found.high], color=color, linestyle=line, linewidth=1.1)
    face = color if found.trusted else "white"
    axes.plot(
        [at], [found.value], marker, color=color, markerfacecolor=face, markersize=3.5,
        markeredgewidth=0.9, label=label or "_", zorder=3,
    )  # fmt: skip


def legend_above(axes: Axes, columns: int = 2) -> None:
    """Outside the data, whatever they are."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=columns, columnspacing=1.0)
