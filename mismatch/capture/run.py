"""Take the captures of one load: load once, replay all, seal each, keep what finished.

A guest that dies is started again for the captures it had not begun; the one that broke is stored
under failed/ with its boundary and the tail of its log. A rerun of the same command redoes only
what is missing: whole engine calls are the unit, so resume never changes who shares a batch.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import mismatch
from mismatch import store, wire
from mismatch.capture import environment, launch, seal
from mismatch.capture.checkpoint import Checkpoint
from mismatch.engines import observe
from mismatch.engines.base import RESHAPING, SHARED, Engine
from mismatch.engines.guest import join
from mismatch.errors import MismatchError
from mismatch.model import NO_IDS, UNSUPPORTED, Condition, Corpus, Sampling, Task, side_of


@dataclass(frozen=True, slots=True)
class Order:
    """One load's work: what to capture, on which ids, with which limits.

    load: the part of the tasks' conditions that they share; each adds its request options.
    """

    engine: Engine
    load: Condition
    tasks: tuple[Task, ...]
    checkpoint: Checkpoint
    corpus: Corpus | None  # None: prompts are rolled out first
    corpus_source: str
    prompts: Sequence[Mapping[str, Any]] = ()
    sampling: Sampling | None = None
    trust_remote_code: bool = False
    timeout_s: float = 1800.0

    def call_plan(self, task: Task) -> wire.CallPlan:
        """The task as the guest is told of it."""
        groups = [list(g) for g in task.capture.groups]
        options = self.engine.request_options(task.condition)
        return wire.CallPlan(task.trace, task.capture.path, groups, options)


def take(root: Path, order: Order, notify: launch.Notify) -> Corpus | None:
    """Take the captures of an order that are not sealed yet. Returns the corpus, if any."""
    order = _with_known_corpus(root, order)
    todo = [t for t in order.tasks if not _sealed(root, t)]
    for task in order.tasks:  # what is sealed did not fail, whoever took it
        store.discard(store.failed_folder(root, task.trace))
    if not todo:
        return order.corpus
    staging = _staging(root, order)
    staging.mkdir(parents=True, exist_ok=True)
    corpus = _take_all(root, staging, order, todo, notify)
    if all(_sealed(root, t) for t in order.tasks):
        shutil.rmtree(staging)
    return corpus


def _staging(root: Path, order: Order) -> Path:
    """Where a load's guest works; a load of the other side, in another interpreter or of another
    file of the same name, may have the same options.
    """
    side, options = side_of(order.tasks[0].capture.path), order.load.options
    places = [str(options[name]) for name in ("python", "file") if name in options]
    other = f"-{store.text_digest(' '.join(places))[:6]}" if places else ""
    return store.inside(root, ".work", f"{side}-{order.load.id}{other}")


def _sealed(root: Path, task: Task) -> bool:
    return store.is_sealed(store.trace_folder(root, task.trace))


def _rollout(order: Order) -> Task | None:
    return next((t for t in order.tasks if t.capture.path == "rollout"), None)


def _with_known_corpus(root: Path, order: Order) -> Order:
    """On a rerun the sealed rollout names its corpus."""
    rollout = _rollout(order)
    if order.corpus is not None or rollout is None:
        return order
    return replace(order, corpus=drawn_corpus(root, rollout))


def drawn_corpus(root: Path, rollout: Task) -> Corpus | None:
    """The ids that a sealed rollout drew; None where it is not sealed."""
    if not _sealed(root, rollout):
        return None
    sha = store.verified(store.trace_folder(root, rollout.trace), "trace")["corpus"]
    return store.load_corpus(store.inside(root, "corpus", sha))[0]


def _take_all(
    root: Path, staging: Path, order: Order, todo: list[Task], notify: launch.Notify
) -> Corpus | None:
    try:
        python, versions = environment.interpreter(order.engine, order.load)
    except MismatchError as reason:
        unfit: launch.Failure | None = launch.Failure("environment", reason.code, str(reason))
    else:
        unfit = _other_versions(root, order, versions)
    if unfit:
        for task in todo:
            _store_failure(root, staging, task, unfit)
        return order.corpus
    _keep_one_maker(staging, order, python, versions)
    # An interrupted run may have left whole captures that were never sealed.
    order, todo = _harvest(root, staging, order, todo, python, datetime.now(UTC))
    while todo:
        started = datetime.now(UTC)
        _stage(staging, order, todo)
        notify({"stage": "start", "condition": order.load.spec, "captures": len(todo)})
        failure = _guest(staging, order, python, notify)
        order, rest = _harvest(root, staging, order, todo, python, started)
        todo = _after_failure(root, staging, order, rest, failure)
    return order.corpus


def _keep_one_maker(staging: Path, order: Order, python: Path, versions: Mapping[str, str]) -> None:
    """Calls are never resumed by another interpreter, other versions of its libraries, other code
    of the user's or under other switches: such a capture would be neither's.
    """
    switches = {**observe.read_switches(), **order.engine.environment(order.load)}
    maker = store.dump_json({"python": str(python), "versions": versions, "switches": switches})
    note, gave = staging / "maker.json", staging / "identity.json"
    code = wire.read_json(gave) if gave.is_file() else {}
    other = note.is_file() and note.read_text(encoding="utf-8") != maker
    if other or order.engine.changed(order.load, code):
        shutil.rmtree(staging)
        staging.mkdir()
    note.write_text(maker, encoding="utf-8")


def _other_versions(root: Path, order: Order, versions: Mapping[str, str]) -> launch.Failure | None:
    """What was taken of this load with other libraries than are there now: its floors would
    compare the two.
    """
    for task in (t for t in order.tasks if _sealed(root, t)):
        provenance = store.read_provenance(store.trace_folder(root, task.trace))
        then = provenance["facts"].get("versions") or {}
        for name in sorted(then.keys() & versions.keys()):
            if then[name] != versions[name]:
                said = (
                    f"{task.trace} was taken with {name} {then[name]} and {versions[name]} is "
                    "installed now: take the run again in a new folder, or install that version"
                )
                return launch.Failure("environment", "OtherVersions", said)
    return None


def _guest(
    staging: Path, order: Order, python: Path, notify: launch.Notify
) -> launch.Failure | None:
    kept = environment.compiled_dir(python, order.load)
    launch.lend_compiled(staging, kept)
    more, ranks = order.engine.environment(order.load), order.engine.ranks(order.load)
    how = launch.Start(python, order.engine.name, more, ranks, order.timeout_s)
    failure = launch.run_guest(staging, how, notify)
    if failure is None:
        launch.keep_compiled(staging, kept)
    return failure


def _harvest(
    root: Path,
    staging: Path,
    order: Order,
    todo: list[Task],
    python: Path,
    started: datetime,
) -> tuple[Order, list[Task]]:
    """Seal what is whole. Returns the order with its corpus, once drawn, and what is left to do."""
    try:
        order = _with_drawn_corpus(root, staging, order)
    except seal.SealRefused as reason:
        _refuse_rollout(root, staging, order, str(reason))
        return order, []
    origin = _origin(staging, order, python, started)
    done = _seal_finished(root, staging, order, todo, origin)
    return order, [t for t in todo if t.trace not in done]


def _refuse_rollout(root: Path, staging: Path, order: Order, reason: str) -> None:
    """A rollout that is no trace draws no ids: nothing that replayed them is kept."""
    for task in order.tasks:
        drew = task.capture.path == "rollout"
        refused = launch.Failure("seal", "SealRefused", reason)
        blocked = launch.Failure("sample", "NoCorpus", NO_IDS)
        _store_failure(root, staging, task, refused if drew else blocked)
    shutil.rmtree(staging)
    staging.mkdir()


def _stage(staging: Path, order: Order, todo: list[Task]) -> None:
    """Write the job and its inputs. Parts of an earlier, broken try stay: that is the resume."""
    with_prompts = order.corpus is None
    sampling = None
    if with_prompts:
        assert order.sampling is not None
        sampling = asdict(order.sampling)
        lines = [json.dumps(p) for p in order.prompts]
        (staging / "prompts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        assert order.corpus is not None
        corpus = order.corpus
        wire.save_sequences(
            staging / "corpus.npz", corpus.token_ids, corpus.scored, corpus.top_ids, corpus.routes
        )
    loads = order.load.options
    job = wire.Job(
        engine=order.engine.name,
        model=str(order.checkpoint.path),
        options={
            k: str(v) if isinstance(v, Path) else v
            for k, v in loads.items()
            if not k.startswith("arg.") and k not in SHARED
        },
        captures=[order.call_plan(task) for task in todo],
        trust_remote_code=order.trust_remote_code,
        sampling=sampling,
        extra={k[4:]: v for k, v in loads.items() if k.startswith("arg.")},
    )
    wire.write_job(staging, job)


def _with_drawn_corpus(root: Path, staging: Path, order: Order) -> Order:
    """Once the rollout is whole, its ids become the corpus of everything that follows."""
    if order.corpus is not None:
        return order
    rollout = _rollout(order)
    assert rollout is not None and order.sampling is not None
    plan = order.call_plan(rollout)
    if not wire.is_complete(staging, plan):
        return order
    prompts = wire.load_sequences(staging / "encoded.npz").ids
    rows = wire.load_capture(staging, plan)
    ids, scored = join(prompts, order.sampling.samples, rows)
    corpus = Corpus(tuple(ids), tuple(scored))
    facts = wire.read_json(wire.facts_path(staging, rollout.trace))
    seal.check(order.engine, rollout, facts)  # before anything believes its ids
    values = seal.aligned(corpus, rows)
    if values[0].top_ids is not None:
        corpus = replace(corpus, top_ids=tuple(v.top_ids for v in values))  # type: ignore[misc]
    if values[0].routes is not None:
        corpus = replace(corpus, routes=tuple(v.routes for v in values))  # type: ignore[misc]
    recorded = [v.logprobs for v in values]
    about = {
        "schema": store.SCHEMA,
        "source": "rollout",
        "sampled_by": {
            "condition": rollout.condition.spec,
            "model": order.checkpoint.digest,
            **_drawn_how(rollout.condition, facts),
        },
        "sequences": len(corpus),
        "scored_tokens": corpus.scored_tokens,
    }
    store.save_corpus(root, corpus, about, {"infer": recorded})
    return replace(order, corpus=corpus)


def _drawn_how(condition: Condition, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Temperature and support of a rollout, as the engine resolved them where it shows them (a
    checkpoint's own defaults may have leaked in). greedy: the model's likeliest token each time.
    """
    seen = {**condition.options, **(facts.get("sampling") or {})}
    cut = any(seen.get(name, neutral) not in (neutral, -1) for name, neutral in RESHAPING.items())
    penalties = (n for n in wire.NEUTRAL if n.endswith("_penalty"))
    moved = any(seen.get(name, wire.NEUTRAL[name]) != wire.NEUTRAL[name] for name in penalties)
    return {
        "temperature": seen.get("temperature", 1.0),
        "support": "cut" if cut else "whole",
        "greedy": seen.get("top_k") == 1 and not moved,
    }


