"""A request: what was asked, read and checked before any engine starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import store
from mismatch.capture import environment, plan
from mismatch.capture.checkpoint import Checkpoint, check_fits, inspect
from mismatch.corpus.jsonl import read_corpus
from mismatch.corpus.prompts import read_prompts
from mismatch.engines import ENGINES, find
from mismatch.engines.base import this_machine
from mismatch.errors import MismatchError, suggest
from mismatch.model import (
    INFER_PATHS,
    TRAIN_PATH,
    AttributionSpec,
    Condition,
    Corpus,
    Floor,
    PairSpec,
    Sampling,
    Side,
    Task,
    given_path,
)
from mismatch.study import default_pairs


@dataclass(frozen=True, slots=True)
class Ids:
    """Where the ids come from: given (a corpus), or prompts to roll out (corpus is None).

    about: what corpus.json says. recorded: log-probabilities that came along, by side. source: the
    file's name, for errors and provenance.
    """

    corpus: Corpus | None
    about: Mapping[str, Any]
    recorded: Mapping[str, list[np.ndarray]]
    prompts: Sequence[Mapping[str, Any]]
    source: str

    @property
    def digest(self) -> str:
        if self.corpus is not None:
            values = [v for side in sorted(self.recorded) for v in self.recorded[side]]
            return self.corpus.sha + (f"+{store.values_digest(values)}" if values else "")
        return store.text_digest(store.dump_json(list(self.prompts)))


@dataclass(frozen=True, slots=True)
class Cell:
    """One condition of a request: the paths it is taken on, and how often.

    draws: it samples the ids that all others replay. refused: why this machine cannot run it.
    """

    condition: Condition
    side: Side
    paths: tuple[str, ...]
    repeats: int
    floor: Floor
    refused: str | None = None
    draws: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Everything that decides a run's numbers, and two things that do not (timeout, trust).

    checkpoints: name -> checkpoint, "" is the one of conditions that name none. cells: the infer
    condition that draws the ids comes first. asked: what summary.json says was asked.
    """

    asked: Mapping[str, Any]
    checkpoints: Mapping[str, Checkpoint]
    cells: tuple[Cell, ...]
    pairs: tuple[PairSpec, ...]
    attributions: tuple[AttributionSpec, ...] = ()
    ids: Ids
    sampling: Sampling | None  # None: the ids are given
    trust_remote_code: bool
    timeout_s: float

    @property
    def sequences(self) -> int:
        """How many sequences will be replayed."""
        if self.ids.corpus is not None:
            return len(self.ids.corpus)
        assert self.sampling is not None
        return len(self.ids.prompts) * self.sampling.samples

    def checkpoint(self, condition: Condition) -> Checkpoint:
        return self.checkpoints[str(condition.options.get("model", ""))]

    def tasks(self, cell: Cell) -> list[Task]:
        """The captures of a cell; who draws the ids rolls out, whether or not it is compared."""
        condition, engine = cell.condition, find(cell.condition.engine)
        known = (engine, condition, cell.paths, cell.repeats, cell.floor, self.sequences)
        found = plan.tasks(*known)
        if cell.draws and "rollout" not in cell.paths:
            found = [*plan.tasks(engine, condition, ["rollout"], 1, "none", self.sequences), *found]
        return found

    def check(self) -> None:
        """Refuse what cannot work, in the order a user would want to hear it."""
        for cell in self.cells:
            _check_side(cell)
            _check_recorded(self, cell)
            _check_routes(self, cell)
        _check_size(self)
        _check_limits(self)

    def check_engines(self, cells: Sequence[Cell], out: Path) -> None:
        """Refuse what has no interpreter here, where something of it is still to be captured."""
        for cell in (c for c in cells if not c.refused):
            if not all(store.is_sealed(store.trace_folder(out, t.trace)) for t in self.tasks(cell)):
                environment.interpreter(find(cell.condition.engine), cell.condition)

    def check_code(self, out: Path) -> None:
        """Refuse a folder that holds captures of other code of the user's than lies there now."""
        for cell in (c for c in self.cells if not c.refused):
            changed = find(cell.condition.engine).changed
            for task in self.tasks(cell):
                folder = store.trace_folder(out, task.trace)
                if not store.is_sealed(folder):
                    continue
                code = store.read_provenance(folder)["facts"].get("code") or {}
                if reason := changed(cell.condition, code):
                    said = f"{task.trace} was taken with other code: {reason}"
                    raise MismatchError("out-not-ours", folder=out, reason=said)


