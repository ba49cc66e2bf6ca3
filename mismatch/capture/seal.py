"""From a guest's parts to a sealed trace. Refuses what contradicts the condition or the corpus."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mismatch
from mismatch import store, wire
from mismatch.engines.base import Engine
from mismatch.model import LOGPROB_CEILING, Condition, Corpus, Sampling, Task


class SealRefused(Exception):
    """The parts are not a trace of what was asked; the message says why."""


@dataclass(frozen=True, slots=True)
class Origin:
    """What a trace's provenance says beside the facts."""

    checkpoint: Mapping[str, Any]
    corpus_source: str
    sampling: Sampling | None
    tokenizer: Mapping[str, Any] | None
    interpreter: str
    started: str
    seconds: float


def check(engine: Engine, task: Task, facts: Mapping[str, Any]) -> None:
    """Observed against asked: silent fallback is this field's classic lie."""
    observed, condition = facts.get("observed", {}), task.condition
    for name in engine.observed:
        if name not in condition.options:
            continue
        asked = condition.options[name]
        if name == "padding" and max(map(len, task.capture.groups)) == 1:
            continue  # nothing was padded, so there was nothing to see
        if name not in observed:
            raise SealRefused(
                f"{name}={asked} was asked, and the engine does not show what it used"
            )
        if observed[name] != asked:
            raise SealRefused(f"{name}={asked} was asked, {name}={observed[name]} was used")


def aligned(corpus: Corpus, rows: Sequence[wire.Row]) -> list[wire.Values]:
    """Full-length values per sequence, in corpus order, checked against its ids."""
    if [r.sequence for r in rows] != list(range(len(corpus))):
        raise SealRefused(f"{len(rows)} sequences came back of {len(corpus)}")
    values = []
    for row, ids, scored in zip(rows, corpus.token_ids, corpus.scored, strict=True):
        offset = len(ids) - len(row.token_ids)
        if offset < 0 or not np.array_equal(row.token_ids, ids[offset:]):
            raise SealRefused(f"sequence {row.sequence}: the engine used other ids")
        full = row.values.padded(offset)
        if full.routes is not None and len(full.routes) != len(ids):
            raise SealRefused(
                f"sequence {row.sequence}: routes of {len(full.routes)} of {len(ids)} positions"
            )
        _check_range(row.sequence, full.logprobs, scored)
        values.append(full)
    return values


def _check_range(sequence: int, values: np.ndarray, scored: np.ndarray) -> None:
    high = np.flatnonzero(scored & (values > LOGPROB_CEILING))
    if len(high):
        raise SealRefused(
            f"sequence {sequence}, position {high[0]}: log-probability "
            f"{values[high[0]]:g} is above 0"
        )


def seal_trace(
    root: Path,
    staging: Path,
    engine: Engine,
    task: Task,
    plan: wire.CallPlan,
    corpus: Corpus,
    origin: Origin,
) -> None:
    """Check a finished capture and write `traces/<condition>/<capture>/`."""
    facts = wire.read_json(wire.facts_path(staging, plan.name))
    check(engine, task, facts)
    values = aligned(corpus, wire.load_capture(staging, plan))
    _check_asked(task.condition, values)
    provenance = _provenance(task, corpus, facts, origin)

    def fill(aside: Path) -> None:
        shutil.copyfile(staging / "job.json", aside / "job.json")
        shutil.copyfile(staging / "worker.log", aside / "worker.log")
        (aside / "provenance.json").write_text(store.dump_json(provenance), encoding="utf-8")
        given = [n for n in wire.BESIDE if getattr(values[0], n) is not None]
        beside = {n: [getattr(v, n) for v in values] for n in given}
        store.write_trace_tokens(
            aside / "tokens.parquet", corpus, [v.logprobs for v in values], beside
        )
        if values[0].top_ids is not None:
            ids, logprobs = ([getattr(v, n) for v in values] for n in ("top_ids", "top_logprobs"))
            store.write_topk(aside / "topk.parquet", corpus, ids, logprobs)
        if values[0].routes is not None:
            store.write_routes(aside / store.ROUTES, corpus, [np.asarray(v.routes) for v in values])

    folder = store.trace_folder(root, task.trace)
    store.seal(folder, fill, {"kind": "trace", "corpus": corpus.sha})


def _check_asked(condition: Condition, values: Sequence[wire.Values]) -> None:
    """What was asked beyond the token's own value must be there, for every sequence."""
    for name, column in (("topk", "top_ids"), ("entropy", "entropy"), ("routes", "routes")):
        if condition.options.get(name) and any(getattr(v, column) is None for v in values):
            raise SealRefused(f"{name} was asked, and the engine gave none")


def _provenance(
    task: Task, corpus: Corpus, facts: Mapping[str, Any], origin: Origin
) -> dict[str, Any]:
    condition, capture = task.condition, task.capture
    return {
        "schema": store.SCHEMA,
        "trace": task.trace,
        "condition": condition.spec,
        "engine": condition.engine,
        "path": capture.path,
        "capture": capture.name,
        "corpus": corpus.sha,
        "corpus_source": origin.corpus_source,
        "model": dict(origin.checkpoint),
        "batch": max(map(len, capture.groups)),
        "calls": len(capture.groups),
        "facts": dict(facts),
        "tokenizer": origin.tokenizer,
        "sampling": None if origin.sampling is None else asdict(origin.sampling),
        "interpreter": origin.interpreter,
        "started": origin.started,
        "seconds": round(origin.seconds, 1),
        "mismatch": mismatch.__version__,
    }
