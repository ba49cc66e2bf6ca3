"""Conditions and corpora."""

from __future__ import annotations

import numpy as np
import pytest

from mismatch.engines import parse_condition
from mismatch.errors import ERRORS, MismatchError
from mismatch.model import make_corpus, split_spec


def test_a_condition_is_read_from_its_own_spec() -> None:
    """Parsing the canonical text gives the same condition back."""
    given = parse_condition("vllm:eager=true,dtype=bf16,arg.max_model_len=512")
    assert given.options == {"eager": True, "dtype": "bf16", "arg.max_model_len": 512}
    assert parse_condition(given.spec) == given


def test_ids_are_readable_and_safe_folder_names() -> None:
    """dtype and attention come first; nothing that a path could be made of survives."""
    assert parse_condition("hf:attention=sdpa,dtype=bf16").id == "hf-bf16-sdpa"
    assert parse_condition("vllm:dtype=bf16,eager=true").id == "vllm-bf16-eager"
    assert parse_condition("vllm:eager=false").id == "vllm-no_eager"
    hostile = parse_condition("vllm:arg.x=../../etc").id
    assert "/" not in hostile and not hostile.startswith(".")


def test_lossy_ids_do_not_collide() -> None:
    """Two values that look alike as a folder name still get two ids."""
    assert parse_condition("vllm:arg.x=a/b").id != parse_condition("vllm:arg.x=a?b").id


def test_an_interpreter_is_not_part_of_the_condition() -> None:
    """`python=` names a place on one machine: neither spec nor id carries it."""
    named = parse_condition("hf:dtype=bf16,python=/somewhere/bin/python")
    assert named.spec == "hf:dtype=bf16" and named.id == "hf-bf16"


def test_a_colon_that_starts_no_option_does_not_split() -> None:
    """`python:file=x` splits at the colon before `name=`; a value may hold colons and slashes."""
    assert split_spec("hf:python=/a:b/python") == ("hf", {"python": "/a:b/python"})
    with pytest.raises(MismatchError):
        split_spec("hf:bf16")


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("hff:dtype=bf16", "unknown-engine", "Did you mean 'hf'?"),
        ("hf:dtpye=bf16", "unknown-option", "Did you mean 'dtype'?"),
        ("hf:dtype=bf61", "option-value", "Did you mean 'bf16'?"),
        ("hf:batch=0", "option-value", "all, or a whole number >= 1"),
        ("vllm:eager=yes", "option-value", "true|false"),
        ("hf:dtype=bf16,dtype=fp16", "condition-syntax", "ENGINE"),
        ("hf:dtype=", "condition-syntax", "ENGINE"),
        ("hf:url=http://h:1", "unknown-option", "arg.NAME=VALUE goes to the engine's constructor"),
        ("vllm:url=http://h:1,dtype=bf16", "unknown-option", "stays as the server was started"),
        ("sglang:url=http://h:1,tp=2", "unknown-option", "stays as the server was started"),
        ("python:plugin=x,dtype=bf16", "unknown-option", "arg.NAME=VALUE goes to your object"),
        ("", "condition-syntax", "ENGINE"),
    ],
)
def test_a_wrong_condition_says_what_would_be_right(text: str, code: str, hint: str) -> None:
    """Unknown engine, option and value each have their own error with a suggestion, exit 2."""
    with pytest.raises(MismatchError) as caught:
        parse_condition(text)
    assert caught.value.code == code and caught.value.exit_code == 2
    assert hint in caught.value.hint


def test_position_zero_is_never_scored() -> None:
    """Whatever the mask says, nothing precedes the first token."""
    corpus = make_corpus([(np.array([1, 2, 3]), np.array([1, 1, 0])), (np.array([4, 5]), None)])
    assert [s.tolist() for s in corpus.scored] == [[False, True, False], [False, True]]
    assert corpus.scored_tokens == 2


def test_a_corpus_is_named_by_its_content() -> None:
    """Ids, mask and where sequences end all count; the order of sequences too."""
    rows = [(np.array([1, 2, 3]), None), (np.array([4]), None)]
    base = make_corpus(rows).sha
    assert make_corpus(rows).sha == base
    assert make_corpus(rows[::-1]).sha != base
    assert make_corpus([(np.array([1, 2]), None), (np.array([3, 4]), None)]).sha != base
    assert make_corpus([(np.array([1, 2, 3]), np.array([0, 1, 0])), rows[1]]).sha != base


@pytest.mark.parametrize("code", ERRORS)
def test_every_error_says_what_happened_and_what_to_do(code: str) -> None:
    """Each row of the table formats, and its exit code is one of the documented ones."""

    class Any(dict):
        def __missing__(self, key: str) -> str:
            return f"<{key}>"

    entry = ERRORS[code]
    assert entry.message.format_map(Any()).strip()
    assert entry.exit_code in {1, 2, 3, 4, 5, 6, 7, 70, 130}
