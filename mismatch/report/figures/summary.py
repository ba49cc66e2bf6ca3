"""Figures of what summary.json says: the pairs, a gap by bin, ESS by length, corrections, knobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, PercentFormatter

from mismatch.errors import MismatchError, suggest
from mismatch.glossary import FORKS, SURVIVAL
from mismatch.report.axes import LogAxis, log_axis
from mismatch.report.figures import style
from mismatch.report.figures.style import BLUE, GREEN, GREY, ORANGE, VERMILLION
from mismatch.report.noise import compared_floor
from mismatch.report.pairs import (
    NOTHING,
    SLOTS,
    Bin,
    Estimate,
    Forks,
    Pair,
    Prefix,
    breakdown_key,
)
from mismatch.report.shares import Shares, percent, shares_of
from mismatch.report.svg import short
from mismatch.report.words import clean, count, reached, sample_size

#: Rows that one page can hold.
_MOST_PAIRS = 30


def nothing(figure: str, what: str, reason: str, todo: str) -> MismatchError:
    return MismatchError("nothing-to-plot", figure=figure, what=what, reason=reason, todo=todo)


AGAIN = "Measure the folder again with this release: compare DIR."


# ---------------------------------------------------------------- gap


def gap(pairs: Sequence[Pair]) -> Figure:
    """k3 of each pair with its interval, and the floors of both sides."""
    measured = [p for p in pairs if p.metric("k3").value is not None]
    if not measured:
        raise nothing("gap", "this folder", "no pair has a number", "Run it again.")
    order = sorted(measured, key=lambda p: -(p.metric("k3").value or 0.0))
    shown = [p for p in measured if p in order[:_MOST_PAIRS]]
    axis = log_axis([v for p in shown for e in _row(p).values() for v in (e.value, e.low, e.high)])
    figure, (axes,) = style.new(0.55 + 0.3 * len(shown))
    for row, pair in enumerate(shown):
        _strip(axes, pair, axis, -float(row))
    _axis_with_zero(axes, axis)
    axes.set(ylim=(0.55 - len(shown), 0.85), yticks=[], xlabel="k3 (nats per token)")
    axes.spines["left"].set_visible(False)
    style.legend_above(axes, columns=3)
    cut = (
        f"The {len(shown)} largest of {len(measured)} pairs." if len(shown) < len(measured) else ""
    )
    lost = len(pairs) - len(measured)
    style.caption(
        figure,
        f"k3 = mean(expm1(d) - d), d = lp_train - lp_infer (left - right inside one engine). "
        f"{_sizes(shown)} {style.INTERVALS} Floor: a side against itself, batched otherwise "
        "(else: repeated).",
        style.doubts([e for p in shown for e in _row(p).values()]),
        f"Below 1e{axis.first}: drawn there." if _is_below(shown, axis) else "",
        cut,
        f"No evidence for {count(lost, 'more pair')}." if lost else "",
    )
    return figure


def _is_below(pairs: Sequence[Pair], axis: LogAxis) -> bool:
    values = [e.value for p in pairs for e in _row(p).values()]
    return any(v is not None and 0 < v < 10.0**axis.first for v in values)


def _sizes(pairs: Sequence[Pair]) -> str:
    sizes = dict.fromkeys(sample_size(p.tokens, p.sequences) for p in pairs)
    return "; ".join(sizes) + "." if len(sizes) < 4 else "n beside each pair."


def _row(pair: Pair) -> dict[str, Estimate]:
    name = compared_floor(pair) or "batch"
    floors = {slot: pair.floor(name, slot, "k3") or NOTHING for slot in SLOTS}
    return {"gap": pair.metric("k3"), **floors}


#: part of a row -> label, colour, marker, how far above its line.
_PARTS = {
    "gap": ("gap", BLUE, "o", 0.0),
    "train": ("floor, train or left", ORANGE, "s", 0.16),
    "infer": ("floor, infer or right", GREEN, "^", -0.16),
}


def _strip(axes: Axes, pair: Pair, axis: LogAxis, y: float) -> None:
    axes.text(
        0.0, y + 0.3, clean(f"{pair.path}: {pair.setup}, n = {pair.tokens:,} ({pair.sequences})"),
        fontsize=5.5, color="#404040", va="bottom",
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.4}, zorder=0.9,
    )  # fmt: skip
    for part, found in _row(pair).items():
        label, color, marker, above = _PARTS[part]
        label = label if y == 0 else "_"
        if found.value is None:
            axes.plot([], [], marker, color=color, markersize=3.5, label=label)
            continue
        if found.low is not None and found.high is not None:
            ends = [axis.at(found.low), axis.at(found.high)]
            axes.plot(ends, [y + above] * 2, color=color, linestyle="-" if found.trusted else ":")
        axes.plot(
            [axis.at(found.value)], [y + above], marker, color=color, label=label, markersize=3.5,
            markerfacecolor=color if found.trusted else "white", markeredgewidth=0.9,
        )  # fmt: skip


def _axis_with_zero(axes: Axes, axis: LogAxis) -> None:
    """0 has a place of its own, which a logarithm lacks."""
    axes.set_xticks([t.at for t in axis.ticks], [t.label for t in axis.ticks])
    axes.set_xlim(-0.02, 1.02)
    axes.axvline(axis.ZERO * 0.75, color=GREY, linewidth=0.5, linestyle=(0, (1, 2)))
    axes.grid(axis="x")


# ---------------------------------------------------------------- by

#: Key of the summary's breakdowns -> name of the axis.
_AXES = {
    "infer_prob": "{right} probability of the token",
    "position": "position after the first scored token",
    "length": "scored tokens of the sequence",
    "entropy": "entropy (nats)",
    "token_type": "kind of token",
    "turn": "turn",
}


#: Key of a breakdown that not every pair has -> what it needs.
_NEEDS = {
    "entropy": "It needs the entropy at each token: run with entropy=true on a condition.",
    "token_type": "It needs the tokens' texts: those of a run whose checkpoint has a tokenizer.",
    "turn": "It needs a sequence of several turns: scored stretches with others between them.",
}


def by(pair: Pair, key: str) -> Figure:
    """mean |d| and mean d of each bin, with the floors of the whole pair."""
    column = breakdown_key(key)
    rows = [row for row in pair.breakdown(column) if row.tokens]
    if not rows:
        todo = _NEEDS.get(column, AGAIN)
        raise nothing("by", f"pair {pair.id}", f"it has no breakdown by {key}", todo)
    figure, (axes,) = style.new(2.1)
    for k, row in enumerate(rows):
        style.interval(
            axes, k - 0.12, row.metric("abs_logprob_diff_mean"), BLUE, label=_once(k, "mean |d|")
        )
        style.interval(
            axes, k + 0.12, row.metric("logprob_diff_mean"), VERMILLION, marker="s",
            label=_once(k, "mean d"),
        )  # fmt: skip
    named = _floor_lines(axes, pair)
    axes.axhline(0, color="black", linewidth=0.6)
    axes.set_xticks(range(len(rows)), [_bin(row, len(rows)) for row in rows])
    axes.set(xlabel=_AXES[column].format(right=pair.sides[1]), ylabel="nats per token")
    axes.set_xlim(-0.5, len(rows) - 0.5)
    axes.yaxis.set_major_formatter(FuncFormatter(style.plain))
    axes.grid(axis="y")
    style.legend_above(axes, columns=4)
    keys = ("abs_logprob_diff_mean", "logprob_diff_mean")
    seen = [row.metric(key) for row in rows for key in keys]
    counts = "n: tokens of the bin."
    style.caption(figure, style.about(pair), counts, style.INTERVALS, named, style.doubts(seen))
    return figure


def _once(k: int, label: str) -> str:
    return label if k == 0 else ""


def _bin(row: Bin, bins: int) -> str:
    label = clean(row.label)
    if bins > 4:
        label = label.replace(", ", ",\n").replace("/", "/\n")
    return f"{label}\nn={short(row.tokens)}"


def _floor_lines(axes: Axes, pair: Pair) -> str:
    """mean |d| of each side against itself, dashed; a sentence where there is one."""
    name = compared_floor(pair)
    drawn = False
    for slot, side, color in zip(SLOTS, pair.sides, (ORANGE, GREEN), strict=True):
        found = pair.floor(name, slot, "abs_logprob_diff_mean") if name else None
        if found is not None and found.value is not None:
            axes.axhline(
                found.value, color=color, linestyle=(0, (4, 2)), label=f"floor {side}", zorder=1
            )
            drawn = True
    return f"Dashed: mean |d| of a side against itself ({name} floor), all tokens." if drawn else ""


# ---------------------------------------------------------------- ess


def ess(pair: Pair) -> Figure:
    """ESS of the importance weights of prefixes, against what k3 alone predicts."""
    rows = pair.prefixes
    found = [row.ess for row in rows]
    if not any(e.value is not None for e in found):
        if "ess_by_length" in pair.raw:
            reason, todo = (
                "too few of its sequences are long enough",
                "Replay more, or longer ones.",
            )
        else:
            reason, todo = "it has no ESS by length", AGAIN
        raise nothing("ess", f"pair {pair.id}", reason, todo)
    figure, (axes,) = style.new(2.1)
    for k, (row, one) in enumerate(zip(rows, found, strict=True)):
        style.interval(axes, float(row.length), one, BLUE, label=_once(k, "measured"))
    known = [(row.length, row.predicted) for row in rows if row.predicted is not None]
    if known:
        lengths, values = zip(*known, strict=True)
        axes.plot(lengths, values, "--", color=VERMILLION, label="exp(-2 L k3)", zorder=1)
    axes.set_xscale("log", base=2)
    axes.set_xticks([row.length for row in rows], [_prefix(row) for row in rows])
    axes.minorticks_off()
    axes.set(xlabel="length of the prefix L (scored tokens)", ylabel="ESS / n", ylim=(0, 1.05))
    axes.grid(axis="y")
    style.legend_above(axes)
    what = (
        "ESS/n = (ΣR)²/(nΣR²), R = exp of the sum of d over the first L scored tokens, over the n "
        "sequences that have so many. Predicted: independent d of the pair's k3."
    )
    style.caption(figure, style.about(pair), what, style.INTERVALS, style.doubts(found))
    return figure


def _prefix(row: Prefix) -> str:
    return f"{row.length:,}\nn={row.sequences:,}"


# ---------------------------------------------------------------- forks


def forks(pair: Pair) -> Figure:
    """The share of sequences that agree on their first tokens, with its band and the floors'."""
    found = pair.forks
    if found is None:
        todo = "Capture the likeliest tokens of both sides: topk=K."
        raise nothing("forks", f"pair {pair.id}", "a side has no likeliest tokens", todo)
    figure, (axes,) = style.new(2.1)
    lengths, shares = _shares(found, "value")
    axes.step(lengths, shares, where="post", color=BLUE, label="agree")
    low, high = _shares(found, "low"), _shares(found, "high")
    axes.fill_between(low[0], low[1], high[1], step="post", color=BLUE, alpha=0.2, linewidth=0)
    named = []
    for slot, side, color in zip(SLOTS, pair.sides, (ORANGE, GREEN), strict=True):
        floor = pair.forks_of_floor("batch", slot)
        if floor is not None:
            axes.step(
                *_shares(floor, "value"), where="post", color=color, linestyle=(0, (4, 2)),
                label=f"floor {side}", zorder=1,
            )  # fmt: skip
            named.append(f"{side} {reached(floor.median, floor.sequences)}")
    axes.set_xscale("log", base=2)
    octaves = [row.length for row in found.octaves]
    axes.set_xticks(octaves, [f"{n:,}" for n in octaves])
    axes.minorticks_off()
    axes.set(xlabel="first tokens (scored)", ylabel="share that agrees", ylim=(0, 1.05))
    axes.grid(axis="y")
    style.legend_above(axes, columns=3)
    dashed = f"Dashed: a side against itself in another batch (median: {', '.join(named)})."
    style.caption(
        figure,
        style.about(pair),
        f"{found.forked:,} of {count(found.sequences, 'sequence')} differ, median "
        f"{reached(found.median, found.sequences)} tokens. {FORKS[found.greedy]}.",
        f"Band: {SURVIVAL}.",
        dashed if named else "",
    )
    return figure


