"""The nouns of the project, as frozen data: Condition, Corpus, Capture, TraceId, PairSpec.

Nothing here touches a file or starts a process.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mismatch.errors import MismatchError, suggest

OptionValue = str | int | float | bool
Side = Literal["train", "infer"]
Floor = Literal["none", "batch"]

#: Paths of the infer side in the order a run takes them; the train side has one path, `score`.
INFER_PATHS = ("rollout", "decode", "prefill")
TRAIN_PATH = "score"

#: A log-probability is at most 0; float32 log-softmax may overshoot by rounding, never by this.
LOGPROB_CEILING = 1e-4


def side_of(path: str) -> Side:
    """The side a path is captured on: `score` is the trainer's, the others are the engine's."""
    return "train" if path == TRAIN_PATH else "infer"


@dataclass(frozen=True, slots=True)
class Condition:
    """Intent: one engine under stated options. What was observed is a trace's `facts`."""

    engine: str
    options: Mapping[str, OptionValue]

    @property
    def spec(self) -> str:
        """Canonical text, read back as it stands. `python` is a path of one machine: left out."""
        pairs = [f"{k}={_text(v)}" for k, v in sorted(self.options.items()) if k != "python"]
        return self.engine + (":" + ",".join(pairs) if pairs else "")

    @property
    def id(self) -> str:
        """Readable and safe as a folder name: `hf:dtype=bf16,attention=sdpa` -> `hf-bf16-sdpa`."""
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


def _text(value: OptionValue) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _word(name: str, value: OptionValue) -> str:
    if name in ("dtype", "attention"):
        return str(value)
    if isinstance(value, bool):
        return name if value else f"no_{name}"
    return f"{name}{value}" if isinstance(value, int) else f"{name}_{value}"


_SPEC_HEAD = re.compile(r"^([A-Za-z0-9_.-]+)(?::(?=[A-Za-z_][\w.]*=)(.*))?$", re.DOTALL)


def split_spec(text: str) -> tuple[str, dict[str, str]]:
    """`ENGINE[:key=value,...]` -> engine, raw options. Splits at a `:` before `name=` only."""
    match = _SPEC_HEAD.match(text.strip())
    if match is None:
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


@dataclass(frozen=True, slots=True)
class Option:
    """One option of an engine: its kind, the values it takes, one line of help."""

    kind: Literal["str", "int", "bool", "batch"]
    help: str
    choices: tuple[str, ...] = ()
    minimum: int | None = None

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
        if self.kind == "str" or (self.kind == "batch" and raw == "all"):
            return raw
        return self._integer(name, raw)

    def _integer(self, name: str, raw: str) -> int:
        if not re.fullmatch(r"-?\d{1,9}", raw):
            raise self._bad(name, raw)
        number = int(raw)
        if self.minimum is not None and number < self.minimum:
            raise self._bad(name, raw)
        return number

    def _bad(self, name: str, raw: str) -> MismatchError:
        return MismatchError(
            "option-value",
            option=name,
            value=raw,
            takes=self.takes,
            hint_extra=suggest(raw, self.choices),
        )

    @property
    def takes(self) -> str:
        """The accepted values in words, for help and errors."""
        if self.choices:
            return "|".join(self.choices)
        lowest = "" if self.minimum is None else f" >= {self.minimum}"
        return {"bool": "true|false", "str": "text", "int": f"a whole number{lowest}"}.get(
            self.kind, f"all, or a whole number{lowest}"
        )


@dataclass(frozen=True, slots=True)
class Corpus:
    """Token sequences to replay.

    token_ids: one int32 array per sequence; scored: one bool array per sequence, same length.
    Position 0 is never scored, whatever was given (there is nothing to condition on).
    """

    token_ids: tuple[np.ndarray, ...]
    scored: tuple[np.ndarray, ...]

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
    """How rollouts are drawn. T = 1 over the whole support, or k1 and k3 would not estimate KL."""

    samples: int = 1
    max_tokens: int = 256
    seed: int = 0
    temperature: float = 1.0


@dataclass(frozen=True, slots=True)
class Capture:
    """One replay to take: a path, a name (`decode-1`, `decode-batch`) and who shares a call.

    groups: sequence indices of each engine call, in order. The unit of resume is one call.
    """

    name: str
    path: str
    groups: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class PairSpec:
    """Two captures to compare. Trace ids are `<condition>/<capture>`; left is the train side."""

    id: str
    kind: Literal["train-infer", "infer-infer", "train-train"]
    path: str
    left: str
    right: str
    floors: Mapping[str, Mapping[str, tuple[str, ...]]]  # name -> train|infer -> other captures