def refusal(condition: Condition) -> str | None:
    """Why this machine cannot run a condition; None where it can."""
    engine, machine = find(condition.engine), this_machine()
    ranks = engine.ranks(condition)
    if ranks > machine.ranks:
        have = f"{machine.gpus} GPUs" if machine.gpus else f"{machine.cpus} cores"
        return f"it needs {ranks} ranks and this machine has {have}"
    return engine.refuse(condition, machine)


def single(
    *,
    model: Path,
    train: Condition,
    infer: Condition,
    ids: Ids,
    paths: tuple[str, ...],
    repeats: int,
    floor: Floor,
    sampling: Sampling | None,
    trust_remote_code: bool,
    timeout_s: float,
) -> Request:
    """`run --train --infer`: one condition on each side. A refused one is an error."""
    for condition in (infer, train):
        if "model" in condition.options:
            raise MismatchError(
                "usage",
                what=f"{condition.spec} names a model of a study, and this is not a study.",
                todo="Give the checkpoint with --model.",
            )
        reason = refusal(condition)
        if reason:
            raise MismatchError("condition-refused", condition=condition.spec, reason=reason)
    checkpoint = inspect(model)
    cells = (
        Cell(infer, "infer", paths, repeats, floor, draws=sampling is not None),
        Cell(train, "train", (TRAIN_PATH,), repeats, floor),
    )
    ends = default_pairs([train], [infer], {infer.id: paths})
    asked = {
        "verb": "run",
        "model": checkpoint.digest,
        "train": train.spec,
        "infer": infer.spec,
        "paths": list(paths),
        "repeats": repeats,
        "floor": floor,
        "ids": ids.digest,
        "sampling": None if sampling is None else asdict(sampling),
        "trust_remote_code": trust_remote_code,
    }
    return Request(
        asked=asked,
        checkpoints={"": checkpoint},
        cells=cells,
        pairs=tuple(plan.pair(e, repeats, floor) for e in ends),
        ids=ids,
        sampling=sampling,
        trust_remote_code=trust_remote_code,
        timeout_s=timeout_s,
    )


def choose_paths(
    paths: Sequence[str] | None, with_corpus: bool, infer: Condition
) -> tuple[str, ...]:
    """The asked paths, each known and once; by default all that the ids and the engine allow."""
    if paths is None:
        known = INFER_PATHS[1:] if with_corpus else INFER_PATHS
        offered = find(infer.engine).default_paths
        # An engine with none of them stands on the wrong side, which is said later.
        return tuple(p for p in known if p in offered) or known
    for path in paths:
        if path not in INFER_PATHS:
            hint = suggest(path, INFER_PATHS)
            if path == TRAIN_PATH:
                hint = " The train side is always scored."
            raise MismatchError("unknown-path", path=path, hint_extra=hint)
    if not paths:
        raise MismatchError("usage", what="--paths names no path.", todo="Give one or more.")
    return tuple(dict.fromkeys(paths))


def read_ids(prompts: str | Path | None, corpus: str | Path | None, limit: int | None) -> Ids:
    """Prompts, a JSONL file of ids, or a corpus folder of an earlier run."""
    if (prompts is None) == (corpus is None):
        raise MismatchError(
            "usage",
            what="Give either --prompts or --corpus.",
            todo="--prompts rolls them out; --corpus replays ids that are there already.",
        )
    if prompts is not None:
        return Ids(None, {}, {}, read_prompts(given_path(prompts), limit), Path(prompts).name)
    assert corpus is not None
    return _read_corpus(given_path(corpus), limit)


