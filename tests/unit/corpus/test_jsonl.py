"""JSON lines and the corpus format: every fault names its file and line."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mismatch.corpus.jsonl import read_corpus, rows
from mismatch.errors import MismatchError


def a_file(folder: Path, *lines: Any) -> Path:
    """A .jsonl file; lines that are not text are written as JSON."""
    path = folder / "given.jsonl"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return path


def refusal(path: Path) -> MismatchError:
    with pytest.raises(MismatchError) as caught:
        read_corpus(path)
    return caught.value


def test_rows_are_numbered_by_line_and_blank_lines_skipped(tmp_path: Path) -> None:
    """The number is the one an editor shows, whatever blank lines stand between."""
    path = a_file(tmp_path, "", {"a": 1}, "   ", {"a": 2})
    assert list(rows(path)) == [(2, {"a": 1}), (4, {"a": 2})]


def test_a_byte_order_mark_and_crlf_are_tolerated(tmp_path: Path) -> None:
    """A file saved on Windows reads like any other."""
    path = tmp_path / "windows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n{"a": 2}\r\n')
    assert [row for _, row in rows(path)] == [{"a": 1}, {"a": 2}]


def test_a_line_separator_inside_text_does_not_end_a_line(tmp_path: Path) -> None:
    """U+2028 and U+0085 may stand unescaped in JSON text; only \\n ends a line."""
    text = "a\u2028b\u0085c"
    path = a_file(tmp_path, json.dumps({"prompt": text}, ensure_ascii=False))
    assert list(rows(path)) == [(1, {"prompt": text})]


@pytest.mark.parametrize(
    "line",
    ["{", "[1]", "3", "null", '"text"', "{} {}", "NaN", '{"a": NaN}', "[" * 100_000, "1" * 5000],
)
def test_a_line_that_is_no_object_names_file_and_line(tmp_path: Path, line: str) -> None:
    """Broken JSON, JSON of another kind and NaN literals are bad rows, with their place."""
    path = a_file(tmp_path, {"a": 1}, line)
    with pytest.raises(MismatchError) as caught:
        list(rows(path))
    assert caught.value.code == "bad-row"
    assert f"{path}, line 2:" in caught.value.message


@pytest.mark.parametrize("torn", ['{"a": [1, 2', '{"a": "tex', "{", '{"a": 1, "b":'])
def test_a_torn_line_is_told_as_one_of_the_file(tmp_path: Path, torn: str) -> None:
    """What a trainer that stopped leaves: the line of the file, where it ends, and what to do."""
    with pytest.raises(MismatchError) as caught:
        list(rows(a_file(tmp_path, {"a": 1}, "", torn, {"a": 2})))
    assert ", line 3: the line ends before its JSON does" in caught.value.message
    assert "line 1" not in caught.value.message and "drop a torn one" in caught.value.hint


@pytest.mark.parametrize("opened", ["{", "["])
def test_json_over_many_lines_is_told_to_be_one_object_a_line(tmp_path: Path, opened: str) -> None:
    """Its first line ends before its JSON does, as a torn one: what to do begins with the form."""
    with pytest.raises(MismatchError) as caught:
        list(rows(a_file(tmp_path, opened, '  "a": 1')))
    assert caught.value.hint.startswith("Write one JSON object on each line;")


def test_nan_literals_are_read_where_the_reader_asks(tmp_path: Path) -> None:
    """NaN and infinities are Python's addition to JSON: accepted only on request."""
    path = a_file(tmp_path, '{"a": [NaN, -Infinity]}')
    ((_, row),) = rows(path, nan=True)
    assert np.isnan(row["a"][0])
    assert row["a"][1] == -np.inf


@pytest.mark.parametrize("data", [b"", b"\n \n\t\n"])
def test_a_file_without_rows_selects_nothing(tmp_path: Path, data: bytes) -> None:
    """An empty file exits 3; it is never an empty success."""
    path = tmp_path / "empty.jsonl"
    path.write_bytes(data)
    assert (refusal(path).code, refusal(path).exit_code) == ("empty-input", 3)


def test_a_missing_file_a_folder_and_a_binary_file_are_told_apart(tmp_path: Path) -> None:
    """Each names the path and what is wrong with it."""
    assert refusal(tmp_path / "absent.jsonl").code == "file-missing"
    assert refusal(tmp_path).code == "file-unreadable"
    binary = tmp_path / "model.safetensors"
    binary.write_bytes(b'{"token_ids": [1]}\n\xff\xfe\x00\x01')
    assert refusal(binary).code == "file-unreadable"
    assert "line 2" in refusal(binary).message


