"""Take a request's captures, load by load, and conclude."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mismatch import store
from mismatch.capture import run as captures
from mismatch.capture.claim import claimed
from mismatch.engines import find
from mismatch.errors import MismatchError
from mismatch.model import Corpus
from mismatch.verbs.conclude import conclude
from mismatch.verbs.request import Cell, Request

Notify = Callable[[dict[str, Any]], None]


def run(request: Request, out: Path, notify: Notify) -> dict[str, Any]:
    """Check, claim the folder, capture what is missing, conclude. Returns the summary."""
    request.check()
    for reason in refusals(request, out):
        raise reason
    request.check_code(out)
    request.check_engines(request.cells, out)
    with claimed(out, request.asked, request.pairs, request.attributions) as root:
        _forget_dropped(root, request)
        for cell in (c for c in request.cells if c.refused):
            captures.store_refused(root, request.tasks(cell), cell.refused or "")
        corpus = request.ids.corpus or _drawn(root, request)
        _capture(root, request, orders(request, request.cells), corpus, notify)
        return conclude(root, notify)


def refusals(request: Request, out: Path) -> Iterator[MismatchError]:
    """What stops a run before it begins, as far as this machine's means are the reason."""
    yield from _refused_sampler(request, out)
    yield from refused_corners(request, out)


def _refused_sampler(request: Request, out: Path) -> Iterator[MismatchError]:
    """Where nobody can draw the ids and nobody has, no cell can run: that is the thing to say."""
    for cell in (c for c in request.cells if c.draws and c.refused):
        rollouts = [t for t in request.tasks(cell) if t.capture.path == "rollout"]
        if not any(store.is_sealed(store.trace_folder(out, t.trace)) for t in rollouts):
            yield MismatchError(
                "sampler-refused", condition=cell.condition.spec, reason=cell.refused
            )


def _forget_dropped(root: Path, request: Request) -> None:
    """The failure of a capture that the study no longer asks for is nobody's any more."""
    asked = {task.trace for cell in request.cells for task in request.tasks(cell)}
    for folder in sorted((root / "failed").glob("*/*")):
        trace = f"{folder.parent.name}/{folder.name}"
        if trace not in asked:
            store.discard(store.failed_folder(root, trace))


def refused_corners(request: Request, out: Path) -> Iterator[MismatchError]:
    """An attribution needs all of its corners: one that cannot run here must have been taken."""
    refused = {c.condition.id: c.refused for c in request.cells if c.refused}
    for attribution in request.attributions:
        lost = {
            trace.split("/")[0]
            for trace in attribution.corners.values()
            if trace.split("/")[0] in refused
            and not store.is_sealed(store.trace_folder(out, trace))
        }
        if lost:
            named = "; ".join(f"{name} ({refused[name]})" for name in sorted(lost))
            yield MismatchError("corners-refused", attribution=attribution.id, corners=named)


def capture(request: Request, cells: tuple[Cell, ...], out: Path, notify: Notify) -> Path:
    """Take the captures of some cells and compare nothing: machines share a study this way."""
    request.check()
    request.check_code(out)
    request.check_engines(cells, out)
    for cell in (c for c in cells if c.refused):
        raise MismatchError("condition-refused", condition=cell.condition.spec, reason=cell.refused)
    with claimed(out, request.asked, request.pairs, request.attributions) as root:
        corpus = request.ids.corpus or _drawn(root, request)
        if corpus is None and not any(c.draws for c in cells):
            first = next(c for c in request.cells if c.draws)
            raise MismatchError(
                "needs-rollout", cell=cells[0].condition.id, drawn_by=first.condition.id
            )
        _capture(root, request, orders(request, cells), corpus, notify)
    return root


def _drawn(root: Path, request: Request) -> Corpus | None:
    """The ids of a rollout that is sealed already."""
    tasks = [t for c in request.cells if c.draws for t in request.tasks(c)]
    rollout = next((t for t in tasks if t.capture.path == "rollout"), None)
    return None if rollout is None else captures.drawn_corpus(root, rollout)


def orders(request: Request, cells: tuple[Cell, ...]) -> list[captures.Order]:
    """The cells' captures, gathered into loads: conditions that differ only per request share one.

    In the order of the cells, so that the ids are drawn first.
    """
    loads: dict[tuple[Any, ...], list[Cell]] = {}
    for cell in (c for c in cells if not c.refused):
        load = find(cell.condition.engine).load_of(cell.condition)
        # The text of a condition leaves out where its interpreter and its file lie.
        key = (cell.side, load.spec, *(load.options.get(name) for name in ("python", "file")))
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


def _capture(
    root: Path,
    request: Request,
    work: list[captures.Order],
    corpus: Corpus | None,
    notify: Notify,
) -> None:
    """The load that draws the ids comes first; all others replay them."""
    if request.ids.corpus is not None:
        store.save_corpus(root, request.ids.corpus, request.ids.about, request.ids.recorded)
    for order in work:
        corpus = _take(root, request, order, corpus, notify)


def _take(
    root: Path, request: Request, order: captures.Order, corpus: Corpus | None, notify: Notify
) -> Corpus | None:
    if request.ids.corpus is not None:
        drawn = request.ids.about.get("sampled_by")
        order = captures.seal_recorded(root, order, request.ids.recorded, drawn)
    elif not any(t.capture.path == "rollout" for t in order.tasks):
        if corpus is None:
            captures.store_blocked(root, order)
            return None
        order = captures.with_corpus(order, corpus)
    return captures.take(root, order, notify) or corpus
