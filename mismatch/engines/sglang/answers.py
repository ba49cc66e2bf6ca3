"""Reading what sglang says of a request, from its Engine or from `/generate` alike.

An entry is [log-probability, id, text or null]; the first token of an input has no value.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mismatch import wire
from mismatch.engines.http import ServerError, need

#: sglang writes minus infinity as the lowest number of its dtype: of float32, float16 or bfloat16.
LOWEST = -65504.0
#: Given ids are scored at every position of a sequence: no more answers than this are asked of one.
MOST_GIVEN = 1_000_000


def drawn(answer: Any, topk: int) -> tuple[np.ndarray, wire.Values]:
    """The ids that a request generated, and their values at that time."""
    ids = np.array(need(answer, "output_ids"), np.int32)
    about = need(answer, "meta_info")
    if (about.get("finish_reason") or {}).get("type") == "abort":
        raise ServerError("the server aborted a request: nobody else may pause or update it now")
    said = need(about, "output_token_logprobs")
    if [entry[1] for entry in said] != ids.tolist():
        raise ServerError("the log-probabilities that came back are of other tokens")
    values = wire.blank(len(ids), topk)
    values.logprobs[:] = [_value(entry[0], at) for at, entry in enumerate(said)]
    if topk:
        _fill_top(values, need(about, "output_top_logprobs"), topk)
    return ids, values


def prompted(
    answer: Any, ids: Sequence[int], vocabulary: int | None, topk: int, asked: np.ndarray | None
) -> wire.Values:
    """The values of an input's own tokens, by their place: see `echoes`.

    asked: (n, K) ids whose values were asked beside the likeliest; see `given`.
    """
    about = need(answer, "meta_info")
    said = need(about, "input_token_logprobs")
    if len(said) != len(ids):
        raise ServerError(f"{len(ids)} ids were sent, {len(said)} values came back")
    if not all(echoes(i, entry[1], vocabulary) for i, entry in zip(ids, said, strict=True)):
        raise ServerError("the server scored other ids than it was sent")
    width = topk if asked is None else topk + asked.shape[1]
    values = wire.blank(len(ids), width)
    values.logprobs[1:] = [_value(entry[0], at) for at, entry in enumerate(said) if at]
    if topk:
        _fill_top(values, need(about, "input_top_logprobs"), topk)
    if asked is not None and given(asked):
        _fill_given(values, need(about, "input_token_ids_logprobs"), topk, asked)
    return values


def given(asked: np.ndarray) -> list[int]:
    """The ids to send for (n, K) ids asked by position: sglang takes one list for all positions.
    None where the answer would be too long.
    """
    every = np.unique(asked[asked >= 0])
    return every.tolist() if len(every) * len(asked) <= MOST_GIVEN else []


def echoes(sent: int, back: int, vocabulary: int | None) -> bool:
    """Whether the id that came back is the one that was sent. sglang 0.5.15 gives the last id of
    the vocabulary back as 0, and its own value with it.
    """
    return sent == back or (back == 0 and vocabulary is not None and sent == vocabulary - 1)


def highest(answer: Any) -> float:
    """The likeliest token's value at the one position that was generated."""
    return float(need(answer, "meta_info", "output_top_logprobs", 0, 0, 0))


def _fill_top(values: wire.Values, said: Sequence[Any], topk: int) -> None:
    """The likeliest at each position, best first; what cannot be drawn is none of them."""
    assert values.top_ids is not None and values.top_logprobs is not None
    for at, best in enumerate(said):
        found = [(value, token) for value, token, *_ in best or () if _drawable(value)]
        for rank, (value, token) in enumerate(found[:topk]):
            values.top_ids[at, rank], values.top_logprobs[at, rank] = token, value


def _fill_given(values: wire.Values, said: Sequence[Any], topk: int, asked: np.ndarray) -> None:
    """Those of the asked ids that are not among the likeliest, in the columns after them."""
    assert values.top_ids is not None and values.top_logprobs is not None
    wanted = wire.others(asked, values.top_ids[:, :topk])
    for at, entries in enumerate(said):
        found = {token: value for value, token, *_ in entries or () if _drawable(value)}
        for rank, token in enumerate(wanted[at].tolist(), topk):
            if token in found:
                values.top_ids[at, rank], values.top_logprobs[at, rank] = token, found[token]


def _drawable(value: Any) -> bool:
    return value is not None and LOWEST < value < np.inf


def _value(value: Any, at: int) -> float:
    if value is None:
        raise ServerError(f"the log-probability at position {at} is null")
    return -np.inf if value <= LOWEST else float(value)
