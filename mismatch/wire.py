"""What host and guest say to each other: job in, parts and events out. Standard library and numpy.

The guest runs in another interpreter with another set of packages, so everything crosses as files
in one staging folder:

    job.json        what to do (Job)                       host -> guest
    prompts.jsonl   prompts to encode and sample            host -> guest
    corpus.npz      ids to replay                           host -> guest
    encoded.npz     prompts as ids                          guest -> host
    parts/<condition>/<capture>/<first call>.npz   finished calls    guest -> host, and resume
    parts/<condition>/<capture>/facts.json     observed, after the last call
    events.jsonl    progress, one line each (also the liveness signal)
    error.json      why the guest stopped
"""

from __future__ import annotations

import itertools
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SCHEMA = 1


@dataclass(frozen=True)
class CallPlan:
    """One capture for the guest: `<condition>/<capture>`, its path, and who shares a call.

    options: what the condition asks of each request (batch, padding, ...); the options of the load
    are the job's.
    """

    name: str
    path: str
    groups: list[list[int]]
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """Everything a guest needs. `options` are the load's, typed; an absent one is not set."""

    engine: str
    model: str
    options: dict[str, Any]
    captures: list[CallPlan]
    trust_remote_code: bool = False
    sampling: dict[str, Any] | None = None  # samples, max_tokens, seed; None: ids are given
    schema: int = SCHEMA
    extra: dict[str, Any] = field(default_factory=dict)


def write_job(folder: Path, job: Job) -> None:
    write_json(folder / "job.json", asdict(job))


def read_job(folder: Path) -> Job:
    raw = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    if raw["schema"] != SCHEMA:
        raise ValueError(f"job.json has schema {raw['schema']}, this guest speaks {SCHEMA}")
    raw["captures"] = [CallPlan(**c) for c in raw["captures"]]
    return Job(**raw)


def write_json(path: Path, value: Any) -> None:
    aside = path.with_name("." + path.name)
    aside.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
    aside.replace(path)


def finite(value: Any) -> Any:
    """Facts as JSON can hold them: a number that is not finite becomes null."""
    if isinstance(value, Mapping):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


# ---------------------------------------------------------------- ragged arrays


