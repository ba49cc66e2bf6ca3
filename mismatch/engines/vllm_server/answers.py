"""Reading what a vllm server says of a request. No server is asked here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mismatch import wire
from mismatch.engines.client import MOVED
from mismatch.engines.http import ServerError, need

#: The server writes minus infinity so, because JSON has none.
MINUS_INFINITY = -9999.0
#: How it names a token under return_tokens_as_token_ids.
NAMED = "token_id:"
#: Above this a value is no log-probability, whatever the rounding.
LOGIT = 1e-3


def drawn(choice: Any, topk: int) -> tuple[np.ndarray, wire.Values]:
    """The ids that a request generated, and their values at that time."""
    if choice.get("finish_reason") == "abort":
        raise ServerError("the server aborted a request: nobody else may pause or update it now")
    ids = np.array(need(choice, "token_ids"), np.int32)
    values = wire.blank(len(ids), topk)
    said = need(choice, "logprobs")
    own, names = need(said, "token_logprobs"), need(said, "tokens")
    if not len(own) == len(names) == len(ids):
        raise ServerError(f"{len(ids)} tokens came back with {len(own)} log-probabilities")
    if [_id(name) for name in names] != ids.tolist():
        raise ServerError("the log-probabilities that came back are of other tokens")
    values.logprobs[:] = [_value(v, at) for at, v in enumerate(own)]
    if topk:
        for at, best in enumerate(need(said, "top_logprobs")):
            _fill_top(values, at, {_id(n): _value(v, at) for n, v in best.items()})
    return ids, values


def prompted(choice: Any, ids: Sequence[int], topk: int) -> wire.Values:
    """The values of a prompt's own tokens; of its first there is none."""
    if need(choice, "prompt_token_ids") != list(ids):
        raise ServerError("the server scored other ids than it was sent")
    said = need(choice, "prompt_logprobs")
    if len(said) != len(ids):
        raise ServerError(f"{len(ids)} ids were sent, {len(said)} values came back")
    values = wire.blank(len(ids), topk)
    for at in range(1, len(ids)):
        if said[at] is None:
            raise ServerError(f"the log-probability at position {at} is null")
        found = {int(i): _value(entry["logprob"], at) for i, entry in said[at].items()}
        if ids[at] not in found:
            raise ServerError(f"position {at} has no log-probability of its own token")
        values.logprobs[at] = found[ids[at]]
        if topk:
            _fill_top(values, at, found)
    return values


def replayed(choice: Any, ids: Sequence[int], topk: int) -> wire.Values:
    """The values of the ids that a decode was forced to (/inference/v1/generate)."""
    if need(choice, "token_ids") != list(ids):
        raise ServerError("forced decode returned other ids than it was given")
    said = need(choice, "logprobs", "content")
    if len(said) != len(ids):
        raise ServerError(f"{len(ids)} ids were forced, {len(said)} values came back")
    values = wire.blank(len(ids), topk)
    values.logprobs[:] = [_value(need(entry, "logprob"), at) for at, entry in enumerate(said)]
    for at, entry in enumerate(said if topk else ()):
        best = {_id(t["token"]): _value(t["logprob"], at) for t in entry["top_logprobs"]}
        _fill_top(values, at, best)
    return values


def processed(plain: Sequence[Any], hot: Sequence[Any]) -> bool:
    """Whether values are scaled by the temperature: the likeliest token's, asked at T = 1 and 2."""
    pairs = [(_highest(a), _highest(b)) for a, b in zip(plain, hot, strict=True)]
    if any(value > LOGIT for pair in pairs for value in pair):
        raise ServerError(
            "the server gives logits in place of log-probabilities (its --logprobs-mode): start it "
            "with raw_logprobs or processed_logprobs"
        )
    moved = max(abs(a - b) for a, b in pairs)
    return moved > MOVED


def _highest(choice: Any) -> float:
    best = need(choice, "logprobs", "top_logprobs", 0)
    return max(float(value) for value in best.values())


def _fill_top(values: wire.Values, at: int, found: Mapping[int, float]) -> None:
    """The likeliest of what was found, best first; what cannot be drawn is none of them."""
    assert values.top_ids is not None and values.top_logprobs is not None
    drawable = [(v, i) for i, v in found.items() if np.isfinite(v)]
    best = sorted(drawable, key=lambda pair: -pair[0])[: values.top_ids.shape[1]]
    for rank, (value, token) in enumerate(best):
        values.top_ids[at, rank], values.top_logprobs[at, rank] = token, value


def _id(name: str) -> int:
    if not name.startswith(NAMED):
        raise ServerError("the server names tokens by text: it is too old to name them by id")
    return int(name.removeprefix(NAMED))


def _value(value: Any, at: int) -> float:
    if value is None:
        raise ServerError(f"the log-probability at position {at} is null")
    return -np.inf if value <= MINUS_INFINITY else float(value)
