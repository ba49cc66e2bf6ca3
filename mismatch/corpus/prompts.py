"""Prompts: rows of text, of chat messages, or of token ids."""

from __future__ import annotations

import json
import sys
from itertools import islice
from pathlib import Path
from typing import Any

from mismatch.corpus import jsonl
from mismatch.corpus.jsonl import Place, shown
from mismatch.errors import MismatchError

KEYS = ("prompt", "messages", "token_ids")
ONE_OF = 'Write {"prompt": text}, {"messages": [{"role", "content"}, ...]} or {"token_ids": [...]}.'


def read_prompts(path: Path, limit: int | None = None) -> list[dict[str, Any]]:
    """The first `limit` prompts (None: all), each a dict with exactly one of KEYS.

    Other keys of a row are dropped. Messages keep all of their own keys for the chat template.
    Rows after the limit are not read. Raises `bad-row`, `empty-input`, `usage` for a limit below 1.
    """
    if limit is not None and limit < 1:
        raise MismatchError(
            "usage", what=f"A limit of {limit} prompts selects nothing.", todo="Give 1 or more."
        )
    first = None if limit is None else min(limit, sys.maxsize)  # islice takes no more
    return [_prompt(Place(path, n), row) for n, row in islice(jsonl.rows(path), first)]


def _prompt(place: Place, row: dict[str, Any]) -> dict[str, Any]:
    given = [key for key in KEYS if key in row]
    if len(given) != 1:
        reason = f"has {' and '.join(given)}" if given else "has no prompt"
        raise place.bad(f"the row {reason}", ONE_OF)
    key = given[0]
    if key == "prompt":
        return {key: _text(place, row[key])}
    if key == "messages":
        return {key: check_messages(place, row[key])}
    return {key: jsonl.token_ids(place, row).tolist()}


def _text(place: Place, value: Any) -> str:
    if not isinstance(value, str):
        raise place.bad(f"prompt is {shown(value)}, not text", ONE_OF)
    if not value:
        raise place.bad("prompt is empty", "Drop it, or give token_ids for a bare start token.")
    check_encodable(place, "prompt", value)
    return value


def check_messages(place: Place, value: Any, *, placeholders: bool = False) -> list[dict[str, Any]]:
    """The messages, or `bad-row`. placeholders: an assistant message may have no content."""
    if not isinstance(value, list) or not value:
        raise place.bad(f"messages is {shown(value)}, not a list of messages", ONE_OF)
    for number, message in enumerate(value):
        fault = _fault(message, placeholders)
        if fault:
            raise place.bad(f"messages[{number}] {fault}", ONE_OF)
    check_encodable(place, "messages", value)
    return value


def _fault(message: Any, placeholders: bool) -> str | None:
    """What is wrong with one message, in words that follow its name."""
    if not isinstance(message, dict):
        return f"is {shown(message)}, not an object"
    role, content = message.get("role"), message.get("content")
    if not isinstance(role, str) or not role:
        return f"has role {shown(role)}" if "role" in message else "has no role"
    if content is None and (message.get("tool_calls") or (placeholders and role == "assistant")):
        return None  # an assistant turn that only calls tools has no content
    if "content" not in message:
        return "has no content"
    is_parts = isinstance(content, list) and all(isinstance(part, dict) for part in content)
    if isinstance(content, str) or is_parts:
        return None
    return f"has content {shown(content)}, neither text nor a list of parts"


def check_encodable(place: Place, field: str, value: Any) -> None:
    """JSON can spell half a surrogate pair (\\ud83d alone); no file and no tokenizer takes it."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError:
        reason = f"{field} holds half of a surrogate pair, which is not text"
        raise place.bad(reason, "Mend the character where the file was made.") from None
    except RecursionError:
        raise place.bad(f"{field} is nested too deeply", ONE_OF) from None
