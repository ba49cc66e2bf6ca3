"""The cells of a study on a terminal, as `plan` lists them before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mismatch.report.words import clean, count


def plan(found: Mapping[str, Any], console: Console) -> None:
    """Print what `api.plan` found: a table that leaves the ids room, and below it what would push
    them out: the text of each load, and why a cell or the run cannot be.
    """
    cells = found["cells"]
    console.print(_table(cells))
    said = [count(len(cells), "cell"), count(found["loads"], "load")]
    console.print(f"\n{said[0]} in {said[1]}, {count(len(found['pairs']), 'pair')}")
    for line in [*_loads(cells), *_unsupported(cells)]:
        console.print(Text(clean(line)), soft_wrap=True)
    for reason in found["refused"]:
        console.print(Text(clean(f"run would stop here: {reason}"), style="red"), soft_wrap=True)


def _table(cells: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("cell", overflow="fold")
    for head in ("side", "load", "ranks", "sealed", "status"):
        table.add_column(head, no_wrap=True)
    for row in cells:
        load = "" if row["load"] is None else str(row["load"])
        sealed = f"{row['sealed']} of {len(row['captures'])}"
        status = row["status"].partition(":")[0]
        words = [row["id"], row["side"], load, str(row["ranks"]), sealed, status]
        table.add_row(*(Text(clean(word)) for word in words))
    return table


def _loads(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each load by its number: the engine and the options that need a load of their own."""
    numbered = {row["load"]: row for row in cells if row["load"] is not None}
    found = []
    for number, row in sorted(numbered.items()):
        ranks = f", {row['ranks']} torchrun ranks" if row["ranks"] > 1 else ""
        found.append(f"load {number}: {row['loads']} ({row['side']}{ranks})")
    return found


def _unsupported(cells: Sequence[Mapping[str, Any]]) -> list[str]:
    """Why a cell cannot run here; its status in the table is the one word."""
    return [f"{row['id']} is {row['status']}" for row in cells if ":" in row["status"]]
