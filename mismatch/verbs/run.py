"""run: one corpus through both engines, compared and reported."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mismatch import store
from mismatch.capture import plan
from mismatch.capture import run as captures
from mismatch.capture.claim import claimed
from mismatch.engines import find
from mismatch.model import TRAIN_PATH, Condition, side_of
from mismatch.verbs.conclude import conclude
from mismatch.verbs.request import Request

Notify = Callable[[dict[str, Any]], None]


def run(request: Request, out: Path, notify: Notify) -> dict[str, Any]:
    """Check, claim the folder, capture what is missing, conclude. Returns the summary."""
    request.check()
    specs = plan.pairs(request.train, request.infer, request.paths, request.repeats, request.floor)
    with claimed(out, request.as_json(), specs) as root:
        _capture(root, request, notify)
        return conclude(root)


def _capture(root: Path, request: Request, notify: Notify) -> None:
    """The infer side first: it draws the ids that the train side scores."""
    infer = _order(request, request.infer, request.paths)
    train = _order(request, request.train, (TRAIN_PATH,))
    ids = request.ids
    if ids.corpus is not None:
        store.save_corpus(root, ids.corpus, ids.about, ids.recorded)
        drawn = ids.about.get("sampled_by")
        infer = captures.seal_recorded(root, infer, ids.recorded, drawn)
    corpus = captures.take(root, infer, notify)
    if corpus is None:
        captures.store_blocked(root, train, "there are no ids to score: the rollout failed")
        return
    captures.take(root, captures.with_corpus(train, corpus), notify)


def _order(request: Request, condition: Condition, paths: Sequence[str]) -> captures.Order:
    engine = find(condition.engine)
    wanted = plan.captures(
        engine, condition, paths, request.repeats, request.floor, request.sequences
    )
    return captures.Order(
        side=side_of(paths[0]),
        engine=engine,
        condition=condition,
        captures=tuple(wanted),
        checkpoint=request.checkpoint,
        corpus=request.ids.corpus,
        corpus_source=request.ids.source,
        prompts=request.ids.prompts,
        sampling=request.sampling,
        trust_remote_code=request.trust_remote_code,
        timeout_s=request.timeout_s,
    )
