"""Take a request's captures, load by load, and conclude."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mismatch import store
from mismatch.capture import run as captures
from mismatch.capture.claim import claimed
from mismatch.engines import find
from mismatch.model import Corpus
from mismatch.verbs.conclude import conclude
from mismatch.verbs.request import Cell, Request

Notify = Callable[[dict[str, Any]], None]


def run(request: Request, out: Path, notify: Notify) -> dict[str, Any]:
    """Check, claim the folder, capture what is missing, conclude. Returns the summary."""
    request.check()
    with claimed(out, request.asked, request.pairs) as root:
        _capture(root, request, orders(request, request.cells), notify)
        return conclude(root)


def orders(request: Request, cells: tuple[Cell, ...]) -> list[captures.Order]:
    """The cells' captures, gathered into loads: conditions that differ only per request share one.

    In the order of the cells, so that the ids are drawn first.
    """
    loads: dict[tuple[str, str], list[Cell]] = {}
    for cell in (c for c in cells if not c.refused):
        key = (cell.side, find(cell.condition.engine).load_of(cell.condition).spec)
        loads.setdefault(key, []).append(cell)
    return [_order(request, gathered) for gathered in loads.values()]


def _order(request: Request, cells: list[Cell]) -> captures.Order:
    first = cells[0].condition
    engine = find(first.engine)
    return captures.Order(
        engine=engine,
        load=engine.load_of(first),
        tasks=tuple(task for cell in cells for task in request.tasks(cell)),
        checkpoint=request.checkpoint(first),
        corpus=request.ids.corpus,
        corpus_source=request.ids.source,
        prompts=request.ids.prompts,
        sampling=request.sampling,
        trust_remote_code=request.trust_remote_code,
        timeout_s=request.timeout_s,
    )


def _capture(root: Path, request: Request, work: list[captures.Order], notify: Notify) -> None:
    """The load that draws the ids comes first; all others replay them."""
    corpus = request.ids.corpus
    if corpus is not None:
        store.save_corpus(root, corpus, request.ids.about, request.ids.recorded)
    for cell in (c for c in request.cells if c.refused):
        captures.store_refused(root, request.tasks(cell), cell.refused or "")
    for order in work:
        corpus = _take(root, request, order, corpus, notify)


def _take(
    root: Path, request: Request, order: captures.Order, corpus: Corpus | None, notify: Notify
) -> Corpus | None:
    if corpus is not None:
        order = captures.with_corpus(order, corpus)
        drawn = request.ids.about.get("sampled_by")
        order = captures.seal_recorded(root, order, request.ids.recorded, drawn)
    elif not any(t.capture.path == "rollout" for t in order.tasks):
        captures.store_blocked(root, order)
        return None
    return captures.take(root, order, notify) or corpus
