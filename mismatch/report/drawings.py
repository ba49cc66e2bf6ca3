"""The figures of a pair: drawing, caption, and the numbers behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup

from mismatch.glossary import FORKS, SURVIVAL
from mismatch.report import drift, plots, spreads
from mismatch.report.data import Source
from mismatch.report.pairs import SLOTS, Bin, Forks, Pair
from mismatch.report.words import DOUBTED, NONE, count, interval, number, reached, with_interval


@dataclass(frozen=True, slots=True)
class Figure:
    """caption: what is drawn, in which space and from how much. rows: cells under head; a cell is
    a value and what stands below it."""

    title: str
    drawing: Markup
    caption: str
    head: tuple[str, ...] = ()
    rows: list[list[tuple[str, str]]] = field(default_factory=list)


#: Figures of a section that are not folded: a row of a wide screen.
_OPEN = 3


@dataclass(frozen=True, slots=True)
class Section:
    """folded: what comes after the first row, named in `more`."""

    title: str
    open: list[Figure]
    folded: list[Figure]

    @property
    def more(self) -> str:
        return ", ".join(figure.title.lower() for figure in self.folded)


def sections(pair: Pair, source: Source | None) -> list[Section]:
    """In the order of the page; a section without figures is left out."""
    found = {
        "How large the gap is": list(_sizes(pair, source)),
        "Where the gap sits": list(_places(pair)),
        "What builds up over a sequence": list(_sums(pair, source)),
    }
    return [Section(title, all_[:_OPEN], all_[_OPEN:]) for title, all_ in found.items() if all_]


# ---------------------------------------------------------------- how large


def _sizes(pair: Pair, source: Source | None) -> Iterator[Figure]:
    if source is None:
        return
    tokens, left = source.tokens, pair.sides[0]
    spread = spreads.spread(tokens.d)
    if spread is None:
        return
    yield Figure("How d is spread over tokens", spreads.histogram(spread), _of_spread(spread))
    tails = spreads.tails(tokens.d)
    if tails is not None:
        said = (
            "Share of all tokens with |d| at least so large (nats, log space), both axes "
            f"logarithmic. Orange, solid: {left} lower; blue, dotted: {left} higher. Drawn at up "
            f"to {spreads.TAIL_POINTS} ranks of each sign, the largest |d| among them."
        )
        yield Figure("The tails of d", tails, said)
    density = spreads.density(tokens.left, tokens.right)
    if density is not None:
        yield Figure("The two probabilities", density, _of_density(pair))


def _of_spread(found: spreads.Spread) -> str:
    lost = f"; {count(found.not_finite, 'token')} not finite, not drawn" if found.not_finite else ""
    return (
        f"Tokens (log count) by d in nats, log space. The axis is linear within "
        f"±{number(found.axis.scale, 1)} and logarithmic beyond. d is exactly 0 on "
        f"{count(found.exact, 'token')} ({100 * found.exact / found.finite:.1f}%){lost}. "
        "All tokens are drawn."
    )


def _of_density(pair: Pair) -> str:
    left, right = pair.sides
    steps = ", ".join(f"{n:,}" for n in spreads.DENSITY)
    return (
        f"p of {left} (upwards) on p of {right}, probability space: all finite tokens, counted in "
        f"{spreads.GRID} × {spreads.GRID} cells; the shades begin at {steps} tokens. Dashed: the "
        "sides agree."
    )


# ---------------------------------------------------------------- where

#: breakdown -> title, and what its bins are of, SIDE the infer or right side.
_BREAKDOWNS = {
    "infer_prob": ("probability", "Bins of the SIDE side's probability."),
    "entropy": ("entropy", "Bins of entropy in nats, of the SIDE side where it was captured."),
    "token_type": ("token type", "By the token's text alone."),
    "position": ("position", "Positions from the first scored token of each sequence."),
    "length": ("sequence length", "Scored tokens of the sequence that a token is in."),
    "turn": ("turn", "Contiguous scored stretches of a sequence."),
}  # fmt: skip
_BIN_HEAD = ("bin", "tokens", "mean |d|", "mean d", "k3")
_DRAWN = ("abs_logprob_diff_mean", "logprob_diff_mean")
_KEYS = (*_DRAWN, "k3")


def _places(pair: Pair) -> Iterator[Figure]:
    """The known breakdowns in their order, then those of a later release."""
    floors = _floor_lines(pair)
    for by in [*_BREAKDOWNS, *(k for k in pair.breakdown_keys if k not in _BREAKDOWNS)]:
        bins = pair.breakdown(by)
        if bins:
            title, about = _BREAKDOWNS.get(by, (by, ""))
            said = f"{about.replace('SIDE', pair.sides[1])} {_of_bins(bins, floors)}".strip()
            drawing = plots.by_bin(bins, floors, pair.sequences)
            yield Figure(f"The gap by {title}", drawing, said, _BIN_HEAD, _bin_rows(bins))


def _of_bins(bins: list[Bin], floors: list[plots.FloorLine]) -> str:
    said = "● mean |d|, ◆ mean d (nats, log space) with 95% intervals."
    if not all(b.metric(key).trusted for b in bins for key in _DRAWN):
        said += f" {DOUBTED}"
    if plots.are_cut(bins, floors):
        said += " An arrow: the interval goes on; the numbers have it whole."
    if not floors:
        return f"{said} No batch floor was captured."
    values = ", ".join(f"{f.name} {number(f.value)}" for f in floors)
    return f"{said} Dashed: mean |d| of the batch floors, all tokens ({values})."


def _bin_rows(bins: list[Bin]) -> list[list[tuple[str, str]]]:
    return [
        [
            (b.label, ""),
            (f"{b.tokens:,}", ""),
            *((number(b.metric(key).value), interval(b.metric(key))) for key in _KEYS),
        ]
        for b in bins
    ]


def _floor_lines(pair: Pair) -> list[plots.FloorLine]:
    """Where noise alone would put mean |d|: batch floors only, a repeat floor is not the noise."""
    lines = []
    for side, slot in zip(pair.sides, SLOTS, strict=True):
        floor = pair.floor("batch", slot, "abs_logprob_diff_mean")
        if floor is not None and floor.value is not None and np.isfinite(floor.value):
            lines.append(plots.FloorLine(side, floor.value))
    return lines


# ---------------------------------------------------------------- over a sequence

_PREFIX_HEAD = ("first tokens", "sequences", "tokens", "ESS / n", "exp(−2 · length · k3)")


def _sums(pair: Pair, source: Source | None) -> Iterator[Figure]:
    if source is not None:
        found = drift.drift(
            source.sequences, pair.metric("seq_log_ratio_slope_per_1k"), pair.sequences
        )
        if found is not None:
            yield Figure("D against length", found.drawing, _of_drift(found, pair))
    prefixes = pair.prefixes
    if prefixes:
        said = (
            "● ESS / n of the sequence ratios R (ratio space) over the first so many scored "
            "tokens, of the sequences that have them, with 95% intervals. Dashed: what k3 "
            "alone predicts, exp(−2 · length · k3)."
        )
        rows = [
            [
                (f"{p.length:,}", ""),
                (f"{p.sequences:,}", ""),
                (f"{p.tokens:,}", ""),
                (number(p.ess.value), interval(p.ess)),
                (number(p.predicted), ""),
            ]
            for p in prefixes
        ]
        drawing = drift.ess(prefixes, pair.sequences)
        yield Figure("ESS by length", drawing, said, _PREFIX_HEAD, rows)
    if pair.forks is not None:
        yield _of_forks(pair, pair.forks)


def _of_drift(found: drift.Drift, pair: Pair) -> str:
    said = (
        "A point a sequence: D, the sum of its d (nats, log space), on its number of scored tokens "
        "that are finite. "
    )
    if found.slope.value is None:
        said += f"Slope: {NONE}. "
    else:
        slope = with_interval(found.slope, pair.sequences, "nats per 1,000 tokens")
        said += f"Line: least squares, {slope}"
        said += ", dashed at the ends of its interval. " if found.slope.has_interval else ". "
    if found.drawn == found.sequences:
        return f"{said}All {count(found.sequences, 'sequence')} are drawn."
    return (
        f"{said}{found.drawn:,} of {count(found.sequences, 'sequence')} are drawn: the "
        f"{drift.EXTREME} with the largest |D|, and of the others one in {found.step}."
    )


_FORKS_HEAD = ("first tokens", "sequences known", "share that agrees")


def _of_forks(pair: Pair, found: Forks) -> Figure:
    floors = {
        side: floor
        for side, slot in zip(pair.sides, SLOTS, strict=True)
        if (floor := pair.forks_of_floor("batch", slot)) is not None
    }
    first = "" if found.first is None else f", the first at token {found.first:,}"
    said = (
        f"Share of {count(found.sequences, 'sequence')} in which the likeliest tokens agree on the "
        f"first so many scored ones ({SURVIVAL}), drawn at four lengths an octave. They differ in "
        f"{found.forked:,}{first}; median: {reached(found.median, found.sequences)}. "
        f"{FORKS[found.greedy]}. "
    )
    if found.tied:
        said += (
            f"At {count(found.tied, 'token')} before that several are likeliest, which is no fork: "
            f"were each of them one, {found.forked_or_tied:,} would differ. "
        )
    if floors:
        medians = ", ".join(
            f"{side} {reached(floor.median, floor.sequences)}" for side, floor in floors.items()
        )
        said += f"Dashed: a side against itself in another batch (median: {medians})."
    rows = [
        [
            (f"{r.length:,}", ""),
            (f"{r.sequences:,}", ""),
            (number(r.share.value), interval(r.share)),
        ]
        for r in found.octaves
    ]
    title = "How long greedy runs agree" if found.greedy else "How long the likeliest agree"
    drawing = drift.agreement(found.agreement, [f.agreement for f in floors.values()])
    return Figure(title, drawing, said.strip(), _FORKS_HEAD, rows)
