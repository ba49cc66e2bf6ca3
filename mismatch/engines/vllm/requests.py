"""What one engine call asks, and how its answer is read. No vllm is imported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mismatch import wire

#: The id in front of a position's entropy, which travels as one more log-probability.
ENTROPY_ID = -1


@dataclass(frozen=True)
class Asked:
    """What a capture wants at each position beside the token's own value.

    topk: as asked. found: as many as the vocabulary has. routes: (L, K) of the model's routers,
    None where its routes are not captured.
    """

    topk: int = 0
    found: int = 0
    entropy: bool = False
    routes: tuple[int, int] | None = None

    @property
    def columns(self) -> int:
        """The count for vllm's `logprobs` and `prompt_logprobs`."""
        return self.found + self.entropy

    def blank(self, n: int) -> wire.Values:
        return wire.blank(n, self.topk, self.entropy)


def asked(request: Mapping[str, Any], vocabulary: int) -> Asked:
    topk = int(request.get("topk", 0))
    return Asked(topk, min(topk, vocabulary), bool(request.get("entropy", False)))


def sampling(request: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The sampler's settings of a request: T = 1 over the whole support unless something says so.

    defaults: the checkpoint's own, where generation_config=auto was asked; the request overrides.
    """
    given = {name: request[name] for name in wire.NEUTRAL if name in request}
    settings = {"temperature": 1.0, **defaults, **given}
    if settings["temperature"] <= 0:
        raise ValueError(
            "the checkpoint's generation_config says temperature 0: a greedy rollout draws nothing "
            "whose probability could be compared; give a temperature"
        )
    return settings


def with_routes(values: wire.Values, routes: np.ndarray, inputs: int, n: int) -> wire.Values:
    """The values of a sequence of n ids with the routes of its first `inputs`.

    routes: (m, L, K) of the positions that the engine ran, from 0 on. Under async scheduling it may
    have run the last token of a response too, for a token that nobody keeps.
    """
    if len(routes) < inputs:
        raise RuntimeError(f"vllm showed the routes of {len(routes)} of {inputs} tokens")
    whole = np.full((n, *routes.shape[1:]), -1, np.int16)
    whole[:inputs] = routes[:inputs]
    return replace(values, routes=whole)


def fill(values: wire.Values, start: int, answer: Any, ids: Sequence[int], want: Asked) -> None:
    """Read vllm's FlatLogprobs of ids[start:] into their places."""
    rows = slice(start, start + len(ids))
    found, logprobs = table(answer, len(ids), 1 + want.columns)
    own = found[:, 0] == np.asarray(ids)
    values.logprobs[rows] = np.where(own, logprobs[:, 0], np.nan)
    if want.topk:
        assert values.top_ids is not None and values.top_logprobs is not None
        best, of = logprobs[:, 1 : 1 + want.found], found[:, 1 : 1 + want.found]
        drawable = np.isfinite(best)  # a token outside what is kept is none of the likeliest
        values.top_ids[rows, : want.found] = np.where(drawable, of, -1)
        values.top_logprobs[rows, : want.found] = np.where(drawable, best, np.nan)
    if want.entropy:
        assert values.entropy is not None
        last = found[:, -1] == ENTROPY_ID
        values.entropy[rows] = np.where(last, logprobs[:, -1], np.nan)


def table(answer: Any, n: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """FlatLogprobs of n positions -> (n, width) ids and log-probabilities, the token's own first.

    A position of which the engine says nothing (a prompt's first) has ids of -2 and NaN.
    """
    ids = np.full((n, width), -2, np.int64)
    logprobs = np.full((n, width), np.nan, np.float32)
    counts = np.subtract(answer.end_indices, answer.start_indices)
    said = counts > 0
    if len(counts) != n or not (counts[said] == width).all():
        raise RuntimeError(
            f"vllm gave {sorted(set(counts.tolist()))} log-probabilities a position for "
            f"{len(counts)} positions; {width} for {n} were asked"
        )
    ids[said] = np.reshape(answer.token_ids, (-1, width))
    logprobs[said] = np.reshape(answer.logprobs, (-1, width))
    return ids, logprobs