def _origin(staging: Path, order: Order, python: Path, started: datetime) -> seal.Origin:
    tokenizer = staging / "tokenizer.json"
    return seal.Origin(
        checkpoint={
            "name": order.checkpoint.name,
            "digest": order.checkpoint.digest,
            "path": str(order.checkpoint.path),
        },
        corpus_source=order.corpus_source,
        sampling=order.sampling,
        tokenizer=wire.read_json(tokenizer) if tokenizer.is_file() else None,
        interpreter=str(python),
        started=started.isoformat(timespec="seconds"),
        seconds=(datetime.now(UTC) - started).total_seconds(),
    )


def _seal_finished(
    root: Path, staging: Path, order: Order, todo: list[Task], origin: seal.Origin
) -> set[str]:
    """Seal what is whole; a capture that cannot be sealed is a failure, and done with."""
    done = set()
    for task in todo:
        plan = order.call_plan(task)
        if order.corpus is None or not wire.is_complete(staging, plan):
            continue
        done.add(task.trace)
        try:
            _check_one_source(root, order, plan, staging)
            seal.seal_trace(root, staging, order.engine, task, plan, order.corpus, origin)
        except seal.SealRefused as reason:
            _store_failure(root, staging, task, launch.Failure("seal", "SealRefused", str(reason)))
            # What was refused must be taken again, not resumed.
            shutil.rmtree(staging / "parts" / task.trace)
    _save_texts(root, staging, order.corpus)
    return done