def _shares(found: Forks, bound: str) -> tuple[list[int], list[float]]:
    known = [(r.length, v) for r in found.agreement if (v := getattr(r.share, bound)) is not None]
    return [length for length, _ in known], [value for _, value in known]


# ---------------------------------------------------------------- corrections


def corrections(pair: Pair) -> Figure:
    """What each correction touches, and the effective sample that it leaves."""
    rows = pair.corrections
    if not rows:
        raise nothing("corrections", f"pair {pair.id}", "no correction was measured", AGAIN)
    figure, panels = style.new(0.6 + 0.21 * len(rows), columns=2)
    columns = ([r.whole.affected for r in rows], [r.whole.ess for r in rows])
    for axes, column, title in zip(panels, columns, ("affected", "ESS / n"), strict=True):
        for k, (row, found) in enumerate(zip(rows, column, strict=True)):
            _lying(axes, -float(k), found, BLUE if row.level == "token" else ORANGE)
        axes.set(xlabel=title, ylim=(0.6 - len(rows), 0.6))
        axes.set_yticks([-k for k in range(len(rows))], [clean(r.name) for r in rows])
        axes.grid(axis="x")
    panels[0].xaxis.set_major_formatter(PercentFormatter(1.0, decimals=None, symbol="%"))
    panels[1].tick_params(labelleft=False)
    panels[1].set_xlim(left=min(0.0, panels[1].get_xlim()[0]), right=1.03)
    panels[0].set_xlim(left=0.0 - 0.02 * panels[0].get_xlim()[1])
    rules = "; ".join(f"{row.name}: {row.rule}" for row in rows if row.rule)
    what = (
        "Affected: share of tokens (blue) or of sequences (orange) that are truncated or dropped. "
        f"ESS/n = (Σw)²/(nΣw²) of the weights that are left. {rules}."
    )
    seen = [found for column in columns for found in column]
    style.caption(figure, style.about(pair), what, style.INTERVALS, style.doubts(seen))
    return figure


