"""Rollouts whose drift is known, down both roads: one cause each."""

from __future__ import annotations

import numpy as np
import pytest

from mismatch.retokenize import drift
from mismatch.retokenize.drift import Drift
from mismatch.retokenize.rollouts import Rollout
from tests.unit.retokenize.pieces import END, PIECES, answer, encode, ids_of, rollout

SPECIAL = {END}


def _read(row: Rollout) -> drift.Read:
    return drift.read(row, answer(row.ids.tolist()), SPECIAL)


def _by_template(row: Rollout, rendered: str) -> Drift:
    return drift.by_template(row, _read(row), answer(encode(rendered)), SPECIAL)


def _inserted(found: Drift) -> str:
    return "".join(PIECES[i] for i in found.ids[found.inserted])


CALL = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>'


@pytest.mark.parametrize(
    ("sampled", "rendered", "cause"),
    [
        ('<tool_call>{ "name":"f","arguments" : {"a":1}}</tool_call>', CALL, "tool_whitespace"),
        (f"\n{CALL}", CALL, "tool_whitespace"),
        (f"{CALL}\n", CALL, "tool_whitespace"),
        ('<tool_call>{"arguments": {"a": 1}, "name": "f"}</tool_call>', CALL, "tool_json"),
        ('<tool_call>{"name": "f", "arguments": {"a": 1}, "id": 7}</tool_call>', CALL, "tool_json"),
        ('<tool_call>{"name": "\\u0066", "arguments": {"a": 1}}</tool_call>', CALL, "tool_json"),
        (f"<think>hm</think>{CALL}", CALL, "reasoning"),
        (f"<think>hm </think>{CALL}", f"<think>hm</think>{CALL}", "reasoning"),
        (f"{CALL} so", CALL, "dropped"),
        ("hello  ", "hello", "whitespace"),
        ("yes", "no!", "other"),
    ],
)
def test_each_cause_is_named(sampled: str, rendered: str, cause: str) -> None:
    """A turn that a template gave back otherwise, for one reason alone."""
    row = rollout(("user:?bot:", False), (f"{sampled}<end>", True))
    found = _by_template(row, f"user:?bot:{rendered}<end>")
    assert set(found.causes) == {cause}


def test_an_odd_call_is_repaired_by_tokens_that_were_never_sampled() -> None:
    """What replaces a sampled id is inserted; the ids around it are kept."""
    row = rollout(("bot:", False), (CALL.replace('{"a": 1}', '{"a":1}') + "<end>", True))
    found = _by_template(row, f"bot:{CALL}<end>")
    assert found.causes == ("tool_whitespace",) and found.lost == (1,)
    assert _inserted(found) == ": "
    assert found.trained.sum() == row.sampled.sum() and found.trained[found.inserted].all()


def test_other_tokens_of_the_same_text_are_bpe() -> None:
    """he, llo and hello are one text: both roads see it, and call it the same."""
    ids = ids_of("bot:", "he", "llo", "<end>")
    row = Rollout(np.array(ids, np.int32), np.arange(4) >= 1, None, None, "")
    read = _read(row)
    again = [answer(encode("hello<end>"))]
    for found in (drift.by_text(row, read, again), _by_template(row, "bot:hello<end>")):
        assert found.causes == ("bpe",) and _inserted(found) == "hello"
        assert found.ids.tolist() == ids_of("bot:", "hello", "<end>") and found.lost == (2,)


def test_spans_that_are_one_text_together_are_bpe() -> None:
    """`"} }}` against `" }} }`: the matcher pairs the braces, and leaves two spans of two texts."""
    ids = [PIECES.index(p) for p in ('"}', "}}", "<end>")]
    new = [PIECES.index(p) for p in ('"', "}}", "}", "<end>")]
    row = Rollout(np.array(ids, np.int32), np.ones(3, bool), None, None, "")
    found = drift.by_template(row, _read(row), answer(new), SPECIAL)
    assert found.causes == ("bpe", "bpe")


