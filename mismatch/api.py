"""The verbs, for notebooks and trainers; the command line is a thin layer over this file.

from mismatch import api
summary = api.run(model="ckpt", train="hf:dtype=bf16", infer="vllm:dtype=bf16",
                  prompts="prompts.jsonl", out="out")
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mismatch
from mismatch import gate as gates
from mismatch import report as reports
from mismatch import store
from mismatch.capture import checkpoint as checkpoints
from mismatch.capture import environment, plan
from mismatch.capture import run as captures
from mismatch.capture.claim import claimed
from mismatch.compare import compare as comparing
from mismatch.compare.metrics import METRICS
from mismatch.corpus.jsonl import read_corpus
from mismatch.corpus.prompts import read_prompts
from mismatch.corpus.recorded import READERS
from mismatch.corpus.recorder import record
from mismatch.engines import ENGINES, find, parse_condition
from mismatch.engines.base import Engine
from mismatch.errors import MismatchError, suggest
from mismatch.model import (
    INFER_PATHS,
    TRAIN_PATH,
    Condition,
    Corpus,
    Floor,
    PairSpec,
    Sampling,
    side_of,
)

__all__ = [
    "build_engine", "compare", "compare_traces", "demo", "engines", "gate", "import_dumps",
    "record", "report", "run",
]  # fmt: skip

Notify = Callable[[dict[str, Any]], None]


def _quiet(event: dict[str, Any]) -> None: ...


# ---------------------------------------------------------------- run


@dataclass(frozen=True, slots=True)
class _Ids:
    """Where the ids come from: given, or prompts to roll out."""

    corpus: Corpus | None
    about: Mapping[str, Any]
    recorded: Mapping[str, list[np.ndarray]]
    prompts: Sequence[Mapping[str, Any]]
    source: str  # file name, for errors and provenance

    @property
    def sequences(self) -> int:
        return len(self.prompts) if self.corpus is None else len(self.corpus)


def run(
    *,
    model: str | Path,
    train: str,
    infer: str,
    out: str | Path,
    prompts: str | Path | None = None,
    corpus: str | Path | None = None,
    paths: Sequence[str] | None = None,
    repeats: int = 1,
    floor: Floor = "batch",
    samples: int = 1,
    max_tokens: int = 256,
    seed: int = 0,
    limit: int | None = None,
    timeout_s: float = 1800.0,
    trust_remote_code: bool = False,
    notify: Notify = _quiet,
) -> dict[str, Any]:
    """Replay one corpus through both engines, compare, report. Returns the summary.

    Captures that fail are kept under failed/ and stay in the summary as pairs without evidence;
    `failures(out)` lists them. Running the same call again resumes.
    """
    wanted = _paths(paths, corpus is not None)
    conditions = {TRAIN_PATH: parse_condition(train), "infer": parse_condition(infer)}
    left, right = conditions[TRAIN_PATH], conditions["infer"]
    _check_sides(left, right, wanted)
    ids = _read_ids(prompts, corpus, limit)
    sampling = Sampling(samples, max_tokens, seed) if ids.corpus is None else None
    checkpoint = checkpoints.inspect(Path(model))
    _check_recorded(ids, wanted, right, checkpoint)
    _check_limits(checkpoint, ids, sampling, left, right, wanted)
    for condition in (left, right):
        environment.interpreter(find(condition.engine), condition)
    request = {
        "verb": "run",
        "model": checkpoint.digest,
        "train": left.spec,
        "infer": right.spec,
        "paths": list(wanted),
        "repeats": repeats,
        "floor": floor,
        "ids": ids.corpus.sha if ids.corpus else _digest_prompts(ids.prompts),
        "sampling": None if sampling is None else _sampling_json(sampling),
        "trust_remote_code": trust_remote_code,
    }
    specs = plan.pairs(left, right, wanted, repeats, floor)
    with claimed(Path(out), request, specs) as root:
        orders = _orders(
            ids, sampling, checkpoint, left, right, wanted, repeats, floor,
            trust_remote_code, timeout_s,
        )  # fmt: skip
        _take(root, ids, orders, notify)
        return _conclude(root)


def _paths(paths: Sequence[str] | None, with_corpus: bool) -> tuple[str, ...]:
    if paths is None:
        return INFER_PATHS[1:] if with_corpus else INFER_PATHS
    for path in paths:
        if path not in INFER_PATHS:
            hint = suggest(path, INFER_PATHS)
            raise MismatchError("unknown-path", path=path, hint_extra=hint)
    if not paths:
        raise MismatchError("usage", what="--paths names no path.", todo="Give one or more.")
    return tuple(dict.fromkeys(paths))


def _check_sides(train: Condition, infer: Condition, paths: Sequence[str]) -> None:
    for side, condition, needed in (("train", train, [TRAIN_PATH]), ("infer", infer, paths)):
        engine = find(condition.engine)
        for path in needed:
            if path not in engine.paths:
                raise MismatchError(
                    "wrong-side",
                    engine=engine.name,
                    side=side,
                    path=path,
                    known=", ".join(n for n, e in ENGINES.items() if path in e.paths),
                )
        reason = engine.refuse(condition, environment.machine())
        if reason:
            raise MismatchError("condition-refused", condition=condition.spec, reason=reason)


def _read_ids(prompts: str | Path | None, corpus: str | Path | None, limit: int | None) -> _Ids:
    if (prompts is None) == (corpus is None):
        raise MismatchError(
            "usage",
            what="Give either --prompts or --corpus.",
            todo="--prompts rolls them out; --corpus replays ids that are there already.",
        )
    if prompts is not None:
        return _Ids(None, {}, {}, read_prompts(Path(prompts), limit), Path(prompts).name)
    assert corpus is not None
    path = Path(corpus)
    about: Mapping[str, Any] = {"schema": store.SCHEMA, "source": "ids", "sampled_by": None}
    recorded: Mapping[str, list[np.ndarray]] = {}
    if path.is_dir():
        ids, about, recorded = store.load_corpus(path)
    else:
        ids = read_corpus(path)
    if limit is not None and limit < len(ids):
        ids = Corpus(ids.token_ids[:limit], ids.scored[:limit])
        recorded = {side: values[:limit] for side, values in recorded.items()}
    return _Ids(ids, about, recorded, (), path.name)


def _check_recorded(
    ids: _Ids, paths: Sequence[str], infer: Condition, checkpoint: checkpoints.Checkpoint
) -> None:
    """A recorded rollout belongs to the condition that drew it, and to no other."""
    if ids.corpus is None or "rollout" not in paths:
        return
    drawn = ids.about.get("sampled_by")
    if "infer" not in ids.recorded:
        reason = f"{ids.source} has none"
    elif drawn and (drawn["condition"], drawn["model"]) != (infer.spec, checkpoint.digest):
        reason = f"those of {ids.source} were drawn by {drawn['condition']} of {drawn['model']}"
    else:
        return
    raise MismatchError(
        "usage",
        what=f"Path rollout needs log-probabilities recorded by {infer.spec}, and {reason}.",
        todo="Use --paths decode,prefill, or --prompts to roll out.",
    )


def _check_limits(
    checkpoint: checkpoints.Checkpoint,
    ids: _Ids,
    sampling: Sampling | None,
    train: Condition,
    infer: Condition,
    paths: Sequence[str],
) -> None:
    """Ids outside the vocabulary, or too long, are refused before any engine starts."""
    extra = max((find(infer.engine).extra_positions.get(p, 0) for p in paths), default=0)
    if ids.corpus is not None:
        limits = [(train, 0), (infer, extra)]
        checkpoints.check_fits(checkpoint, ids.corpus, ids.source, limits)
        return
    assert sampling is not None
    rows = [np.asarray(p.get("token_ids", [0]), np.int64) for p in ids.prompts]
    room = sampling.max_tokens
    limits = [(train, room), (infer, room + extra)]
    whole = Corpus(tuple(rows), tuple(np.zeros(len(r), bool) for r in rows))
    checkpoints.check_fits(checkpoint, whole, ids.source, limits)


def _digest_prompts(prompts: Sequence[Mapping[str, Any]]) -> str:
    return store.text_digest(store.dump_json(list(prompts)))


def _sampling_json(sampling: Sampling) -> dict[str, Any]:
    return {
        "samples": sampling.samples,
        "max_tokens": sampling.max_tokens,
        "seed": sampling.seed,
        "temperature": sampling.temperature,
    }


def _orders(
    ids: _Ids,
    sampling: Sampling | None,
    checkpoint: checkpoints.Checkpoint,
    train: Condition,
    infer: Condition,
    paths: Sequence[str],
    repeats: int,
    floor: Floor,
    trust_remote_code: bool,
    timeout_s: float,
) -> list[captures.Order]:
    """The infer side first: it draws the ids that the train side scores."""
    sequences = ids.sequences * (sampling.samples if sampling else 1)
    orders = []
    for condition, own in ((infer, paths), (train, (TRAIN_PATH,))):
        engine = find(condition.engine)
        orders.append(
            captures.Order(
                side=side_of(own[0]),
                engine=engine,
                condition=condition,
                captures=tuple(plan.captures(engine, condition, own, repeats, floor, sequences)),
                checkpoint=checkpoint,
                corpus=ids.corpus,
                corpus_source=ids.source,
                prompts=ids.prompts,
                sampling=sampling,
                trust_remote_code=trust_remote_code,
                timeout_s=timeout_s,
            )
        )
    return orders


def _take(root: Path, ids: _Ids, orders: list[captures.Order], notify: Notify) -> None:
    infer, train = orders
    if ids.corpus is not None:
        store.save_corpus(root, ids.corpus, ids.about, ids.recorded)
        infer = captures.seal_recorded(root, infer, ids.recorded, ids.about.get("sampled_by"))
    corpus = captures.take(root, infer, notify)
    if corpus is None:
        captures.store_blocked(root, train, "there are no ids to score: the rollout failed")
        return
    captures.take(root, captures.with_corpus(train, corpus), notify)


def _conclude(root: Path) -> dict[str, Any]:
    summary = comparing.compare(root)
    reports.build(root)
    return summary


def failures(out: str | Path) -> list[dict[str, Any]]:
    """error.json of every capture that failed, sorted by place."""
    found = sorted((Path(out) / "failed").glob("*/*/error.json"))
    return [store.read_json(path) for path in found]


def captures_asked(out: str | Path) -> int:
    """How many captures a run folder holds or lacks: sealed and failed."""
    root = Path(out)
    return sum(len(list(root.glob(f"{kind}/*/*/MANIFEST.json"))) for kind in ("traces", "failed"))


# ---------------------------------------------------------------- after the traces


def compare(folder: str | Path) -> dict[str, Any]:
    """Measure a run folder's traces again; rewrites comparisons/, summary.json and the report."""
    return _conclude(Path(folder))


