"""The text of a turn as a message, read as a Hermes-style parser reads it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mismatch.retokenize.messages import fill, parse_turn

CALL = '<tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
F = {"name": "f", "arguments": {"a": 1}}


def test_plain_text_is_content_as_it_stands() -> None:
    """Not even white space is trimmed: that would be a drift of the parser's own making."""
    turn = parse_turn("  yes \n")
    assert turn.message == {"role": "assistant", "content": "  yes \n"}
    assert turn.calls == () and not turn.is_broken


@pytest.mark.parametrize(
    "text",
    [CALL, '<tool_call>{"name":"f","arguments":{"a":1}}</tool_call>',
     '<tool_call>{ "arguments" : {"a" :1},\n "name": "f" }</tool_call>'],
)  # fmt: skip
def test_a_call_is_read_whatever_its_white_space_and_order(text: str) -> None:
    turn = parse_turn(text)
    assert turn.message["tool_calls"] == [{"type": "function", "function": F}]
    assert turn.message["content"] == "" and turn.calls == ((0, len(text)),)


def test_text_before_a_call_is_content_and_text_after_it_is_lost() -> None:
    turn = parse_turn(f"I call f.\n{CALL}\nDone.")
    assert turn.message["content"] == "I call f.\n"
    assert "Done" not in json.dumps(turn.message)


def test_reasoning_is_taken_out_first() -> None:
    turn = parse_turn(f"<think>\nhm\n</think>\n{CALL}")
    assert turn.message["reasoning_content"] == "\nhm\n" and turn.message["content"] == ""
    assert turn.reasoning == (0, len("<think>\nhm\n</think>"))


def test_reasoning_may_have_been_opened_by_the_prompt() -> None:
    assert parse_turn("hm</think>yes").message["reasoning_content"] == "hm"


@pytest.mark.parametrize(
    "body",
    ["", "no json", "[1]", '{"name": "f"}', '{"name": 3, "arguments": {}}',
     '{"name": "f", "arguments": NaN}', '{"name": "f", "arguments": "\\ud83d"}', "[" * 100_000],
)  # fmt: skip
def test_a_call_that_is_none_leaves_the_turn_as_content(body: str) -> None:
    """Half a call, and anything that is not {"name", "arguments"}, is text, and counted."""
    text = f"<tool_call>{body}</tool_call>"
    turn = parse_turn(text)
    assert turn.is_broken and turn.calls == ()
    assert turn.message == {"role": "assistant", "content": text}


def test_a_call_that_was_never_closed_is_text() -> None:
    assert parse_turn('<tool_call>{"name": "f", "arguments": {}}').is_broken


def test_one_broken_call_spoils_its_sound_neighbour() -> None:
    """As in vllm's parser: all or nothing."""
    assert parse_turn(f"{CALL}<tool_call>x</tool_call>").message.get("tool_calls") is None


@given(st.text())
def test_any_text_is_read(text: str) -> None:
    """Hostile text gives a message, never an error; without a call nothing of it is lost."""
    turn = parse_turn(text)
    if not turn.calls and not turn.reasoning[1]:
        assert turn.message["content"] == text


def test_sampled_turns_take_the_places_of_empty_assistant_messages() -> None:
    """An example in the prompt, which has words, stays where it is."""
    turns = [parse_turn("one"), parse_turn("two")]
    asked = [
        {"role": "assistant", "content": "an example"},
        {"role": "assistant"},
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": None},
    ]
    filled = fill(asked, turns)
    assert filled is not None
    assert [m["content"] for m in filled] == ["an example", "one", "?", "two"]


def test_a_prompt_is_followed_by_its_one_turn() -> None:
    filled = fill([{"role": "user", "content": "?"}], [parse_turn("one")])
    assert filled is not None and filled[-1]["content"] == "one"


def test_other_counts_have_no_conversation() -> None:
    assert fill([{"role": "user", "content": "?"}], [parse_turn("a"), parse_turn("b")]) is None