#: What may change behind a condition, in words, and the fact that tells one from the next.
SOURCES = (("another server", "server", "fingerprints"), ("other code", "code", "digest"))


def _check_one_source(root: Path, order: Order, plan: wire.CallPlan, staging: Path) -> None:
    """The captures of a load are each other's floors: they must come from one server, or from one
    state of the user's own code.
    """
    now = wire.read_json(wire.facts_path(staging, plan.name))
    for task in (t for t in order.tasks if _sealed(root, t)):
        then = store.read_provenance(store.trace_folder(root, task.trace))["facts"]
        for other, fact, mark in SOURCES:
            one, two = ((facts.get(fact) or {}).get(mark) for facts in (then, now))
            if one and two and one != two:
                raise seal.SealRefused(
                    f"{task.trace} came from {other} ({one}, now {two}): run again in a new folder"
                )


def _save_texts(root: Path, staging: Path, corpus: Corpus | None) -> None:
    """Token texts for the viewer, beside the corpus; the first engine that has a tokenizer."""
    if corpus is None or not (staging / "texts.json").is_file():
        return
    target = store.inside(root, "corpus", corpus.sha, store.TEXTS)
    if not target.is_file():
        store.write_text(target, store.dump_json(wire.read_json(staging / "texts.json")))


def _after_failure(
    root: Path,
    staging: Path,
    order: Order,
    rest: list[Task],
    failure: launch.Failure | None,
) -> list[Task]:
    """Store what broke; return what deserves another start (captures the guest never began)."""
    if not rest:
        return []
    if failure is None:
        failure = launch.Failure("launch", "Unfinished", "the guest ended with work left")
    broken = [t for t in rest if t.trace == failure.capture]
    if failure.capture is None or (broken and broken[0].capture.path == "rollout"):
        broken = rest  # it never loaded, or there are no ids to replay
    elif not broken:
        broken = rest[:1]  # it died between two captures: the next one is to blame, if any
    for task in broken:
        _store_failure(root, staging, task, failure)
    return [t for t in rest if t not in broken]


