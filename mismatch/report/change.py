"""What `diff` found, on a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mismatch.glossary import NOT_TRUSTED
from mismatch.report.pairs import Estimate, estimate
from mismatch.report.words import NONE, brackets, clean, count, interval, number, sample_size

_UNKNOWN = "unknown"
_STYLE = {"worse": "bold red", "better": "bold green", "changed": "bold yellow"}
#: Facts shown one by one; --json has all.
_FACTS = 12

NOTE = (
    "old and new: as each run's summary has them. difference: new - old; ratio: new / old. 95%, "
    "bootstrap-t over sequences. More than noise: that interval leaves out 0, and drawing by lot "
    "which run is which makes a difference as large in at most 5% of draws (chance). Where nothing "
    "changed, up to 1 metric in 20 comes out so. Unknown: the interval is missing or not trusted."
)


def diff(found: Mapping[str, Any], console: Console) -> None:
    """A line for each pair; then a table for each; then what changed in what made their sides."""
    for pair in found["pairs"]:
        console.print(Text(clean(_summary(pair))), soft_wrap=True)  # one line, however long
    console.print()
    for pair in found["pairs"]:
        _say(console, _title(pair), "bold")
        console.print(_table(pair["metrics"], console.width >= _WIDE))
        for line in _below(pair):
            _say(console, line)
        console.print()
    for line in _changed(found["pairs"]):
        _say(console, line)
    console.print()
    for where, key in (("old", "only_old"), ("new", "only_new")):
        if found[key]:
            _say(console, f"Only in the {where} run: {', '.join(found[key])}.")
    _say(console, NOTE, "dim")


def _say(console: Console, line: str, style: str = "") -> None:
    console.print(Text(clean(line), style=style))


#: What the line of a pair speaks of.
_LEADING = {"k3": "k3", "abs_logprob_diff_mean": "mean abs d"}


def _summary(pair: Mapping[str, Any]) -> str:
    rows = {name: pair["metrics"][key] for key, name in _LEADING.items()}
    return f"{_name_of(pair)}: " + "; ".join(f"{n} {_in_short(row)}" for n, row in rows.items())


def _in_short(row: Mapping[str, Any]) -> str:
    """The verdict, and the ratio with its interval, else the difference; why there is none."""
    ratio, difference = estimate(row["ratio"]), estimate(row["difference"])
    word = _word(row)
    if word == _UNKNOWN:
        known = f", {number(ratio.value)} times" if ratio.value is not None else ""
        return f"{word}{known} ({row['reason'].partition(':')[0]})"
    if ratio.value is not None and ratio.has_interval:
        return f"{word}, {number(ratio.value)} {interval(ratio)} times"
    return f"{word}, difference {number(difference.value)} {interval(difference)}"


def _name_of(pair: Mapping[str, Any]) -> str:
    return _arrow(pair["id"], pair["new_id"])


def _arrow(old: str, new: str) -> str:
    return old if old == new else f"{old} -> {new}"


def _title(pair: Mapping[str, Any]) -> str:
    name = _name_of(pair)
    sizes = [sample_size(n, s) for n, s in zip(pair["tokens"], pair["sequences"], strict=True)]
    size = sizes[0] if sizes[0] == sizes[1] else f"{sizes[0]} -> {sizes[1]}"
    return f"{name} ({size}; {pair['how']})"


#: Longer names stand on two lines, so that all columns fit on 80 columns; the ratio takes more.
_NAME, _WIDE = 12, 100


def _table(metrics: Mapping[str, Mapping[str, Any]], wide: bool) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    parts = ("old", "new", "difference", *(["ratio"] if wide else []))
    table.add_column("metric", min_width=_NAME, overflow="fold")
    for head in (*parts, "more than\nnoise?\n(chance)"):
        table.add_column(head, overflow="fold")
    for key, row in metrics.items():
        values = (_cell(estimate(row[part])) for part in parts)
        table.add_row(_name(key), *values, _verdict(row))
    return table


def _name(key: str) -> str:
    """Broken after an underscore where it is long."""
    lines = [""]
    for part in key.replace("_", "_ ").split():
        lines[-1:] = [lines[-1], part] if len(lines[-1] + part) > _NAME else [lines[-1] + part]
    return "\n".join(lines)


def _cell(found: Estimate) -> str:
    if found.value is None:
        return NONE
    if not found.has_interval:
        return f"{number(found.value)}\nno interval"
    mark = "" if found.trusted else "\n" + NOT_TRUSTED.replace(" ", "\n", 1)
    return f"{number(found.value)}\n{brackets(found, digits=2)}{mark}"


def _verdict(row: Mapping[str, Any]) -> Text:
    word = _word(row)
    said = {"not more than noise": "no"}.get(word, word)
    without = row["chance"] is None or word == _UNKNOWN
    chance = "" if without else f"\n({_percent(row['chance'])})"
    return Text(f"{said}{chance}", style=_STYLE.get(word, "dim"))


def _word(row: Mapping[str, Any]) -> str:
    """worse, better, changed, not more than noise, or unknown."""
    word = str(row["verdict"]).rpartition(": ")[2]
    return _UNKNOWN if word == "no evidence" else word


def _percent(share: float) -> str:
    digits = 2 if share < 0.01 else 1 if share < 0.1 else 0
    return f"{share:.{digits}%}"


def _below(pair: Mapping[str, Any]) -> list[str]:
    lines: list[str] = []
    reasons: dict[str, list[str]] = {}
    for key, row in pair["metrics"].items():
        if row["reason"]:
            reasons.setdefault(row["reason"], []).append(key)
    lines += [f"No evidence on {', '.join(keys)}: {why}." for why, keys in reasons.items()]
    for rung in pair["preflight"]:
        said = f"Check '{rung['rung']}': {rung['old']} -> {rung['new']}. {rung['evidence']}"
        lines.append(said.rstrip())
    who = pair["sampled_by"]
    if who[0] != who[1]:
        lines.append(f"Who sampled the ids: {who[0]} -> {who[1]}.")
    return lines


#: A fact's name, its old and its new value.
_Fact = tuple[str, ...]


def _changed(pairs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each changed fact once, under all captures that it changed of; then those with none."""
    sides: dict[str, list[_Fact]] = {}
    shared: Counter[str] = Counter()
    for pair in pairs:
        for side, rows in pair["changed"].items():
            capture = f"{side} {_arrow(*pair['traces'][side])}"
            sides[capture] = [tuple(row) for row in rows]
            shared[capture] += 1
    owners: dict[_Fact, list[str]] = {}
    for capture, facts in sides.items():
        for fact in facts:
            owners.setdefault(fact, []).append(capture)
    groups: dict[tuple[str, ...], list[_Fact]] = {}
    for fact, captures in owners.items():
        groups.setdefault(tuple(captures), []).append(fact)
    unchanged = tuple(capture for capture, facts in sides.items() if not facts)
    if unchanged:
        groups[unchanged] = []

    def told(capture: str) -> str:
        return f"{capture} (in {shared[capture]} pairs)" if shared[capture] > 1 else capture

    return [
        line
        for captures, facts in groups.items()
        for line in _facts(", ".join(map(told, captures)), facts)
    ]


def _facts(side: str, rows: Sequence[Sequence[str]]) -> list[str]:
    if not rows:
        return [f"{side}: every recorded fact is the same."]
    shown = [f"  {name}: {old} -> {new}" for name, old, new in rows[:_FACTS]]
    more = [f"  and {len(rows) - _FACTS} more facts (--json)"] if len(rows) > _FACTS else []
    return [f"{side}: {count(len(rows), 'fact')} changed", *shown, *more]
