"""How a request is made up, and how vllm's answer is read. No vllm is imported."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from mismatch.engines.vllm import requests


def _flat(rows: list[list[tuple[int, float]]]) -> SimpleNamespace:
    ends = np.cumsum([len(r) for r in rows]).tolist()
    return SimpleNamespace(
        start_indices=[0, *ends[:-1]],
        end_indices=ends,
        token_ids=[i for row in rows for i, _ in row],
        logprobs=[v for row in rows for _, v in row],
    )


def test_a_request_overrides_the_checkpoints_defaults() -> None:
    """T = 1 unless the checkpoint's defaults say else, and the request has the last word."""
    assert requests.sampling({}, {}) == {"temperature": 1.0}
    got = requests.sampling({"top_k": 3, "batch": 4}, {"temperature": 0.6, "top_k": 20})
    assert got == {"temperature": 0.6, "top_k": 3}


def test_a_greedy_default_is_refused() -> None:
    """A checkpoint whose defaults are greedy needs a temperature from the request."""
    with pytest.raises(ValueError, match="greedy"):
        requests.sampling({}, {"temperature": 0.0})
    assert requests.sampling({"temperature": 0.5}, {"temperature": 0.0})["temperature"] == 0.5


def test_the_own_value_topk_and_entropy_are_told_apart() -> None:
    """First the token's own entry, then the likeliest, then the entropy under its mark."""
    want = requests.asked({"topk": 2, "entropy": True}, 64)
    values = want.blank(3)
    answer = _flat([
        [(5, -1.0), (9, -0.5), (5, -1.0), (requests.ENTROPY_ID, 0.8)],
        [(6, -np.inf), (9, 0.0), (7, -np.inf), (requests.ENTROPY_ID, 0.0)],
    ])  # fmt: skip
    requests.fill(values, 1, answer, [5, 6], want)
    assert want.columns == 3
    assert np.isnan(values.logprobs[0]) and values.logprobs[1:].tolist() == [-1.0, -np.inf]
    assert values.top_ids is not None and values.top_logprobs is not None
    assert values.top_ids.tolist() == [[-1, -1], [9, 5], [9, -1]]
    assert np.isnan(values.top_logprobs[2, 1])
    assert values.entropy is not None
    np.testing.assert_array_equal(values.entropy, np.array([np.nan, 0.8, 0.0], np.float32))


def test_a_small_vocabulary_fills_what_it_has() -> None:
    """More than the vocabulary is not asked of the engine; the rest of the columns say nothing."""
    want = requests.asked({"topk": 5}, 2)
    values = want.blank(1)
    requests.fill(values, 0, _flat([[(0, -0.1), (0, -0.1), (1, -2.0)]]), [0], want)
    assert values.top_ids is not None
    assert want.columns == 2 and values.top_ids.tolist() == [[0, 1, -1, -1, -1]]


def test_a_prompts_first_position_says_nothing() -> None:
    """vllm has no value for it; an entry about another id than the one sent is no value either."""
    values = requests.Asked().blank(3)
    requests.fill(values, 0, _flat([[], [(5, -1.0)], [(9, -2.0)]]), [4, 5, 6], requests.Asked())
    np.testing.assert_array_equal(values.logprobs, np.array([np.nan, -1.0, np.nan], np.float32))


def test_an_answer_of_another_width_is_an_error() -> None:
    """An engine that gives fewer log-probabilities than were asked is not read as if it had."""
    want = requests.asked({"topk": 2}, 64)
    with pytest.raises(RuntimeError, match="3 for 1 were asked"):
        requests.fill(want.blank(1), 0, _flat([[(5, -1.0), (9, -0.5)]]), [5], want)


def test_what_was_never_an_input_has_no_route() -> None:
    """Positions after the inputs have -1, though the engine may have run one more; fewer than the
    inputs are an error.
    """
    routes = np.ones((4, 3, 2), np.int16)
    got = requests.with_routes(requests.Asked().blank(4), routes, 3, 4).routes
    assert got is not None and (got[:3] == 1).all() and (got[3] == -1).all()
    with pytest.raises(RuntimeError, match="routes of 4 of 5 tokens"):
        requests.with_routes(requests.Asked().blank(6), routes, 5, 6)