def _store_failure(root: Path, staging: Path, task: Task, failure: launch.Failure) -> None:
    error = {
        "schema": store.SCHEMA,
        "condition": task.condition.spec,
        "capture": task.capture.name,
        "boundary": failure.boundary,
        "type": failure.type,
        "message": failure.message,
    }
    tail = launch.log_tail(staging, 60)

    def fill(aside: Path) -> None:
        (aside / "error.json").write_text(store.dump_json(error), encoding="utf-8")
        (aside / "worker.log").write_text(tail + "\n", encoding="utf-8")

    store.seal(store.failed_folder(root, task.trace), fill, {"kind": "failure"}, replace=True)


def store_blocked(root: Path, order: Order) -> None:
    """Captures that could not start because there were no ids to replay."""
    failure = launch.Failure("sample", "NoCorpus", NO_IDS)
    for task in (t for t in order.tasks if not _sealed(root, t)):
        _store_failure(root, _staging(root, order), task, failure)


def store_refused(root: Path, tasks: Sequence[Task], reason: str) -> None:
    """A cell that this machine cannot run stays in the report, with the reason."""
    failure = launch.Failure(UNSUPPORTED, "Refused", reason)
    for task in (t for t in tasks if not _sealed(root, t)):  # another machine may have taken it
        _store_failure(root, root, task, failure)


# ---------------------------------------------------------------- recorded values


def with_corpus(order: Order, corpus: Corpus) -> Order:
    """The order, with the ids to replay."""
    return replace(order, corpus=corpus)


def seal_recorded(
    root: Path,
    order: Order,
    recorded: Mapping[str, Sequence[np.ndarray]],
    drawn: Mapping[str, Any] | None,
) -> Order:
    """Path rollout of a given corpus is what was recorded with it; the engine does the rest.

    drawn: the condition that sampled the corpus, None where nobody knows.
    """
    assert order.corpus is not None
    rollouts = [t for t in order.tasks if t.capture.path == "rollout"]
    for rollout in (t for t in rollouts if not _sealed(root, t)):
        seal_recorded_trace(
            root, rollout.trace, order.corpus, recorded["infer"], "corpus", {},
            condition=drawn["condition"] if drawn else "recorded",
            model=drawn["model"] if drawn else None,
        )  # fmt: skip
    return replace(order, tasks=tuple(t for t in order.tasks if t not in rollouts))


def seal_recorded_trace(
    root: Path,
    trace: str,
    corpus: Corpus,
    values: Sequence[np.ndarray],
    source: str,
    about: Mapping[str, Any],
    condition: str = "recorded",
    model: str | None = None,
) -> None:
    """A trace from values that somebody else recorded: no engine, and no facts but where from."""
    folder = store.trace_folder(root, trace)
    if store.is_sealed(folder):
        return
    capture = trace.split("/")[1]
    provenance = {
        "schema": store.SCHEMA,
        "trace": trace,
        "condition": condition,
        "engine": "recorded",
        "path": capture.rpartition("-")[0],
        "capture": capture,
        "corpus": corpus.sha,
        "corpus_source": source,
        "model": {"name": None, "digest": model, "path": None},
        "facts": {"observed": {}, "recorded": dict(about)},
        "mismatch": mismatch.__version__,
    }

    def fill(aside: Path) -> None:
        (aside / "provenance.json").write_text(store.dump_json(provenance), encoding="utf-8")
        store.write_trace_tokens(aside / "tokens.parquet", corpus, list(values))
        if corpus.routes is not None:  # the rollout's own, recorded with its values
            store.write_routes(aside / store.ROUTES, corpus, corpus.routes)

    store.seal(folder, fill, {"kind": "trace", "corpus": corpus.sha})
