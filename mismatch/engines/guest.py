"""The guest's main loop: read job.json, drive one Worker, leave parts behind.

Run as `INTERPRETER -P -m mismatch.engines.guest STAGING_FOLDER` with only the staged source on the
path. It may import the standard library, numpy, the wire module and its own engine.

A Worker is what an engine folder's worker.py provides:

    Worker(job, events)
    load()                       start the engine, load weights
    configure(options)           the request options of the capture that follows
    encode(prompts)              -> list of ids, facts about tokenizer and template
    sample(prompts, seeds)       -> (response ids, their Values at sampling time) each
    score(path, sequences, first, asked) -> Values per sequence, of the length of its ids; entries
                                    before `first` (the first scored position) may be NaN. asked:
                                    (n, K) ids per sequence, -1 for none, that belong to its top-k
                                    too (where the engine can and top-k is captured). Where the
                                    capture's options have replay_routes=true: routes=[(n, L, K)
                                    experts per sequence, -1 for the engine's own choice] too
    texts(ids)                   -> the text of each id
    facts()                      what was observed, read from the live engine, never from the job
    identity()                   of a server or of the user's own code: what tells it from another
                                    one at the same address
    close()

An engine of several ranks runs this loop in each of them; rank 0 alone writes, except that the
first rank that fails says so.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import wire


class Stage:
    """Where the guest is, so that any exception can be attributed to one boundary."""

    def __init__(self, events: wire.Events) -> None:
        self.boundary = "load"
        self.capture: str | None = None
        self._events = events

    def enter(self, boundary: str, capture: str | None = None, **more: Any) -> None:
        self.boundary, self.capture = boundary, capture
        self._events.send(boundary, capture=capture, **more)


PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with_host() -> None:
    """A host that is killed outright cannot end its guest; the kernel does it."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


RANK = int(os.environ.get("RANK", "0"))  # torchrun's; an engine of one process has none


def main(folder: Path) -> int:
    die_with_host()
    events = wire.Events(folder / "events.jsonl", silent=RANK > 0)
    stage = Stage(events)
    try:
        _run(folder, wire.read_job(folder), events, stage)
    except Exception as reason:
        traceback.print_exc()
        _write_error(folder, stage, reason)
        return 1
    return 0


def _write_error(folder: Path, stage: Stage, reason: Exception) -> None:
    """The first rank to fail tells why; its siblings fail because it did."""
    if (folder / "error.json").exists():
        return
    who = f"rank {RANK}: " if "RANK" in os.environ else ""
    error = {"boundary": stage.boundary, "type": type(reason).__name__, "message": f"{who}{reason}"}
    wire.write_json(folder / "error.json", {**error, "capture": stage.capture})


def _run(folder: Path, job: wire.Job, events: wire.Events, stage: Stage) -> None:
    # Read before the load, at which ranks meet: what rank 0 writes later is the same for all.
    finished = {plan.name: wire.finished_calls(folder, plan.name) for plan in job.captures}
    todo = [plan for plan in job.captures if not wire.is_complete(folder, plan)]
    stage.enter("load")
    module = importlib.import_module(f"mismatch.engines.{job.engine}.worker")
    worker = module.Worker(job, events)
    worker.load()
    _keep_one_source(folder, worker)
    prompts: list[np.ndarray] = []
    if job.sampling is not None:
        stage.enter("encode")
        prompts = _encode(folder, worker)
    for plan in todo:
        _capture(folder, job, plan, worker, prompts, stage, finished[plan.name])
    stage.enter("close")
    if RANK == 0:
        _write_texts(folder, worker)
    worker.close()
    stage.enter("done")


def _keep_one_source(folder: Path, worker: Any) -> None:
    """What a resume adds must come from what gave the rest: a server may have been restarted, a
    plug-in installed anew.
    """
    if not hasattr(worker, "identity"):
        return
    note, now = folder / "identity.json", worker.identity()
    kept = note.is_file() and any((folder / "parts").rglob("*.npz"))
    then = wire.read_json(note) if kept else now
    if _at_load(then, now) != now:
        raise ValueError(
            f"the server or code is not the one that gave what is kept of this run (then {then}, "
            f"now {now}): run again in a new folder"
        )
    wire.write_json(note, then)


