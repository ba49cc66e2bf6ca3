"""Prompts: three forms, one at a time, and clear words for anything else."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mismatch.corpus.prompts import read_prompts
from mismatch.errors import MismatchError

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2+2?"}]


def a_file(folder: Path, *rows: Any) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def refusal(path: Path, limit: int | None = None) -> MismatchError:
    with pytest.raises(MismatchError) as caught:
        read_prompts(path, limit)
    return caught.value


def test_the_three_forms_are_read_and_other_keys_dropped(tmp_path: Path) -> None:
    """Text, messages and ids come back with their own key alone."""
    forms = [{"prompt": "2+2?"}, {"messages": CHAT}, {"token_ids": [1, 2, 3]}]
    path = a_file(tmp_path, *({**form, "answer": "4", "id": 7} for form in forms))
    assert read_prompts(path, None) == forms


def test_messages_keep_their_own_keys_for_the_template(tmp_path: Path) -> None:
    """Tool calls, names and content parts reach the chat template untouched."""
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "weather?"}], "name": "ann"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
        {"role": "tool", "content": "", "tool_call_id": "1"},
    ]
    assert read_prompts(a_file(tmp_path, {"messages": turns}), None) == [{"messages": turns}]


def test_a_limit_takes_the_first_prompts_and_reads_no_further(tmp_path: Path) -> None:
    """Rows after the limit may be anything; a limit above the count takes all."""
    path = a_file(tmp_path, {"prompt": "a"}, {"prompt": "b"}, {"prompt": 3})
    assert read_prompts(path, 2) == [{"prompt": "a"}, {"prompt": "b"}]
    assert len(read_prompts(a_file(tmp_path, {"prompt": "a"}), 9)) == 1


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_selects_nothing_is_refused(tmp_path: Path, limit: int) -> None:
    """No prompts would mean nothing compared."""
    assert refusal(a_file(tmp_path, {"prompt": "a"}), limit).exit_code == 2


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a"}, "the row has no prompt"),
        ({"prompt": "a", "token_ids": [1]}, "the row has prompt and token_ids"),
        ({"prompt": 3}, "prompt is 3, not text"),
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": "a\ud83d"}, "half of a surrogate pair"),
        ({"messages": []}, "not a list of messages"),
        ({"messages": "hi"}, 'messages is "hi"'),
        ({"messages": ["hi"]}, 'messages[0] is "hi", not an object'),
        ({"messages": [*CHAT, {"content": "x"}]}, "messages[2] has no role"),
        ({"messages": [{"role": 1, "content": "x"}]}, "messages[0] has role 1"),
        ({"messages": [{"role": "user"}]}, "messages[0] has no content"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0] has content 5"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0] has content null"),
        ({"messages": [{"role": "user", "content": ["x"]}]}, "messages[0] has content a list"),
        ({"messages": [{"role": "user", "content": "\udc00"}]}, "half of a surrogate pair"),
        ({"token_ids": []}, "token_ids is empty"),
        ({"token_ids": [1, 1.5]}, "token_ids[1] is 1.5"),
    ],
)
def test_a_bad_row_says_what_is_wrong_and_where(tmp_path: Path, row: Any, said: str) -> None:
    """The sentence names file and line, and the words fit the fault."""
    path = a_file(tmp_path, {"prompt": "fine"}, row)
    error = refusal(path)
    assert error.code == "bad-row"
    assert f"{path}, line 2:" in error.message
    assert said in error.message


def test_an_empty_file_selects_nothing(tmp_path: Path) -> None:
    """No prompts at all is exit 3."""
    assert refusal(a_file(tmp_path)).code == "empty-input"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
MESSAGE = st.fixed_dictionaries({}, optional={"role": JSON, "content": JSON, "tool_calls": JSON})
ROW = st.fixed_dictionaries(
    {}, optional={"prompt": JSON, "token_ids": JSON, "messages": JSON | st.lists(MESSAGE)}
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(found=st.lists(ROW | JSON, max_size=3))
def test_garbage_never_gives_a_traceback(tmp_path: Path, found: list[Any]) -> None:
    """Any rows are either prompts of one key that can be written again, or a readable error."""
    with suppress(MismatchError):
        for prompt in read_prompts(a_file(tmp_path, *found), None):
            assert len(prompt) == 1
            json.dumps(prompt, ensure_ascii=False, allow_nan=False).encode("utf-8")
