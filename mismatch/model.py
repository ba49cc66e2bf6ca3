"""The nouns of the project, as frozen data: Condition, Corpus, Capture, Task, PairSpec.

Nothing here touches a file or starts a process.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mismatch.errors import MismatchError, suggest

OptionValue = str | int | float | bool | Path
Side = Literal["train", "infer"]
Floor = Literal["none", "batch"]

#: Paths of the infer side in the order a run takes them; the train side has one path, `score`.
INFER_PATHS = ("rollout", "decode", "prefill")
TRAIN_PATH = "score"

#: A log-probability is at most 0; float32 log-softmax may overshoot by rounding, never by this.
LOGPROB_CEILING = 1e-4


#: The boundary of a cell that this machine cannot run, and the words for one that had no ids.
UNSUPPORTED = "unsupported"
#: Between such a cell and its reason, in words.
IS_UNSUPPORTED = " is unsupported: "
NO_IDS = "there are no ids to replay: the rollout failed"


def side_of(path: str) -> Side:
    """The side a path is captured on: `score` is the trainer's, the others are the engine's."""
    return "train" if path == TRAIN_PATH else "infer"


@dataclass(frozen=True, slots=True)
class Condition:
    """Intent: one engine under stated options. What was observed is a trace's `facts`.

    name: given by a study; else the id is made of the options.
    """

    engine: str
    options: Mapping[str, OptionValue]
    name: str = ""

    @property
    def spec(self) -> str:
        """Canonical text, read back as it stands. `python` is a path of one machine: left out."""
        pairs = [f"{k}={option_text(v)}" for k, v in sorted(self.options.items()) if k != "python"]
        return self.engine + (":" + ",".join(pairs) if pairs else "")

    @property
    def id(self) -> str:
        """Readable and safe as a folder name: `hf:dtype=bf16,attention=sdpa` -> `hf-bf16-sdpa`."""
        if self.name:
            return self.name
        words = [self.engine, *(_word(k, v) for k, v in self._in_reading_order())]
        plain = "-".join(words)
        safe = re.sub(r"[^A-Za-z0-9._-]+", "_", plain)[:80]
        if safe == plain:
            return safe
        return f"{safe}-{hashlib.sha256(self.spec.encode()).hexdigest()[:6]}"

    def _in_reading_order(self) -> Iterator[tuple[str, OptionValue]]:
        for name in ("dtype", "attention"):
            if name in self.options:
                yield name, self.options[name]
        for name, value in sorted(self.options.items()):
            if name not in ("dtype", "attention", "python"):
                yield name, value


#: Bytes of one name and of a whole path, as Linux takes them; the latter less what we put beneath.
LONGEST_NAME, LONGEST_PATH = 255, 3000


def given_path(given: str | Path) -> Path:
    """A path that a user gave; `no-path` where no file can have it."""
    try:
        raw = os.fsencode(given)
    except UnicodeEncodeError:
        raise MismatchError("no-path", path=repr(str(given)), reason="it is not text") from None
    if b"\0" in raw:
        raise MismatchError("no-path", path=repr(str(given)), reason="it holds a zero byte")
    longest = max(map(len, raw.split(b"/")))
    if longest > LONGEST_NAME or len(raw) > LONGEST_PATH:
        shown = f"{str(given)[:40]!r}..."
        raise MismatchError("no-path", path=shown, reason=f"it is too long ({len(raw)} bytes)")
    return Path(given)


def option_text(value: OptionValue) -> str:
    """An option's value as the command line writes it; of a file its name, as where it lies is one
    machine's affair.
    """
    if isinstance(value, Path):
        return value.name
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def _word(name: str, value: OptionValue) -> str:
    if isinstance(value, Path):
        return value.stem
    if name in ("dtype", "attention"):
        return str(value)
    if isinstance(value, bool):
        return name if value else f"no_{name}"
    return f"{name}{value}" if isinstance(value, int) else f"{name}_{option_text(value)}"


_SPEC_HEAD = re.compile(r"^([A-Za-z0-9_.-]+)(?::(?=[A-Za-z_][\w.]*=)(.*))?$", re.DOTALL)


def split_spec(text: str) -> tuple[str, dict[str, str]]:
    """`ENGINE[:key=value,...]` -> engine, raw options. Splits at a `:` before `name=` only."""
    match = _SPEC_HEAD.match(text.strip())
    if match is None or not _is_utf8(text):
        raise MismatchError("condition-syntax", text=text)
    raw: dict[str, str] = {}
    for piece in (match.group(2) or "").split(","):
        if not piece:
            continue
        name, equals, value = piece.partition("=")
        if not equals or not name or not value or name in raw:
            raise MismatchError("condition-syntax", text=text)
        raw[name] = value
    return match.group(1), raw


def _is_utf8(text: str) -> bool:
    """A command line's bytes that are no UTF-8 come as halves of surrogate pairs: no file of ours
    could name such a condition.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Option:
    """One option of an engine: its kind, the values it takes, one line of help.

    scope: `request` options may change between two captures of one load; `load` options need an
    engine of their own. pattern: what a "str" must look like, with `takes_text` to say it in words.
    hidden: a wrong value may hold a secret, so that no error repeats it.
    """

    kind: Literal["str", "int", "float", "bool", "batch", "path"]
    help: str
    choices: tuple[str, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    scope: Literal["load", "request"] = "load"
    pattern: str = ""
    takes_text: str = ""
    hidden: bool = False

    def parse(self, name: str, raw: str) -> OptionValue:
        """Turn command-line text into a value; raises `option-value` with the values it takes."""
        if self.choices:
            if raw not in self.choices:
                raise self._bad(name, raw)
            return raw
        if self.kind == "bool":
            if raw not in ("true", "false"):
                raise self._bad(name, raw)
            return raw == "true"
        if self.kind == "path":
            return given_path(raw)
        if self.kind == "str" or (self.kind == "batch" and raw == "all"):
            if self.pattern and not re.fullmatch(self.pattern, raw):
                raise self._bad(name, raw)
            return raw
        return self._number(name, raw)

    def _number(self, name: str, raw: str) -> int | float:
        shape = r"-?\d+(\.\d+)?(e-?\d+)?" if self.kind == "float" else r"-?\d{1,9}"
        if not re.fullmatch(shape, raw):
            raise self._bad(name, raw)
        number = float(raw) if self.kind == "float" else int(raw)
        low, high = self.minimum, self.maximum
        if (low is not None and number < low) or (high is not None and number > high):
            raise self._bad(name, raw)
        return number

    def _bad(self, name: str, raw: str) -> MismatchError:
        return MismatchError(
            "option-value",
            option=name,
            value="***" if self.hidden else raw,
            takes=self.takes,
            hint_extra=suggest(raw, self.choices),
        )

    @property
    def takes(self) -> str:
        """The accepted values in words, for help and errors."""
        if self.choices:
            return "|".join(self.choices)
        if self.takes_text:
            return self.takes_text
        lowest = "" if self.minimum is None else f" >= {self.minimum:g}"
        highest = "" if self.maximum is None else f" <= {self.maximum:g}"
        whole = f"a whole number{lowest}{highest}"
        words = {
            "bool": "true|false",
            "str": "text",
            "path": "a path",
            "int": whole,
            "float": f"a number{lowest}{highest}",
        }
        return words.get(self.kind, f"all, or {whole}")


@dataclass(frozen=True, slots=True)
class Corpus:
    """Token sequences to replay.

    token_ids: one int32 array per sequence; scored: one bool array per sequence, same length.
    Position 0 is never scored, whatever was given (there is nothing to condition on).
    top_ids: the sampler's likeliest tokens where it captured them, one (n, K) int32 array per
    sequence, -1 for none; an engine that captures top-k scores them too. routes: the experts that
    the sampler sent each token to where it captured them, one (n, L, K) int16 array per sequence,
    -1 where a position was never an input; an engine that replays routes takes them.
    """

    token_ids: tuple[np.ndarray, ...]
    scored: tuple[np.ndarray, ...]
    top_ids: tuple[np.ndarray, ...] | None = None
    routes: tuple[np.ndarray, ...] | None = None

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def sha(self) -> str:
        """Content address: 16 hex digits over ids and mask, in order."""
        digest = hashlib.sha256()
        for ids, scored in zip(self.token_ids, self.scored, strict=True):
            digest.update(len(ids).to_bytes(8, "little"))
            digest.update(np.ascontiguousarray(ids, dtype="<i4").tobytes())
            digest.update(np.packbits(scored).tobytes())
        return digest.hexdigest()[:16]

    def first(self, count: int) -> Corpus:
        """The first `count` sequences."""
        top = None if self.top_ids is None else self.top_ids[:count]
        routes = None if self.routes is None else self.routes[:count]
        return Corpus(self.token_ids[:count], self.scored[:count], top, routes)

    @property
    def scored_tokens(self) -> int:
        return int(sum(int(s.sum()) for s in self.scored))


def make_corpus(rows: list[tuple[np.ndarray, np.ndarray | None]]) -> Corpus:
    """Rows of (token_ids, mask or None for every position) -> Corpus with position 0 unscored."""
    ids = tuple(np.asarray(r[0], dtype=np.int32) for r in rows)
    masks = []
    for (_, mask), row in zip(rows, ids, strict=True):
        scored = np.ones(len(row), bool) if mask is None else np.array(mask, dtype=bool)
        scored[:1] = False
        masks.append(scored)
    return Corpus(ids, tuple(masks))


@dataclass(frozen=True, slots=True)
class Sampling:
    """How many rollouts are drawn, how long, from which seed. How they are drawn (temperature,
    top-p, ...) is the condition's: it draws at T = 1 from the whole support unless it says so.
    """

    samples: int = 1
    max_tokens: int = 256
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Capture:
    """One replay to take: a path, a name (`decode-1`, `decode-batch`) and who shares a call.

    groups: sequence indices of each engine call, in order. The unit of resume is one call.
    """

    name: str
    path: str
    groups: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Task:
    """One capture of one condition: what is sealed as a trace, or fails."""

    condition: Condition
    capture: Capture

    @property
    def trace(self) -> str:
        return f"{self.condition.id}/{self.capture.name}"


@dataclass(frozen=True, slots=True)
class Ends:
    """Two ends to compare: conditions and the path that each is taken on."""

    left: Condition
    left_path: str
    right: Condition
    right_path: str


@dataclass(frozen=True, slots=True)
class AttributionSpec:
    """Traces at the corners between two ends: bits (one a knob, 0 = left) -> trace id.

    folded: options in which the ends differ and that are no knob; the knob `engine` carries them.
    """

    id: str
    knobs: tuple[str, ...]
    left: str
    right: str
    corners: Mapping[str, str]
    folded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PairSpec:
    """Two captures to compare. Trace ids are `<condition>/<capture>`; left is the train side."""

    id: str
    kind: Literal["train-infer", "infer-infer", "train-train"]
    path: str
    left: str
    right: str
    floors: Mapping[str, Mapping[str, tuple[str, ...]]]  # name -> train|infer -> other captures