def _at_load(then: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Of what is noted, what was known once the code was loaded; it may have imported more since
    (the host has compared those files before it started this process).
    """
    if "files" not in now:
        return then
    return {**then, "files": {n: d for n, d in then["files"].items() if n in now["files"]}}


def _note_files(folder: Path, worker: Any) -> None:
    """What the user's code imported only when it was asked: a resume must find it as it was."""
    note = folder / "identity.json"
    if RANK == 0 and note.is_file() and "files" in (now := worker.identity()):
        then = wire.read_json(note)
        wire.write_json(note, {**then, "files": {**then["files"], **now["files"]}})


def _encode(folder: Path, worker: Any) -> list[np.ndarray]:
    lines = (folder / "prompts.jsonl").read_text(encoding="utf-8").splitlines()
    ids, about = worker.encode([json.loads(line) for line in lines])
    rows = [np.asarray(i, np.int32) for i in ids]
    for number, row in enumerate(rows):
        if not len(row):
            raise ValueError(f"prompt {number + 1} has no tokens")
    wire.save_sequences(folder / "encoded.npz", rows)
    wire.write_json(folder / "tokenizer.json", about)
    return rows


def _capture(
    folder: Path,
    job: wire.Job,
    plan: wire.CallPlan,
    worker: Any,
    prompts: list[np.ndarray],
    stage: Stage,
    finished: set[int],
) -> None:
    sampling = plan.path == "rollout"
    boundary = "sample" if sampling else "score"
    stage.enter(boundary, plan.name)
    worker.configure(plan.options)
    replay = None if sampling else _replay(folder, job)
    kept = Kept(folder, plan.name)
    total, done = sum(map(len, plan.groups)), sum(len(plan.groups[call]) for call in finished)
    try:
        for call in _to_make(plan.groups, finished):
            group = plan.groups[call]
            stage.enter(
                boundary, plan.name, call=call, of=len(plan.groups), sequences=len(group),
                done=done, total=total,
            )  # fmt: skip
            if replay is None:
                rows = _sample(job, worker, prompts, group)
            else:
                rows = _score(plan, worker, group, replay)
            if call not in finished:
                kept.add(call, rows)
                done += len(group)
    finally:
        kept.flush()
        _note_files(folder, worker)
    facts = worker.facts()
    if RANK == 0:
        wire.write_json(wire.facts_path(folder, plan.name), wire.finite(facts))
    stage.enter("captured", plan.name)


def _to_make(groups: list[list[int]], finished: set[int]) -> list[int]:
    """The calls that are missing, and of those made by an earlier process one of each other size:
    facts are of what ran here, and must not miss a shape that the capture has.
    """
    calls = [call for call in range(len(groups)) if call not in finished]
    sizes = {len(groups[call]) for call in calls}
    for call in sorted(finished):
        if len(groups[call]) not in sizes:
            calls.append(call)
            sizes.add(len(groups[call]))
    return sorted(calls)


class Kept:
    """Answers on their way to disk: a file a second, not a file a call.

    A crash loses at most the last second's calls; writing each of a thousand short calls by itself
    would cost a fifth of their time.
    """

    EVERY_S = 1.0

    def __init__(self, folder: Path, capture: str) -> None:
        self._place = folder, capture
        self._calls: list[int] = []
        self._rows: list[wire.Row] = []
        self._last = time.monotonic()

    def add(self, call: int, rows: list[wire.Row]) -> None:
        if RANK > 0:
            return
        self._calls.append(call)
        self._rows += rows
        if time.monotonic() - self._last >= self.EVERY_S:
            self.flush()

    def flush(self) -> None:
        if self._calls:
            wire.save_part(*self._place, self._calls, self._rows)
        self._calls, self._rows, self._last = [], [], time.monotonic()


def _sample(job: wire.Job, worker: Any, prompts: list[np.ndarray], group: list[int]) -> list[Any]:
    """Sequence s is sample s % samples of prompt s // samples. It has a seed of its own, which an
    engine may take for the whole call from its first sequence.
    """
    assert job.sampling is not None
    samples, seed = job.sampling["samples"], job.sampling["seed"]
    outputs = worker.sample([prompts[s // samples] for s in group], [seed + s for s in group])
    return [wire.Row(s, ids, values) for s, (ids, values) in zip(group, outputs, strict=True)]


def _score(
    plan: wire.CallPlan, worker: Any, group: list[int], replay: wire.Sequences
) -> list[wire.Row]:
    ids, scored, top_ids, routes = replay
    more = {"routes": [routes[s] for s in group]} if plan.options.get("replay_routes") else {}
    chosen = [ids[s] for s in group]
    first = [int(np.argmax(scored[s])) if scored[s].any() else len(ids[s]) for s in group]
    values = worker.score(plan.path, chosen, first, [top_ids[s] for s in group], **more)
    for s, row, value in zip(group, chosen, values, strict=True):
        back = len(value.logprobs)
        if len(row) != back:
            raise ValueError(f"sequence {s}: {len(row)} ids sent, {back} values came back")
    return [wire.Row(s, i, v) for s, i, v in zip(group, chosen, values, strict=True)]


def _replay(folder: Path, job: wire.Job) -> wire.Sequences:
    """The ids to replay: given, or the prompts followed by what the rollout drew."""
    corpus = folder / "corpus.npz"
    if not corpus.is_file():
        rollout = next(plan for plan in job.captures if plan.path == "rollout")
        assert job.sampling is not None
        prompts = wire.load_sequences(folder / "encoded.npz").ids
        wire.save_sequences(
            corpus, *join(prompts, job.sampling["samples"], wire.load_capture(folder, rollout))
        )
    return wire.load_sequences(corpus)


def join(
    prompts: list[np.ndarray], samples: int, rollout: list[wire.Row]
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Prompts and their rollouts -> full sequences, with the response scored."""
    ids, masks = [], []
    for row in rollout:
        prompt = prompts[row.sequence // samples]
        ids.append(np.concatenate([prompt, row.token_ids]))
        masks.append(np.arange(len(ids[-1])) >= len(prompt))
    return ids, masks


def _write_texts(folder: Path, worker: Any) -> None:
    """Token texts for the report's viewer; every id that was replayed, once."""
    if not (folder / "corpus.npz").is_file():
        return
    ids = np.unique(np.concatenate(wire.load_sequences(folder / "corpus.npz").ids)).tolist()
    texts = worker.texts(ids)
    if texts is not None:
        wire.write_json(folder / "texts.json", dict(zip(map(str, ids), texts, strict=True)))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
