"""Figures of single tokens and sequences: comparisons/<pair>/tokens.parquet."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from mismatch.report.axes import signed_axis
from mismatch.report.figures import style
from mismatch.report.figures.style import BLUE, GREY, VERMILLION
from mismatch.report.figures.summary import nothing
from mismatch.report.pairs import Estimate, Pair
from mismatch.report.sequences import Tokens, sequences_of
from mismatch.report.words import count, with_interval

_BINS = 81  # odd: the middle one holds d = 0
#: Points of a curve, and dots of a cloud, that a file shall hold.
_POINTS, _DOTS = 1500, 20_000


def _finite(tokens: Tokens) -> tuple[Tokens, str]:
    """Those that are in the metrics, and how many are not, in words."""
    kept = tokens.only(np.isfinite(tokens.d))
    lost = len(tokens.d) - len(kept.d)
    return kept, f"{count(lost, 'token')} not finite, left out." if lost else ""


# ---------------------------------------------------------------- hist


def hist(pair: Pair, tokens: Tokens) -> Figure:
    """How often each d, and how heavy its tails."""
    tokens, lost = _finite(tokens)
    figure, (bars, tail) = style.new(3.3, rows=2)
    _bars(bars, tokens.d)
    _tails(tail, tokens.d)
    exact = int((tokens.d == 0).sum())
    style.caption(
        figure,
        style.about(pair),
        f"Above: tokens in {_BINS} bins of asinh(d), linear near 0; d = 0 exactly on {exact:,}. "
        "Below: share of tokens beyond |d|, by sign; r = exp(d).",
        lost,
    )
    return figure


def _bars(axes: Axes, d: np.ndarray) -> None:
    moved = np.abs(d[d != 0])
    scale = float(f"{np.median(moved):.0e}") if len(moved) else 1.0
    axis = signed_axis(float(np.abs(d).max()), scale)
    edge = math.asinh(axis.reach / axis.scale)
    counts, edges = np.histogram(np.arcsinh(d / axis.scale), _BINS, (-edge, edge))
    places = 0.5 + 0.5 * (edges[:-1] + edges[1:]) / 2 / edge
    middle = _BINS // 2
    colors = [GREY if k == middle else VERMILLION if k < middle else BLUE for k in range(_BINS)]
    axes.bar(places, counts, width=0.9 / _BINS, color=colors)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.7)
    axes.set_xticks([t.at for t in axis.ticks], [t.label for t in axis.ticks])
    axes.set(xlabel="d (nats)", ylabel="tokens", xlim=(0, 1))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.grid(axis="y")


def _tails(axes: Axes, d: np.ndarray) -> None:
    for sign, color, label in ((1, BLUE, "d > 0"), (-1, VERMILLION, "d < 0")):
        size = np.sort(sign * d[sign * d > 0])[::-1]
        if not len(size):
            continue
        at = np.unique(np.geomspace(1, len(size), _POINTS).round().astype(int)) - 1
        axes.step(size[at], (at + 1) / len(d), where="post", color=color, label=label)
    moved = np.abs(d[d != 0])
    low = float(np.quantile(moved, 0.02)) if len(moved) else 1e-6
    edge = max(float(np.abs(d).max()) * 1.5, math.log(2) * 1.5)
    for ratio in (r for r in (1.1, 2, 10) if low < math.log(r) < edge):
        axes.axvline(math.log(ratio), color=GREY, linewidth=0.6, linestyle=(0, (1, 2)))
        axes.text(
            math.log(ratio), 1.01, f"r = {ratio:g}", fontsize=5.5, color=GREY, ha="center",
            va="bottom", transform=axes.get_xaxis_transform(),
        )  # fmt: skip
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set(xlabel="|d| (nats)", ylabel="share beyond", ylim=(0.5 / len(d), 1))
    axes.set_xlim(low, edge)
    for one in (axes.xaxis, axes.yaxis):
        one.set_major_locator(LogLocator(10, numticks=7))
        one.set_major_formatter(FuncFormatter(_decade))
        one.set_minor_formatter(NullFormatter())
    axes.grid()
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="lower left")


def _decade(value: float, _: int) -> str:
    return f"{value:g}" if 0.01 <= value < 1e4 else f"1e{round(math.log10(value))}"


# ---------------------------------------------------------------- scatter


def scatter(pair: Pair, tokens: Tokens) -> Figure:
    """The two probabilities of each token; where the ratio is 2 or 1/2 stands a line."""
    tokens, lost = _finite(tokens)
    figure, (axes,) = style.new(3.1)
    one, other = pair.sides
    x, y = (np.exp(side.astype(np.float64)) for side in (tokens.right, tokens.left))
    if len(x) <= _DOTS:
        axes.plot(x, y, ".", color=BLUE, alpha=0.35, markersize=3, markeredgewidth=0,
                  rasterized=True)  # fmt: skip
    else:
        drawn = axes.hexbin(
            x, y, gridsize=70, extent=(0, 1, 0, 1), norm=LogNorm(), cmap="cividis", mincnt=1,
            linewidths=0, rasterized=True,
        )  # fmt: skip
        bar = figure.colorbar(drawn, ax=axes, label="tokens", shrink=0.8)
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:,.0f}"))
        bar.outline.set_linewidth(0.5)
    ends = np.array([0.0, 1.0])
    axes.plot(ends, ends, color="black", linewidth=0.6)
    for ratio, label in ((2.0, "r = 2"), (0.5, "r = ½")):
        axes.plot(ends, ends * ratio, color=GREY, linewidth=0.6, linestyle=(0, (4, 2)))
        at = (0.47, 0.99) if ratio > 1 else (0.99, 0.47)
        turn = math.degrees(math.atan(ratio))
        axes.text(*at, label, fontsize=5.5, color=GREY, rotation=turn, ha="right", va="top")
    axes.set(xlabel=f"{other} probability", ylabel=f"{one} probability")
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
    far = int((np.abs(tokens.d) > math.log(2)).sum())
    said = with_interval(_less_than_one(pair.metric("prob_pearson")), pair.sequences)
    style.caption(
        figure,
        style.about(pair),
        f"Probability space. 1 - correlation = {said}; r = exp(d) beyond 2 or ½ on {far:,} tokens.",
        lost,
    )
    return figure


def _less_than_one(found: Estimate) -> Estimate:
    """A correlation as what it lacks: three digits of it would all be 1.00."""
    value, high, low = (None if x is None else 1 - x for x in (found.value, found.low, found.high))
    return Estimate(value, low, high, found.trusted)


# ---------------------------------------------------------------- drift


def drift(pair: Pair, tokens: Tokens) -> Figure:
    """D of each sequence against its length, with the fitted line."""
    figure, (axes,) = style.new(2.2)
    tokens, lost = _finite(tokens)
    sequences = sequences_of(tokens)
    lengths, total = sequences.finite, sequences.total
    if len(lengths) < 2 or lengths.min() == lengths.max():
        reason = "all its sequences are of one length"
        raise nothing("drift", f"pair {pair.id}", reason, "Plot hist, or replay others.")
    axes.plot(lengths, total, "o", color=BLUE, alpha=0.6, markersize=3, markeredgewidth=0,
              rasterized=len(lengths) > _DOTS)  # fmt: skip
    found = pair.metric("seq_log_ratio_slope_per_1k")
    if found.value is not None:
        ends = np.array([lengths.min(), lengths.max()])
        middle = float(np.mean(lengths))
        fitted = float(np.mean(total)) + found.value / 1000 * (ends - middle)
        axes.plot(ends, fitted, color=VERMILLION, label="least squares", zorder=3)
        style.legend_above(axes)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set(xlabel="length (scored tokens)", ylabel="D = Σd (nats)")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
    axes.yaxis.set_major_formatter(FuncFormatter(style.plain))
    axes.grid()
    slope = with_interval(found, pair.sequences, "nats")
    style.caption(
        figure,
        style.about(pair),
        f"One dot a sequence. Slope per 1,000 tokens: {slope} (95%, bootstrap-t over sequences).",
        lost,
    )
    return figure