def report(folder: str | Path) -> tuple[Path, Path]:
    """Write report.md and report.html of a run folder whose artifacts are all intact."""
    comparing.check(Path(folder))
    return reports.build(Path(folder))


def gate(
    folder: str | Path,
    *,
    maximum: Sequence[str] = (),
    minimum: Sequence[str] = (),
    pair: str | None = None,
) -> dict[str, Any]:
    """Rules like `k3=1e-3` or `excess.k3=5e-4` against every train-infer pair, or the named one."""
    rules = [gates.parse_rule(text, "max", METRICS) for text in maximum]
    rules += [gates.parse_rule(text, "min", METRICS) for text in minimum]
    return gates.judge(comparing.check(Path(folder)), rules, pair)


def compare_traces(left: str | Path, right: str | Path, out: str | Path) -> dict[str, Any]:
    """Compare two sealed traces, from wherever they were taken; they are copied into `out`."""
    ends = [_foreign(Path(left)), _foreign(Path(right))]
    if side_of(ends[0].path) == "infer" and side_of(ends[1].path) == "train":
        ends.reverse()  # d is train minus infer, whichever was named first
    names = [f"{e.condition}/{e.capture}" for e in ends]
    places = [e.condition for e in ends]
    if places[0] == places[1]:
        places = [f"{places[0]}@a", f"{places[1]}@b"]
    spec = _pair_of(ends, places)
    request = {
        "verb": "compare",
        "left": {"trace": names[0], "manifest": ends[0].digest},
        "right": {"trace": names[1], "manifest": ends[1].digest},
    }
    with claimed(Path(out), request, [spec]) as root:
        for end, place in zip(ends, places, strict=True):
            _bring(root, end, place)
        return _conclude(root)


