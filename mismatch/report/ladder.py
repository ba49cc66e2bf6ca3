"""The preflight ladder and the self-test's table on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mismatch.errors import NO_EVIDENCE, NOT_COMPARABLE, PASS
from mismatch.report.words import clean

STYLE = {
    "pass": "green", "named": "green", "flagged": "green", "quiet": "green",
    "fail": "bold red", "missed": "bold red", "raised": "bold red",
}  # fmt: skip


def ladder(found: Mapping[str, Any], console: Console) -> None:
    """Each pair's rungs; pairs whose ladder is alike stand together."""
    alike: dict[tuple[tuple[str, ...], ...], list[str]] = {}
    for pair in found["pairs"]:
        rows = tuple(
            tuple(clean(str(row.get(key, ""))) for key in ("rung", "verdict", "evidence", "todo"))
            for row in pair["preflight"]
        )
        alike.setdefault(rows, []).append(pair["id"])
    for rows, names in alike.items():
        console.print(Text(clean("\n".join(names)), style="bold"))
        console.print(_rungs(rows))


def _rungs(rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("rung", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("evidence, and what to do", overflow="fold")
    for rung, verdict, evidence, todo in rows:
        words = Text.assemble(evidence, ("\n" + todo, "bold") if todo else "")
        table.add_row(rung, Text(verdict, style=STYLE.get(verdict, "dim")), words)
    return table


def exit_code(found: Mapping[str, Any]) -> int:
    """5 where a rung fails, 4 where nothing was compared, or what was is not finite."""
    pairs = found["pairs"]
    checks = [row for p in pairs for row in p["preflight"] if row["rung"] != "capture"]
    if any(row["verdict"] == "fail" for row in checks):
        return NOT_COMPARABLE
    bad = any(not p["tokens"] or p["nan_tokens"] or p["inf_tokens"] for p in pairs)
    return NO_EVIDENCE if bad or not pairs else PASS


def selftest(found: Mapping[str, Any], console: Console) -> None:
    """Fault, what had to be said, what was."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("fault", overflow="fold", ratio=2)
    table.add_column("must be", no_wrap=True)
    table.add_column("was", no_wrap=True)
    table.add_column("what was reported", overflow="fold", ratio=4)
    for row in found["results"]:
        verdict = Text(row["verdict"], style=STYLE.get(row["verdict"], "dim"))
        table.add_row(row["fault"], row["must"], verdict, Text(clean(row["said"])))
    console.print(table)
    console.print(Text(f"self-test {outcome(found)}", style="bold"))


def outcome(found: Mapping[str, Any]) -> str:
    """Passed or failed, with the rows that could not be told."""
    was = [row["verdict"] for row in found["results"]]
    missed, blind = was.count("missed") + was.count("raised"), was.count("not checked")
    said = "passed" if found["passed"] else f"FAILED: {missed} of {len(was)} rows"
    return f"{said}; not checked: {blind}" if blind else said
