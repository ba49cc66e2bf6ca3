"""Rollouts to take through text and messages: rows of ids, with the conversation that made them.

    {"token_ids": [...], "loss_mask": [...], "messages": [...], "tools": [...], "group": "..."}

messages, tools and group may be left out. A run is an unbroken stretch of sampled ids (mask 1), and
stands for one assistant turn.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from mismatch.retokenize.messages import is_placeholder


@dataclass(frozen=True, slots=True)
class Rollout:
    """ids: (n,) int32. sampled: (n,) bool, what the policy drew. messages: the conversation, None
    where the row has none. group: a word of the user's by which rates are also told.
    """

    ids: np.ndarray
    sampled: np.ndarray
    messages: list[dict[str, Any]] | None
    tools: list[Any] | None
    group: str

    @property
    def runs(self) -> list[tuple[int, int]]:
        """(start, stop) of each run, in order."""
        return runs(self.sampled)


def runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of each unbroken stretch of a (n,) bool mask."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(np.int8), [0]])))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def about_row(row: dict[str, Any], ids: np.ndarray, mask: np.ndarray) -> Rollout:
    """The row's Rollout; ValueError says what is wrong with messages, tools or group."""
    messages, tools, group = row.get("messages"), row.get("tools"), row.get("group", "")
    if not isinstance(group, str):
        raise ValueError("group is not text")
    if tools is not None and not isinstance(tools, list):
        raise ValueError("tools is not a list")
    rollout = Rollout(ids, mask, messages, tools, group)
    if messages is not None:
        _check_places(messages, len(rollout.runs))
    return rollout


def _check_places(messages: list[dict[str, Any]], count: int) -> None:
    """Each run needs its place: an assistant message without content, or the end of a prompt."""
    places = sum(map(is_placeholder, messages))
    if places != count and (places, count) != (0, 1):
        raise ValueError(
            f"messages has {places} assistant turns without content, and the mask has {count} runs "
            "of sampled tokens"
        )