def _read_corpus(path: Path, limit: int | None) -> Ids:
    about: Mapping[str, Any] = {"schema": store.SCHEMA, "source": "ids", "sampled_by": None}
    recorded: Mapping[str, list[np.ndarray]] = {}
    if path.is_dir():
        corpus, about, recorded = store.load_corpus(path)
    else:
        corpus = read_corpus(path)
    if limit is not None and limit < len(corpus):
        corpus = corpus.first(limit)
        recorded = {side: values[:limit] for side, values in recorded.items()}
        about = {**about, "sequences": limit, "scored_tokens": corpus.scored_tokens}
    if not corpus.scored_tokens:
        raise MismatchError("nothing-scored", file=path.name)
    return Ids(corpus, about, recorded, (), path.name)


def _check_side(cell: Cell) -> None:
    engine = find(cell.condition.engine)
    own = [p for p in INFER_PATHS if p in engine.paths and cell.side == "infer"]
    for path in cell.paths:
        if path not in engine.paths:
            raise MismatchError(
                "path-not-taken" if own else "wrong-side",
                engine=engine.name,
                side=cell.side,
                path=path,
                own=" and ".join(own),
                known=", ".join(n for n, e in ENGINES.items() if path in e.paths),
            )


def _check_recorded(request: Request, cell: Cell) -> None:
    """A recorded rollout belongs to the condition that drew it, and to no other."""
    ids, condition = request.ids, cell.condition
    if ids.corpus is None or "rollout" not in cell.paths:
        return
    drawn = ids.about.get("sampled_by")
    own = (condition.spec, request.checkpoint(condition).digest)
    if "infer" not in ids.recorded:
        reason = f"{ids.source} has none"
    elif drawn and (drawn["condition"], drawn["model"]) != own:
        reason = f"those of {ids.source} were drawn by {drawn['condition']} of {drawn['model']}"
    else:
        return
    raise MismatchError(
        "usage",
        what=f"Path rollout needs log-probabilities recorded by {condition.spec}, and {reason}.",
        todo="Use --paths decode,prefill, or --prompts to roll out.",
    )


def _check_routes(request: Request, cell: Cell) -> None:
    """Routes are of a model with experts, and a replay needs those of the rollout."""
    options = cell.condition.options
    asked = [name for name in ("routes", "replay_routes") if options.get(name) is True]
    if not asked:
        return
    reason = None
    if not request.checkpoint(cell.condition).experts:
        reason = f"{asked[0]}=true: the model has no experts"
    elif "replay_routes" in asked and not _has_routes(request):
        reason = (
            "replay_routes=true: the rollout captured no routes; give routes=true to the condition "
            "that draws the ids, or the corpus folder of such a run"
        )
    if reason:
        raise MismatchError("condition-refused", condition=cell.condition.spec, reason=reason)


def _has_routes(request: Request) -> bool:
    """Whether the ids come, or will come, with the experts of their rollout."""
    if request.ids.corpus is not None:
        return request.ids.corpus.routes is not None
    return any(c.draws and c.condition.options.get("routes") is True for c in request.cells)


#: Sequences that a run may draw: every capture holds the list of them.
MOST_SEQUENCES = 1_000_000


def _check_size(request: Request) -> None:
    if request.sampling is not None and request.sequences > MOST_SEQUENCES:
        prompts, samples = len(request.ids.prompts), request.sampling.samples
        raise MismatchError(
            "usage",
            what=f"{prompts:,} prompts with {samples:,} samples each are more than "
            f"{MOST_SEQUENCES:,} sequences.",
            todo="Lower samples, or limit the prompts.",
        )


def _check_limits(request: Request) -> None:
    """Ids outside the vocabulary, or too long, are refused before any engine starts."""
    corpus, room = request.ids.corpus, 0
    if corpus is None:
        # Prompts given as text have no length yet: the guest checks them once they are encoded.
        assert request.sampling is not None
        room = request.sampling.max_tokens
        rows = [np.asarray(p.get("token_ids", [0]), np.int64) for p in request.ids.prompts]
        corpus = Corpus(tuple(rows), tuple(np.zeros(len(r), bool) for r in rows))
    for checkpoint in set(request.checkpoints.values()):
        limits = []
        for cell in (c for c in request.cells if request.checkpoint(c.condition) == checkpoint):
            extra = find(cell.condition.engine).extra_positions
            most = max((extra.get(p, 0) for p in cell.paths), default=0)
            limits.append((cell.condition, room + most))
        check_fits(checkpoint, corpus, request.ids.source, limits)