@dataclass(frozen=True, slots=True)
class _Foreign:
    """A sealed trace somewhere, with the captures beside it that can serve as its floors."""

    folder: Path
    path: str
    digest: str

    @property
    def condition(self) -> str:
        return self.folder.parent.name

    @property
    def capture(self) -> str:
        return self.folder.name

    def sealed(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(n for n in names if store.is_sealed(self.folder.parent / n))


def _foreign(folder: Path) -> _Foreign:
    store.verified(folder, "trace")
    provenance = store.read_json(folder / "provenance.json")
    digest = store.sha256(folder / store.MANIFEST)
    return _Foreign(folder.absolute(), str(provenance["path"]), digest)


def _pair_of(ends: Sequence[_Foreign], places: Sequence[str]) -> PairSpec:
    sides = [side_of(e.path) for e in ends]
    kind = "train-infer" if sides[0] != sides[1] else f"{sides[0]}-{sides[1]}"
    path = ends[1].path if kind == "train-infer" else f"{ends[0].path}..{ends[1].path}"
    floors: dict[str, dict[str, tuple[str, ...]]] = {}
    for slot, end, place in zip(("train", "infer"), ends, places, strict=True):
        for name, others in _siblings(end).items():
            floors.setdefault(name, {})[slot] = tuple(f"{place}/{n}" for n in others)
    left, right = (f"{p}/{e.capture}" for p, e in zip(places, ends, strict=True))
    return PairSpec(f"{places[0]}~{places[1]}.{path}", kind, path, left, right, floors)  # type: ignore[arg-type]


def _siblings(end: _Foreign) -> dict[str, tuple[str, ...]]:
    """Floor captures beside a capture 1; another capture has none."""
    if not end.capture.endswith("-1"):
        return {}
    found = {
        "repeat": end.sealed(plan.repeat_names(end.path, 9)),
        "batch": end.sealed([plan.batch_name(end.path)]),
    }
    return {name: others for name, others in found.items() if others}


def _bring(root: Path, end: _Foreign, place: str) -> None:
    names = [end.capture, *(n for others in _siblings(end).values() for n in others)]
    for name in dict.fromkeys(names):
        target = store.inside(root, "traces", place, name)
        if not store.is_sealed(target):
            store.verified(end.folder.parent / name, "trace")
            store.copy_artifact(end.folder.parent / name, target)
    sha = store.read_json(end.folder / "provenance.json")["corpus"]
    source = end.folder.parents[2] / "corpus" / str(sha)
    target = store.inside(root, "corpus", str(sha))
    if store.is_sealed(source) and not store.is_sealed(target):
        store.copy_artifact(source, target)


# ---------------------------------------------------------------- recorded dumps


def import_dumps(format: str, files: Sequence[str | Path], out: str | Path) -> dict[str, Any]:
    """Recorded log-probabilities of both sides -> traces, comparison, report. Needs no engine."""
    if format not in READERS:
        raise MismatchError(
            "usage",
            what=f"There is no dump format '{format}'.",
            todo=f"Formats: {', '.join(READERS)}.{suggest(format, READERS)}",
        )
    dump = READERS[format]([Path(f) for f in files])
    train, infer = "recorded-train/score-1", "recorded-infer/rollout-1"
    spec = PairSpec("recorded-train~recorded-infer.rollout", "train-infer", "rollout",
                    train, infer, {})  # fmt: skip
    values = {"train": dump.train, "infer": dump.infer}
    digest = store.values_digest([*dump.train, *dump.infer])
    request = {"verb": "import", "format": format, "ids": dump.corpus.sha, "values": digest}
    with claimed(Path(out), request, [spec]) as root:
        about = {"schema": store.SCHEMA, "source": format, "sampled_by": None, **dump.about}
        store.save_corpus(root, dump.corpus, about, values)
        for side, trace in (("train", train), ("infer", infer)):
            captures.seal_recorded_trace(root, trace, dump.corpus, values[side], format, dump.about)
        return _conclude(root)


# ---------------------------------------------------------------- engines and the demo


def engines() -> list[environment.Status]:
    """Each engine: its interpreter and versions, or why it cannot run and what to do."""
    return [environment.status(engine) for engine in ENGINES.values()]


def build_engine(name: str, say: Callable[[str], None] = lambda text: None) -> Path:
    """Build (once) and cache the environment of an engine; returns its interpreter."""
    engine: Engine = find(name)
    return environment.build(engine, say)


def demo(out: str | Path, notify: Notify = _quiet) -> dict[str, Any]:
    """hf against vllm in bf16 on the shipped checkpoint: three paths, both floors, a report."""
    shipped = Path(mismatch.__file__).parent / "shipped"
    return run(
        model=shipped / "llama-gsm-0.8m",
        train="hf:dtype=bf16,attention=sdpa",
        infer="vllm:dtype=bf16,eager=true",
        prompts=shipped / "demo-prompts.jsonl",
        out=out,
        repeats=2,
        floor="batch",
        max_tokens=160,
        notify=notify,
    )