def test_a_mask_of_ones_zeros_or_booleans_is_read(tmp_path: Path) -> None:
    """1 and true are scored; position 0 is not, whatever the mask says."""
    path = a_file(
        tmp_path,
        {"token_ids": [5, 6, 7], "loss_mask": [1, 0, 1]},
        {"token_ids": [5, 6, 7], "loss_mask": [True, True, False]},
        {"token_ids": [5, 6, 7], "note": "no mask"},
        {"token_ids": [2**31 - 1], "loss_mask": [1]},
    )
    corpus = read_corpus(path)
    assert [s.tolist() for s in corpus.scored] == [
        [False, False, True],
        [False, True, False],
        [False, True, True],
        [False],
    ]
    assert corpus.token_ids[3].tolist() == [2**31 - 1]
    assert all(ids.dtype == np.int32 for ids in corpus.token_ids)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "'token_ids' is missing"),
        ({"token_ids": None}, "token_ids is null, not a list"),
        ({"token_ids": "1 2"}, 'token_ids is "1 2", not a list'),
        ({"token_ids": []}, "token_ids is empty"),
        ({"token_ids": [1, True]}, "token_ids[1] is true"),
        ({"token_ids": [1, 2.0]}, "token_ids[1] is 2.0"),
        ({"token_ids": [1, -1]}, "token_ids[1] is -1"),
        ({"token_ids": [1, 2**31]}, "token_ids[1] is 2147483648"),
        ({"token_ids": [1, 10**300]}, "token_ids[1] is 1000"),
        ({"token_ids": [1, None]}, "token_ids[1] is null"),
        ({"token_ids": [1, [2]]}, "token_ids[1] is a list"),
        ({"token_ids": [1, 2], "loss_mask": [1]}, "loss_mask has 1 entries, token_ids has 2"),
        ({"token_ids": [1, 2], "loss_mask": [0, 2]}, "loss_mask[1] is 2"),
        ({"token_ids": [1, 2], "loss_mask": [0, 1.0]}, "loss_mask[1] is 1.0"),
        ({"token_ids": [1, 2], "loss_mask": [0, None]}, "loss_mask[1] is null"),
        ({"token_ids": [1, 2], "loss_mask": [0, {}]}, "loss_mask[1] is an object"),
        ({"token_ids": [1, 2], "loss_mask": None}, "loss_mask is null"),
    ],
)
def test_a_bad_field_is_named_with_its_value(tmp_path: Path, row: Any, said: str) -> None:
    """The sentence names file, line, field, index and what stands there."""
    path = a_file(tmp_path, {"token_ids": [1, 2]}, row)
    error = refusal(path)
    assert error.code == "bad-row"
    assert f"{path}, line 2:" in error.message
    assert said in error.message


def test_nothing_scored_at_all_is_its_own_outcome(tmp_path: Path) -> None:
    """A corpus whose masks select nothing exits 3; one unscored sequence among others is kept."""
    nothing = {"token_ids": [1, 2], "loss_mask": [1, 0]}
    path = a_file(tmp_path, nothing, {"token_ids": [9]})
    assert (refusal(path).code, refusal(path).exit_code) == ("nothing-scored", 3)
    assert len(read_corpus(a_file(tmp_path, nothing, {"token_ids": [1, 2]}))) == 2


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
ROW = st.fixed_dictionaries({}, optional={"token_ids": JSON, "loss_mask": JSON, "x": JSON})


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(value=JSON)
def test_values_are_read_as_json_reads_them(tmp_path: Path, value: Any) -> None:
    """The quick parser and Python's own agree on every value, to the last bit."""
    path = a_file(tmp_path, {"value": value})
    ((_, row),) = rows(path, nan=True)
    assert repr(row["value"]) == repr(value)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    data=st.binary() | st.lists(JSON | ROW).map(lambda v: "\n".join(map(json.dumps, v)).encode())
)
def test_garbage_never_gives_a_traceback(tmp_path: Path, data: bytes) -> None:
    """Any bytes are either a corpus or an error that a user can read."""
    path = tmp_path / "garbage.jsonl"
    path.write_bytes(data)
    with suppress(MismatchError):
        assert read_corpus(path).scored_tokens > 0