def pack(rows: Sequence[np.ndarray], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Ragged rows -> (flat values, offsets of length rows + 1)."""
    offsets = np.zeros(len(rows) + 1, np.int64)
    np.cumsum([len(r) for r in rows], out=offsets[1:])
    flat = np.concatenate([np.asarray(r, dtype) for r in rows]) if rows else np.zeros(0, dtype)
    return flat.astype(dtype), offsets


def unpack(flat: np.ndarray, offsets: np.ndarray) -> list[np.ndarray]:
    return [flat[a:b] for a, b in itertools.pairwise(offsets.tolist())]


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """An .npz, whole or not at all (aside, then one rename)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("wb") as stream:
        np.savez(stream, **dict(arrays))  # type: ignore[arg-type]
    aside.replace(path)


def load_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def save_sequences(
    path: Path,
    ids: Sequence[np.ndarray],
    masks: Sequence[np.ndarray] | None = None,
    top_ids: Sequence[np.ndarray] | None = None,
    routes: Sequence[np.ndarray] | None = None,
) -> None:
    """ids (and scored masks, (n, K) ids to score too, (n, L, K) routes to replay) of a corpus, or
    of encoded prompts.
    """
    flat, offsets = pack(ids, "int32")
    arrays = {"ids": flat, "offsets": offsets}
    if masks is not None:
        arrays["scored"] = pack(masks, "bool")[0]
    if top_ids is not None:
        arrays["top_ids"] = pack(top_ids, "int32")[0]
    if routes is not None:
        arrays["routes"] = pack(routes, "int16")[0]
    save_arrays(path, arrays)


class Sequences(NamedTuple):
    """By sequence: (n,) ids, (n,) scored (none in a file without masks), (n, K) ids to score beside
    the likeliest, K = 0 where there are none, and (n, L, K) routes to replay (none without).
    """

    ids: list[np.ndarray]
    scored: list[np.ndarray]
    top_ids: list[np.ndarray]
    routes: list[np.ndarray]


def load_sequences(path: Path) -> Sequences:
    """What `save_sequences` wrote."""
    arrays = load_arrays(path)
    offsets, nothing = arrays["offsets"], np.zeros((len(arrays["ids"]), 0), np.int32)
    return Sequences(
        unpack(arrays["ids"], offsets),
        unpack(arrays["scored"], offsets) if "scored" in arrays else [],
        unpack(arrays.get("top_ids", nothing), offsets),
        unpack(arrays["routes"], offsets) if "routes" in arrays else [],
    )


# ---------------------------------------------------------------- parts


@dataclass(frozen=True)
class Values:
    """What an engine says of one sequence of n ids; entry t is about the token at t.

    logprobs: (n,) float32 nats, NaN where the engine gave none or said NaN (the mask tells the two
    apart). entropy: (n,) float32 nats of the distribution the token at t was drawn from. kept_mass:
    (n,) float32, the probability that top-p, top-k or min-p left. top_ids, top_logprobs: (n, K) the
    K likeliest tokens of that distribution, best first, id -1 where the engine gave fewer; after
    them those of the sampler that are not among them. routes: (m, L, K) int16, the K experts that
    each of the L routed layers sent the token at a position to, -1 where that position was never an
    input; m counts from the start of the whole sequence, even where the other values are of its
    end, because a replay needs the prompt's routes too. All but the first only where they were
    asked for.
    """

    logprobs: np.ndarray
    entropy: np.ndarray | None = None
    kept_mass: np.ndarray | None = None
    top_ids: np.ndarray | None = None
    top_logprobs: np.ndarray | None = None
    routes: np.ndarray | None = None

    def tail(self, start: int) -> Values:
        """From position `start` on; routes stay whole."""
        columns = {n: getattr(self, n) for n in PER_TOKEN}
        cut: dict[str, Any] = {n: None if c is None else c[start:] for n, c in columns.items()}
        return replace(self, **cut)

    def padded(self, start: int) -> Values:
        """With `start` positions in front that say nothing; routes are whole as they are."""
        whole = blank(
            start + len(self.logprobs),
            0 if self.top_ids is None else self.top_ids.shape[1],
            self.entropy is not None,
            self.kept_mass is not None,
        )
        for name in PER_TOKEN:
            if getattr(self, name) is not None:
                getattr(whole, name)[start:] = getattr(self, name)
        return replace(whole, routes=self.routes)


#: What `Values` say of each of the ids they are about.
PER_TOKEN = ("logprobs", "entropy", "kept_mass", "top_ids", "top_logprobs")

#: What a sampler may do to the distribution it draws from, where it does nothing.
NEUTRAL: dict[str, float] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
}


def moved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The sampler's settings that change anything."""
    return {n: v for n, v in settings.items() if v != NEUTRAL[n]}


def columns(values: Values, topk: int) -> int:
    """How many of the likeliest tokens were given, at the position that has most."""
    if values.top_ids is None or not len(values.top_ids):
        return 0
    return int((values.top_ids[:, :topk] >= 0).sum(axis=1).max())


def topk_seen(asked: int, counts: set[int], vocabulary: int) -> int:
    """The top-k that answers of so many columns confirm: as asked, where they had that many or the
    whole vocabulary.
    """
    most = max(counts, default=0)
    return asked if most == min(asked, vocabulary) else most


#: Columns beside the log-probability that have one float for each position.
BESIDE = ("entropy", "kept_mass")


def blank(n: int, topk: int = 0, entropy: bool = False, kept_mass: bool = False) -> Values:
    """Values of n positions that say nothing yet, for an engine to fill in."""
    return Values(
        np.full(n, np.nan, np.float32),
        np.full(n, np.nan, np.float32) if entropy else None,
        np.full(n, np.nan, np.float32) if kept_mass else None,
        np.full((n, topk), -1, np.int32) if topk else None,
        np.full((n, topk), np.nan, np.float32) if topk else None,
    )


def others(asked: np.ndarray, given: np.ndarray) -> np.ndarray:
    """(n, M) ids, with -1 in place of those that (n, K) `given` holds already."""
    known = (asked[:, :, None] == given[:, None, :]).any(axis=2)
    return np.where(known, -1, asked)


