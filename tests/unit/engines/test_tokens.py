"""Prompts as ids by a tokenizer that an engine holds."""

from __future__ import annotations

from typing import Any

import pytest

from mismatch.engines import tokens


class _Tokenizer:
    chat_template = "{{ messages }}"

    def __len__(self) -> int:
        return 9

    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert add_special_tokens
        return [1, 2]

    def apply_chat_template(self, messages: Any, **flags: Any) -> dict[str, list[int]]:
        assert flags["add_generation_prompt"] and flags["tokenize"]
        return {"input_ids": [7]}


def test_prompts_are_encoded_by_their_kind() -> None:
    """Text gets no template, messages get it, ids pass through; the template's digest is told."""
    kinds = [{"prompt": "x"}, {"messages": [{"role": "user", "content": "x"}]}, {"token_ids": [3]}]
    ids, about = tokens.encode(_Tokenizer(), kinds)
    assert ids == [[1, 2], [7], [3]]
    assert about["vocabulary"] == 9 and len(about["template_sha256"]) == 64


def test_a_prompt_that_does_not_fit_is_named() -> None:
    """Prompt, response and the one token that scoring generates must fit into the context."""
    tokens.check_room([[1] * 5], max_tokens=4, limit=10)
    with pytest.raises(ValueError, match=r"prompt 2 has 6 tokens.*it needs 11 positions of 10"):
        tokens.check_room([[1] * 5, [1] * 6], max_tokens=4, limit=10)
