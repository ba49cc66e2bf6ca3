"""Prompts as ids by a Hugging Face tokenizer, for engines that hold one. Runs in the guest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any


def encode(
    tokenizer: Any, prompts: Sequence[dict[str, Any]]
) -> tuple[list[list[int]], dict[str, Any]]:
    """Text without a template, messages with it and its generation prompt, ids as they are; and
    facts about the tokenizer and its template.
    """
    template = getattr(tokenizer, "chat_template", None)
    digest = hashlib.sha256(str(template).encode()).hexdigest() if template else None
    about = {
        "class": type(tokenizer).__name__,
        "vocabulary": len(tokenizer),
        "template_sha256": digest,
        "add_special_tokens": {"prompt": True, "messages": False},
    }
    return [_encode_one(tokenizer, prompt) for prompt in prompts], about


def _encode_one(tokenizer: Any, prompt: dict[str, Any]) -> list[int]:
    if "token_ids" in prompt:
        return list(prompt["token_ids"])
    if "prompt" in prompt:
        return list(tokenizer.encode(prompt["prompt"], add_special_tokens=True))
    encoded = tokenizer.apply_chat_template(
        prompt["messages"], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    return list(encoded["input_ids"])


def texts(tokenizer: Any, ids: Sequence[int]) -> list[str]:
    """The text of each id."""
    return [tokenizer.decode([i], skip_special_tokens=False) for i in ids]


def check_room(prompts: Sequence[Sequence[int]], max_tokens: int, limit: int) -> None:
    """Every prompt, what may be drawn after it, and the one token more that scoring it generates
    must fit into the engine's context.
    """
    for number, ids in enumerate(prompts, 1):
        need = len(ids) + max_tokens + 1
        if need > limit:
            raise ValueError(
                f"prompt {number} has {len(ids)} tokens: with --max-tokens {max_tokens} it needs "
                f"{need} positions of {limit}"
            )
