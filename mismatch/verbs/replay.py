"""Score sequences of ids with any engines, through the one road that captures take."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mismatch import store
from mismatch.capture import plan
from mismatch.capture.checkpoint import Checkpoint
from mismatch.compare.align import Tokens, read_tokens
from mismatch.engines import find
from mismatch.errors import MismatchError
from mismatch.model import TRAIN_PATH, Condition, Corpus, side_of
from mismatch.study import default_pairs
from mismatch.verbs.request import Cell, Ids, Request, refusal
from mismatch.verbs.run import Notify, run

#: How given ids are scored: as a trainer does, or as a prompt.
SCORING = (TRAIN_PATH, "prefill")


def scoring_path(condition: Condition) -> str:
    """`score` where the engine has it, else `prefill`."""
    return next(path for path in SCORING if path in find(condition.engine).paths)


def replay(
    conditions: Sequence[Condition],
    checkpoint: Checkpoint,
    corpus: Corpus,
    out: Path,
    trust_remote_code: bool,
    notify: Notify,
) -> dict[str, Tokens]:
    """Condition id -> the corpus's tokens with that engine's log-probabilities.

    `out` becomes an ordinary run folder with its report; the same call resumes it. A capture that
    fails is an error: a table with one engine silently missing would be read as whole.
    """
    request = _request(conditions, checkpoint, corpus, trust_remote_code)
    run(request, out, notify)
    tasks = [task for cell in request.cells for task in request.tasks(cell)]
    for task in tasks:
        failed = store.failed_folder(out, task.trace) / "error.json"
        if failed.is_file():
            error = store.read_json(failed)
            first = f"{task.trace} at {error['boundary']}: {error['message']}"
            raise MismatchError("captures-failed-all", first=first, logs=out / "failed")
    return {t.condition.id: read_tokens(store.trace_folder(out, t.trace)) for t in tasks}


def _request(
    conditions: Sequence[Condition],
    checkpoint: Checkpoint,
    corpus: Corpus,
    trust_remote_code: bool,
) -> Request:
    cells = tuple(_cell(condition) for condition in conditions)
    by_side = {s: [c.condition for c in cells if c.side == s] for s in ("train", "infer")}
    ends = default_pairs(
        by_side["train"], by_side["infer"], {c.condition.id: c.paths for c in cells}
    )
    about = {"schema": store.SCHEMA, "source": "retokenize", "sampled_by": None}
    ids = Ids(corpus, about, {}, (), "the rollouts")
    asked = {
        "verb": "study",
        "models": {"model": checkpoint.digest},
        "conditions": {c.condition.id: c.condition.spec for c in cells},
        "paths": list(dict.fromkeys(path for c in cells for path in c.paths)),
        "ids": ids.digest,
        "trust_remote_code": trust_remote_code,
    }
    return Request(
        asked=asked,
        checkpoints={"": checkpoint},
        cells=cells,
        pairs=tuple(plan.pair(e, 1, "none") for e in ends),
        ids=ids,
        sampling=None,
        trust_remote_code=trust_remote_code,
        timeout_s=1800.0,
    )


def _cell(condition: Condition) -> Cell:
    reason = refusal(condition)
    if reason:
        raise MismatchError("condition-refused", condition=condition.spec, reason=reason)
    path = scoring_path(condition)
    return Cell(condition, side_of(path), (path,), 1, "none")
