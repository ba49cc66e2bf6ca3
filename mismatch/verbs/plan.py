"""plan: every cell of a study before anything runs: its load, what is sealed, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mismatch import store
from mismatch.capture import claim
from mismatch.engines import find
from mismatch.errors import MismatchError, suggest
from mismatch.verbs.request import Cell, Request
from mismatch.verbs.run import orders, refusals


def plan_rows(request: Request, out: Path) -> dict[str, Any]:
    """{"cells": [...], "loads": n, "pairs": [ids], "refused": [why a run would stop]}.

    Nothing is started and nothing is written. Raises `out-not-ours` where a run would.
    """
    request.check()
    claim.check(out, request.asked, request.pairs, request.attributions)
    request.check_code(out)
    loads = {
        task.trace: number
        for number, order in enumerate(orders(request, request.cells), 1)
        for task in order.tasks
    }
    cells = [_row(request, cell, out, loads) for cell in request.cells]
    return {
        "cells": cells,
        "loads": len(set(loads.values())),
        "pairs": [pair.id for pair in request.pairs],
        "refused": [str(reason) for reason in refusals(request, out)],
    }


def _row(request: Request, cell: Cell, out: Path, loads: dict[str, int]) -> dict[str, Any]:
    tasks = request.tasks(cell)
    sealed = sum(store.is_sealed(store.trace_folder(out, t.trace)) for t in tasks)
    engine = find(cell.condition.engine)
    status = "cached" if sealed == len(tasks) else "to do"
    if cell.refused and status == "to do":
        status = f"unsupported: {cell.refused}"
    return {
        "id": cell.condition.id,
        "side": cell.side,
        "condition": cell.condition.spec,
        "load": None if cell.refused else loads[tasks[0].trace],
        "loads": engine.load_of(cell.condition).spec,
        "ranks": engine.ranks(cell.condition),
        "captures": [t.capture.name for t in tasks],
        "sealed": sealed,
        "status": status,
    }


def chosen(request: Request, only: str) -> tuple[Cell, ...]:
    """The cell of that id; else an error that names the cells."""
    found = tuple(c for c in request.cells if c.condition.id == only)
    if not found:
        ids = [c.condition.id for c in request.cells]
        raise MismatchError(
            "no-such-cell", cell=only, known=", ".join(ids), hint_extra=suggest(only, ids)
        )
    return found
