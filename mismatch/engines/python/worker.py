"""Guest half of python: the user's object scores, and what it gives is checked.

    class Scorer:
        def __init__(self, model_path: str, options: dict): ...   # options: every arg.NAME=VALUE
        def score(self, sequences: list[np.ndarray]) -> list[np.ndarray]: ...
        def facts(self) -> dict: ...   # may be left out
        def close(self) -> None: ...   # may be left out

`score` gets (n,) int64 ids each and gives (n,) floats each: entry t is ln p(token t | tokens < t)
in nats, of the model's own distribution (T = 1, nothing cut) unless facts()["scored_as"] says what
was done to it. Entry 0 is ignored, and a NaN is recorded as one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import wire
from mismatch.engines import observe
from mismatch.engines.python import process, source
from mismatch.engines.python.source import PluginError, said_of

SPACE = "as the plug-in gives them (asked: ln p(token | tokens before it), nats)"


class Worker:
    """See mismatch.engines.guest for the contract."""

    def __init__(self, job: wire.Job, events: wire.Events) -> None:
        self.job = job
        self.calls: set[int] = set()
        self.dtypes: set[str] = set()

    def load(self) -> None:
        options = self.job.options
        if "plugin" in options:
            self.source = source.from_plugin(options["plugin"])
        else:
            self.source = source.from_file(Path(options["file"]), options["object"])
        name = self.source.name
        with said_of(f"{name}(model_path, options) failed"):
            self.scorer = self.source.made(self.job.model, dict(self.job.extra))
        if not callable(getattr(self.scorer, "score", None)):
            kind = type(self.scorer).__name__
            raise PluginError(f"{name}(model_path, options) gave a {kind} without score(sequences)")
        self.digest = source.digest(self.source.about, self.source.look())

    def identity(self) -> dict[str, Any]:
        return {"digest": self.digest, "files": self.source.look()}

    # ------------------------------------------------------------ score

    def configure(self, options: dict[str, Any]) -> None:
        self.calls, self.dtypes = set(), set()

    def encode(self, prompts: list[dict[str, Any]]) -> Any:
        raise NotImplementedError("the train side scores ids; the rollout engine encodes prompts")

    sample = encode

    def texts(self, ids: list[int]) -> list[str] | None:
        return None

    def score(
        self,
        path: str,
        sequences: list[np.ndarray],
        first: list[int],
        asked: list[np.ndarray],
    ) -> list[wire.Values]:
        self.calls.add(len(sequences))
        with said_of("score failed"):
            # Copies: what the plug-in does to them is its own affair.
            given = self.scorer.score([ids.astype(np.int64) for ids in sequences])
        rows = read(given, [len(ids) for ids in sequences])
        self.dtypes |= {row.dtype.name for row in rows}
        return [_values(row) for row in rows]

    # ------------------------------------------------------------ facts

    def facts(self) -> dict[str, Any]:
        stated = self._stated()
        return {
            "observed": {},
            "code": {**self.source.about, "files": self.source.look(), "digest": self.digest},
            "stated_by_the_plugin": stated,
            "values_dtype": "+".join(sorted(self.dtypes)),
            "sequences_per_call": sorted(self.calls),
            "logprob_space": SPACE,
            "scored_as": _scored_as(stated),
            "device": process.device(),
            "torch": process.torch(),
            "versions": observe.versions(process.DISTRIBUTIONS),
            "imported": process.imported(),
            "env": observe.switches(),
        }

    def _stated(self) -> dict[str, Any]:
        """What the plug-in says of itself; nobody else saw it."""
        if not callable(getattr(self.scorer, "facts", None)):
            return {}
        with said_of("facts failed"):
            stated = self.scorer.facts()
        if not isinstance(stated, dict):
            raise PluginError(f"facts gave a {type(stated).__name__} where a dict is due")
        try:
            plain: dict[str, Any] = json.loads(json.dumps(stated))
        except (TypeError, ValueError) as reason:
            raise PluginError(f"facts gave what JSON cannot hold: {reason}") from None
        return plain

    def close(self) -> None:
        if callable(getattr(self.scorer, "close", None)):
            with said_of("close failed"):
                self.scorer.close()


def read(given: Any, lengths: Sequence[int]) -> list[np.ndarray]:
    """What score gave as (n,) float arrays, one for each sequence; else `PluginError`."""
    if not isinstance(given, list | tuple):
        raise PluginError(f"score gave a {type(given).__name__} where a list of arrays is due")
    if len(given) != len(lengths):
        raise PluginError(f"score gave {len(given)} arrays for {len(lengths)} sequences")
    return [_row(k, one, n) for k, (one, n) in enumerate(zip(given, lengths, strict=True), 1)]


def _row(number: int, one: Any, ids: int) -> np.ndarray:
    what = f"score, array {number} of the call"
    try:
        row = np.asarray(one)
    except Exception as reason:
        kind = type(one).__name__
        text = " ".join(str(reason).split())[:200]
        raise PluginError(f"{what}: numpy cannot read the {kind} ({text})") from None
    if row.ndim != 1:
        raise PluginError(f"{what} has the shape {row.shape} where ({ids},) is due")
    if len(row) != ids:
        raise PluginError(
            f"{what} has {len(row)} values for {ids} ids: entry t is of the token at t, and entry "
            "0 is ignored"
        )
    if row.dtype.kind != "f":
        raise PluginError(f"{what} holds {row.dtype} where floating-point numbers are due")
    return row


def _values(row: np.ndarray) -> wire.Values:
    values = wire.blank(len(row))
    values.logprobs[1:] = row[1:]
    return values


def _scored_as(stated: dict[str, Any]) -> dict[str, float]:
    """The sampler's settings that the plug-in says are in its values; none: the model's own."""
    said = stated.get("scored_as", {})
    fine = isinstance(said, dict) and all(
        name in wire.NEUTRAL and type(value) in (int, float) for name, value in said.items()
    )
    if not fine:
        names = ", ".join(wire.NEUTRAL)
        raise PluginError(f"facts: scored_as takes numbers by name ({names}), not {said}")
    return dict(said)