def test_what_stands_around_the_runs_stays_in_the_text_road() -> None:
    """Only sampled ids are encoded anew: a prompt that is no canonical text is not our affair."""
    ids = ids_of("he", "llo", "bot:", "he", "llo", "user:", "he", "llo")
    mask = np.array([0, 0, 0, 1, 1, 0, 0, 0], bool)
    row = Rollout(np.array(ids, np.int32), mask, None, None, "")
    found = drift.by_text(row, _read(row), [answer(encode("hello"))])
    assert found.ids.tolist() == ids_of("he", "llo", "bot:", "hello", "user:", "he", "llo")
    assert found.text.text == "hellobot:hellouser:hello" and found.text.of(3, 4) == "hello"
    assert found.trained.tolist() == [False] * 3 + [True] + [False] * 3


def test_half_a_character_is_not_text() -> None:
    """Its replacement character is encoded as other bytes than were sampled."""
    row = rollout(("bot:", False), ("a\ufffd", True))
    found = drift.by_text(row, _read(row), [answer(encode("ahe"))])
    assert found.causes == ("not_text",)


def test_a_cut_turn_is_closed_by_the_template() -> None:
    row = rollout(("bot:", False), ("hello", True))
    found = _by_template(row, "bot:hello<end>\n")
    assert found.causes == ("turn_end",) and _inserted(found) == "<end>"


def test_a_line_break_after_the_last_turn_is_no_drift_of_the_policy() -> None:
    row = rollout(("bot:", False), ("hello<end>", True))
    found = _by_template(row, "bot:hello<end>\n")
    assert found.causes == ("prompt",) and not found.inserted.any()


def test_a_prompt_that_comes_back_otherwise_is_told_apart() -> None:
    row = rollout(("user:a bot:", False), ("hello<end>", True))
    found = _by_template(row, "user:b bot:hello<end>")
    assert found.causes == ("prompt",) and found.lost == (0,)


def test_only_the_turn_that_changed_has_a_cause() -> None:
    """Two turns: the first one's reasoning is stripped, the second one keeps its own."""
    first = ("<think>hm</think>hello<end>", True)
    second = ("<think>so</think>hello<end>", True)
    row = rollout(("bot:", False), first, ("user:?bot:", False), second)
    found = _by_template(row, "bot:hello<end>user:?bot:<think>so</think>hello<end>")
    assert found.causes == ("reasoning",) and found.lost == (4,) and not found.inserted.any()


def test_two_causes_in_one_turn_are_both_named() -> None:
    odd = '<think>hm</think><tool_call>{"name":"f","arguments":{"a":1}}</tool_call><end>'
    row = rollout(("bot:", False), (odd, True))
    assert set(_by_template(row, f"bot:{CALL}<end>").causes) == {"reasoning", "tool_whitespace"}


def test_a_prompt_that_is_cut_otherwise_is_no_drift_of_the_policy() -> None:
    """Equal text, or half a character: where no sampled id is touched, the cause is the prompt."""
    for before, after in ((("he", "llo"), "hello"), (("\ufffd",), "a")):
        ids = ids_of("user:", *before, "bot:") + encode(f"{CALL}<end>")
        mask = np.arange(len(ids)) >= 2 + len(before)
        row = Rollout(np.array(ids, np.int32), mask, None, None, "")
        found = _by_template(row, f"user:{after}bot:{CALL}<end>")
        assert found.causes == ("prompt",) and found.lost == (0,) and not found.inserted.any()


def test_what_stands_behind_a_call_does_not_change_its_cause() -> None:
    """A turn cut right behind its call, or ended by another token: the call lost a blank alone."""
    for behind, cause in (("", "turn_end"), ("<think>", "dropped")):
        sampled = CALL.replace('{"a": 1}', '{"a":1}') + behind
        found = _by_template(rollout(("bot:", False), (sampled, True)), f"bot:{CALL}<end>")
        assert found.causes == ("tool_whitespace", cause)


def test_the_end_of_a_cut_turn_has_its_cause_where_it_replaces_what_followed() -> None:
    """What was trained on and never sampled is no drift of the prompt."""
    row = rollout(("bot:", False), ("hello", True), ("\n", False))
    found = _by_template(row, "bot:hello<end>")
    assert found.causes == ("turn_end",) and _inserted(found) == "<end>"
