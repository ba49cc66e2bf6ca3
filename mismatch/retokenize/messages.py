"""The text of one assistant turn -> a message with reasoning, content and tool calls.

It reads what a rollout server's Hermes-style parser reads: `<think>...</think>` first, then
content, then `<tool_call>JSON</tool_call>`. Text after the first tool call is lost, and one call
that does not parse leaves the whole turn as content, as vllm's `hermes` parser does. (vllm's also
takes a call that was never closed; here it is text.)
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, NoReturn

_CALL = re.compile(r"<tool_call>(.*?)</tool_call>", re.DOTALL)
#: The opening tag may stand in the prompt already.
_REASONING = re.compile(r"\s*(?:<think>)?((?:(?!<think>).)*?)</think>", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Turn:
    """One assistant turn.

    message: as a chat template takes it (role, content, and where there are any
    reasoning_content and tool_calls). reasoning: (start, stop) characters, of the whole block;
    (0, 0) for none. calls: (start, stop) of each `<tool_call>` block that was read. is_broken: a
    block is there and none was read.
    """

    message: dict[str, Any]
    reasoning: tuple[int, int]
    calls: tuple[tuple[int, int], ...]
    is_broken: bool


def parse_turn(text: str) -> Turn:
    """The turn as a message; text that holds no call and no reasoning is content as it stands."""
    thought = _REASONING.match(text)
    begin = thought.end() if thought else 0
    blocks = list(_CALL.finditer(text, begin))
    functions = [_function(block.group(1)) for block in blocks]
    is_broken = "<tool_call>" in text[begin:] and (not blocks or None in functions)
    blocks = [] if is_broken else blocks
    content = text[begin : blocks[0].start() if blocks else len(text)]
    if blocks or thought:  # the line break between two parts is the template's affair
        content = content if content.strip() else ""
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if thought:
        message["reasoning_content"] = thought.group(1)
    if blocks:
        message["tool_calls"] = [{"type": "function", "function": f} for f in functions]
    spans = tuple((b.start(), b.end()) for b in blocks)
    return Turn(message, (0, begin), spans, is_broken)


def _function(text: str) -> dict[str, Any] | None:
    """{"name", "arguments"} of a call's JSON; None where it is none."""
    try:
        found = json.loads(text, parse_constant=_refuse)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        return None
    if "arguments" not in found:
        return None
    return {"name": found["name"], "arguments": found["arguments"]}


def _refuse(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is not a JSON value")


def is_placeholder(message: dict[str, Any]) -> bool:
    """An assistant message without words: a run of sampled tokens stands in its place."""
    empty = not message.get("content") and not message.get("tool_calls")
    return message.get("role") == "assistant" and empty


def fill(messages: list[dict[str, Any]], turns: list[Turn]) -> list[dict[str, Any]] | None:
    """The conversation with each sampled turn in its place; None where the counts differ.

    Messages without a placeholder are a prompt: one sampled turn follows it.
    """
    places = sum(map(is_placeholder, messages))
    if places == 0 and len(turns) == 1:
        return [*messages, turns[0].message]
    if places != len(turns):
        return None
    sampled = iter(turns)
    return [next(sampled).message if is_placeholder(m) else m for m in messages]