@dataclass(frozen=True)
class Row:
    """One sequence as an engine call returned it.

    token_ids: (n,) the ids that the values are about: the whole sequence for decode, prefill and
    score; the response alone for a rollout.
    """

    sequence: int
    token_ids: np.ndarray
    values: Values


def part_folder(folder: Path, capture: str) -> Path:
    return folder / "parts" / capture


def facts_path(folder: Path, capture: str) -> Path:
    return folder / "parts" / capture / "facts.json"


def save_part(folder: Path, capture: str, calls: Sequence[int], rows: Sequence[Row]) -> None:
    """Finished calls of a capture, in one file named after the first of them."""
    ids, offsets = pack([r.token_ids for r in rows], "int32")
    arrays = {
        "calls": np.array(calls, np.int32),
        "sequence": np.array([r.sequence for r in rows], np.int32),
        "ids": ids,
        "offsets": offsets,
    }
    for name in PER_TOKEN:
        columns = [getattr(r.values, name) for r in rows]
        if columns and columns[0] is not None:
            arrays[name] = np.concatenate(columns)
    if rows and rows[0].values.routes is not None:
        routes = [np.asarray(r.values.routes) for r in rows]
        arrays["routes"], arrays["route_offsets"] = pack(routes, "int16")
    save_arrays(part_folder(folder, capture) / f"{calls[0]:06d}.npz", arrays)


def finished_calls(folder: Path, capture: str) -> set[int]:
    """The calls of a capture whose answers are on disk."""
    parts = sorted(part_folder(folder, capture).glob("[0-9]*.npz"))
    return {call for path in parts for call in load_arrays(path)["calls"].tolist()}


def load_capture(folder: Path, plan: CallPlan) -> list[Row]:
    """All rows of a finished capture, by sequence number."""
    parts = sorted(part_folder(folder, plan.name).glob("[0-9]*.npz"))
    return sorted((r for path in parts for r in _load_part(path)), key=lambda r: r.sequence)


def _load_part(path: Path) -> list[Row]:
    arrays = load_arrays(path)
    offsets = arrays["offsets"]
    columns: dict[str, Any] = {
        name: unpack(arrays[name], offsets) if name in arrays else None
        for name in ("ids", *PER_TOKEN)
    }
    if "routes" in arrays:  # of whole sequences, whatever the others are of
        columns["routes"] = unpack(arrays["routes"], arrays["route_offsets"])
    ids = columns.pop("ids")
    return [
        Row(s, i, Values(**{n: None if c is None else c[k] for n, c in columns.items()}))  # type: ignore[arg-type]
        for k, (s, i) in enumerate(zip(arrays["sequence"].tolist(), ids, strict=True))
    ]


def is_complete(folder: Path, plan: CallPlan) -> bool:
    """All calls returned and the facts were taken."""
    if not facts_path(folder, plan.name).is_file():
        return False
    return finished_calls(folder, plan.name) == set(range(len(plan.groups)))


# ---------------------------------------------------------------- events


class Events:
    """Appends one JSON line per event; the host reads them for progress and liveness."""

    def __init__(self, path: Path, silent: bool = False) -> None:
        self._file = (
            None if silent else os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        )
        self._last_tick = 0.0

    def send(self, stage: str, **more: Any) -> None:
        if self._file is None:
            return
        clock = {"t": round(time.time(), 3), "cpu_s": round(time.process_time(), 4)}
        line = json.dumps({"stage": stage, **clock, **more})
        os.write(self._file, (line + "\n").encode())

    def tick(self, done: int, of: int) -> None:
        """Progress inside a call; at most one line a second, so that it costs nothing."""
        now = time.monotonic()
        if now - self._last_tick >= 1.0:
            self._last_tick = now
            self.send("tick", done=done, of=of)


def read_events(path: Path, offset: int = 0) -> tuple[list[dict[str, Any]], int]:
    """Whole lines after a byte offset, and the new offset."""
    if not path.is_file():
        return [], offset
    with path.open("rb") as stream:
        stream.seek(offset)
        data = stream.read()
    end = data.rfind(b"\n") + 1
    return [json.loads(line) for line in data[:end].splitlines()], offset + end


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))