def _lying(axes: Axes, y: float, found: Estimate, color: str) -> None:
    if found.value is None:
        axes.text(0, y, "no evidence", fontsize=5.5, color=GREY, va="center")
        return
    if found.low is not None and found.high is not None:
        line = "-" if found.trusted else ":"
        axes.plot([found.low, found.high], [y, y], color=color, linestyle=line, linewidth=1.1)
    face = color if found.trusted else "white"
    axes.plot([found.value], [y], "o", color=color, markerfacecolor=face, markersize=3.5)


# ---------------------------------------------------------------- waterfall


def waterfall(summary: Mapping[str, Any], name: str | None) -> Figure:
    """Each knob's share as a step from 0 to the whole gap; a negative one steps back."""
    one = _attribution(shares_of(summary), name)
    knobs = [k for k in one.knobs if k.share.value is not None]
    if not knobs:
        todo = "Take the corners that are missing."
        raise nothing("waterfall", f"attribution {one.id}", one.finding.rstrip("."), todo)
    figure, (axes,) = style.new(0.55 + 0.24 * len(knobs))
    end = 0.0
    for row, knob in enumerate(knobs):
        step = knob.share.value or 0.0
        color = VERMILLION if step < 0 else BLUE
        axes.barh(-row, step, left=end, height=0.6, color=color)
        end += step
        ends = [0.0 if knob.share.low is None else knob.share.low - step,
                0.0 if knob.share.high is None else knob.share.high - step]  # fmt: skip
        axes.plot([end + ends[0], end + ends[1]], [-row, -row], color="black", linewidth=0.8)
        if row + 1 < len(knobs):
            axes.plot([end, end], [-row - 0.3, -row - 0.7], color=GREY, linewidth=0.6)
    labels = [f"{clean(k.knob)}\n{percent(k.share)}" for k in knobs]
    axes.set_yticks([-k for k in range(len(knobs))], labels)
    axes.set(xlabel="share of the gap", ylim=(0.5 - len(knobs), 0.5))
    axes.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    axes.axvline(0, color="black", linewidth=0.6)
    axes.axvline(1, color=GREY, linewidth=0.6, linestyle=(0, (1, 2)))
    axes.grid(axis="x")
    what = (
        "Share: <phi, d> / <d, d> over tokens, phi the knob's Shapley effect on d = lp at the left "
        "end - lp at the right end (nats). Bars in black: 95%, bootstrap-t over sequences."
    )
    style.caption(figure, f"{one.title}.", what, one.finding)
    return figure


def _attribution(found: Sequence[Shares], name: str | None) -> Shares:
    if not found:
        todo = "Add [[attribute]] with left, right and path to the study file, and run it."
        raise nothing("waterfall", "this folder", "it has no attribution", todo)
    if name is None:
        return found[0]
    for one in found:
        if one.id == name:
            return one
    known = [one.id for one in found]
    raise MismatchError(
        "no-such-pair", pair=name, known=", ".join(known), hint_extra=suggest(name, known)
    )
