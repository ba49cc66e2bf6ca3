"""A run's request: what was asked, read and checked before any engine starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import store
from mismatch.capture import checkpoint as checkpoints
from mismatch.capture import environment
from mismatch.corpus.jsonl import read_corpus
from mismatch.corpus.prompts import read_prompts
from mismatch.engines import ENGINES, find
from mismatch.errors import MismatchError, suggest
from mismatch.model import INFER_PATHS, TRAIN_PATH, Condition, Corpus, Floor, Sampling


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
            return self.corpus.sha
        return store.text_digest(store.dump_json(list(self.prompts)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Everything that decides a run's numbers, and two things that do not (timeout, trust)."""

    checkpoint: checkpoints.Checkpoint
    train: Condition
    infer: Condition
    ids: Ids
    paths: tuple[str, ...]
    repeats: int
    floor: Floor
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

    def as_json(self) -> dict[str, Any]:
        """What run.json and summary.json say was asked: no path, no time, no machine."""
        return {
            "verb": "run",
            "model": self.checkpoint.digest,
            "train": self.train.spec,
            "infer": self.infer.spec,
            "paths": list(self.paths),
            "repeats": self.repeats,
            "floor": self.floor,
            "ids": self.ids.digest,
            "sampling": None if self.sampling is None else asdict(self.sampling),
            "trust_remote_code": self.trust_remote_code,
        }

    def check(self) -> None:
        """Refuse what cannot work, in the order a user would want to hear it."""
        _check_side("train", self.train, (TRAIN_PATH,))
        _check_side("infer", self.infer, self.paths)
        _check_recorded(self)
        _check_limits(self)
        for condition in (self.infer, self.train):
            environment.interpreter(find(condition.engine), condition)


def choose_paths(paths: Sequence[str] | None, with_corpus: bool) -> tuple[str, ...]:
    """The asked paths, each known and once; by default all that the ids allow."""
    if paths is None:
        return INFER_PATHS[1:] if with_corpus else INFER_PATHS
    for path in paths:
        if path not in INFER_PATHS:
            hint = suggest(path, INFER_PATHS)
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
        return Ids(None, {}, {}, read_prompts(Path(prompts), limit), Path(prompts).name)
    assert corpus is not None
    return _read_corpus(Path(corpus), limit)


def _read_corpus(path: Path, limit: int | None) -> Ids:
    about: Mapping[str, Any] = {"schema": store.SCHEMA, "source": "ids", "sampled_by": None}
    recorded: Mapping[str, list[np.ndarray]] = {}
    if path.is_dir():
        corpus, about, recorded = store.load_corpus(path)
    else:
        corpus = read_corpus(path)
    if limit is not None and limit < len(corpus):
        corpus = Corpus(corpus.token_ids[:limit], corpus.scored[:limit])
        recorded = {side: values[:limit] for side, values in recorded.items()}
        about = {**about, "sequences": limit, "scored_tokens": corpus.scored_tokens}
    if not corpus.scored_tokens:
        raise MismatchError("nothing-scored", file=path.name)
    return Ids(corpus, about, recorded, (), path.name)


def _check_side(side: str, condition: Condition, paths: Sequence[str]) -> None:
    engine = find(condition.engine)
    for path in paths:
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


def _check_recorded(request: Request) -> None:
    """A recorded rollout belongs to the condition that drew it, and to no other."""
    ids, infer = request.ids, request.infer
    if ids.corpus is None or "rollout" not in request.paths:
        return
    drawn = ids.about.get("sampled_by")
    own = (infer.spec, request.checkpoint.digest)
    if "infer" not in ids.recorded:
        reason = f"{ids.source} has none"
    elif drawn and (drawn["condition"], drawn["model"]) != own:
        reason = f"those of {ids.source} were drawn by {drawn['condition']} of {drawn['model']}"
    else:
        return
    raise MismatchError(
        "usage",
        what=f"Path rollout needs log-probabilities recorded by {infer.spec}, and {reason}.",
        todo="Use --paths decode,prefill, or --prompts to roll out.",
    )


def _check_limits(request: Request) -> None:
    """Ids outside the vocabulary, or too long, are refused before any engine starts."""
    engine = find(request.infer.engine)
    extra = max((engine.extra_positions.get(p, 0) for p in request.paths), default=0)
    corpus, room = request.ids.corpus, 0
    if corpus is None:
        # Prompts given as text have no length yet: the guest checks them once they are encoded.
        assert request.sampling is not None
        room = request.sampling.max_tokens
        rows = [np.asarray(p.get("token_ids", [0]), np.int64) for p in request.ids.prompts]
        corpus = Corpus(tuple(rows), tuple(np.zeros(len(r), bool) for r in rows))
    limits = [(request.train, room), (request.infer, room + extra)]
    checkpoints.check_fits(request.checkpoint, corpus, request.ids.source, limits)
