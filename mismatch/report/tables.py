"""The pair tables and the finding on a terminal; `finding` and `markdown` are offered here too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mismatch.glossary import NOT_TRUSTED
from mismatch.report import retokenize
from mismatch.report.checks import NOT_RUN, tally
from mismatch.report.finding import finding, notices
from mismatch.report.markdown import markdown
from mismatch.report.noise import Tone, is_deterministic, noise
from mismatch.report.pairs import SLOTS, Estimate, Pair, pairs_of, setups
from mismatch.report.shares import HEAD, LEGEND, Share, cells, shares_of
from mismatch.report.words import NONE, brackets, clean, number

__all__ = ["attributions", "finding", "markdown", "retokenized", "terminal"]

_STYLE: Mapping[Tone, str] = {
    "gap": "bold yellow",
    "calm": "green",
    "unknown": "dim",
    "broken": "bold red",
}

#: Below this width the mean |d| column would push the intervals off the screen.
_WIDE = 100
#: Below this width a knob's row does not fit on one line.
_WIDE_SHARES = 130


def terminal(summary: Mapping[str, Any], console: Console) -> None:
    """Print one table for each two conditions, what the columns mean, and the finding."""
    pairs = pairs_of(summary)
    for title, members in setups(pairs):
        console.print(Text(clean(title), style="bold"))
        console.print(_table(members, wide=console.width >= _WIDE))
        for pair in members:
            if noise(pair).tone == "broken":
                console.print(Text(clean(f"{pair.path}: {noise(pair).reason}"), style="red"))
    attributions(summary, console)
    for line in _legend(pairs):
        console.print(Text(line, style="dim"))
    for line in finding(summary):
        head, _, rest = line.partition(": ")
        console.print(Text.assemble((head + ": ", "bold"), rest))


def attributions(summary: Mapping[str, Any], console: Console) -> None:
    """Print a table for each attribution, its finding, and what the columns mean."""
    found = shares_of(summary)
    for one in found:
        console.print(Text(clean(one.title), style="bold"))
        if one.knobs:
            console.print(_shares(one.knobs, console.width))
            console.print()
        console.print(Text(clean(one.finding), style="bold"))
    if found:
        console.print(Text(LEGEND + "\n", style="dim"))


def _shares(knobs: Sequence[Share], width: int) -> Table:
    """As in report.md; where that is too wide, a rank stands below its knob and an interval below
    its value, so that no name and no number is cut.
    """
    head, rows = list(HEAD), [[clean(cell) for cell in cells(knob)] for knob in knobs]
    if width < _WIDE_SHARES:
        head, rows = _stacked_head(head), [_stacked(row) for row in rows]
    table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False, show_edge=False)
    for at, title in enumerate(head):
        whole = [title, *(row[0] for row in rows if at == 0)]
        longest = max(len(word) for text in whole for word in text.split())
        table.add_column(title, overflow="fold", min_width=longest)
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _stacked_head(head: Sequence[str]) -> list[str]:
    return [title.replace(" the ", "\nthe ").replace(" (", "\n(") for title in head[:-1]]


def _stacked(row: Sequence[str]) -> list[str]:
    knob, *numbers, rank = row
    named = "\n".join([knob.replace(" (", "\n("), rank.replace(" from", "\nfrom")]).rstrip()
    return [named, *(number.replace(" [", "\n[") for number in numbers)]


def _table(pairs: Sequence[Pair], wide: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("path", overflow="fold", min_width=16)
    heads = ["tokens\nsequences", "k3 (nats)"]
    heads += ["mean |d| (nats)"] if wide else []
    for head in [*heads, "floor k3\n" + "/".join(pairs[0].sides), "excess k3"]:
        table.add_column(head, justify="right", no_wrap=True, min_width=_WIDTHS[head[:5]])
    for pair in pairs:
        table.add_row(_name(pair), *_numbers(pair, wide))
    return table


#: So that the columns of one table stand under those of the other.
_WIDTHS = {"token": 9, "k3 (n": 16, "mean ": 16, "floor": 11, "exces": 16}


def _name(pair: Pair) -> Text:
    found = noise(pair)
    return Text.assemble((clean(pair.path), "bold"), "\n", (found.verdict, _STYLE[found.tone]))


def _numbers(pair: Pair, wide: bool) -> list[str]:
    mean = [_cell(pair.metric("abs_logprob_diff_mean"))] if wide else []
    return [
        f"{pair.tokens:,}\n{pair.sequences:,}",
        _cell(pair.metric("k3")),
        *mean,
        "\n".join(_floor(pair, slot) for slot in SLOTS),
        _cell(pair.excess("k3")),
    ]


def _cell(found: Estimate) -> str:
    if found.value is None:
        return NONE
    beside = brackets(found, digits=2) if found.has_interval else "no interval"
    # On two lines of its own: behind the interval it would push a column off 80 columns.
    mark = "" if found.trusted else "\n" + NOT_TRUSTED.replace(" ", "\n", 1)
    return f"{number(found.value)}\n{beside}{mark}"


def _floor(pair: Pair, slot: str) -> str:
    """The batch floor; else the repeat floor, named, because a 0 there is not the noise."""
    batch, repeat = pair.floor("batch", slot, "k3"), pair.floor("repeat", slot, "k3")
    if batch is not None:
        return number(batch.value)
    if is_deterministic(pair, slot):
        return "deterministic"
    return NONE if repeat is None else f"{number(repeat.value)} (repeat)"


def _legend(pairs: Sequence[Pair]) -> list[str]:
    if not pairs:
        return []
    checks = tally(pairs)
    return [
        "k3 = mean(expm1(d) - d), d = lp_train - lp_infer, or left - right; over tokens.",
        "Intervals: 95%, bootstrap over sequences. Floor: the same side in another batch.",
        *map(clean, notices(pairs)),
        clean(f"Preflight: {checks}.") if checks else NOT_RUN,
        "",
    ]


def retokenized(found: Mapping[str, Any], console: Console) -> None:
    """The tables of retokenize.md."""
    console.print(Text(clean(retokenize.title(found)), style="bold"))
    console.print(Text(clean(retokenize.facts(found))))
    for one in retokenize.tables(found):
        table = Table(*one.head, title=one.title, title_justify="left", box=SIMPLE_HEAD)
        for row in one.rows:
            table.add_row(*(Text(clean(cell)) for cell in row))
        console.print(table)
    console.print(Text(retokenize.NOTE))
