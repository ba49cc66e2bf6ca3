"""Divergences from top-k: exact over the whole vocabulary, lower bounds otherwise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mismatch import store, wire
from mismatch.compare.align import read_tokens
from mismatch.compare.distribution import Top, columns, measure_distribution, read_top
from mismatch.model import make_corpus

RNG = np.random.default_rng(3)  # nothing below depends on what is drawn
N, V = 200, 40


def _logprobs(spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Two (N, V) tables of log-probabilities near each other."""
    x = RNG.normal(0, 2, (N, V))
    tables = [x, x + RNG.normal(0, spread, (N, V))]
    p, q = (t - np.logaddexp.reduce(t, -1, keepdims=True) for t in tables)
    return p, q


def _top(table: np.ndarray, k: int) -> Top:
    ids = np.argsort(-table, axis=1, kind="stable")[:, :k]
    return Top(ids, np.take_along_axis(table, ids, 1))


def _exact(p: np.ndarray, q: np.ndarray) -> dict[str, np.ndarray]:
    m = np.log((np.exp(p) + np.exp(q)) / 2)

    def kl(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (np.exp(a) * (a - b)).sum(1)

    return {
        "kl_infer_train_lb": kl(q, p),
        "kl_train_infer_lb": kl(p, q),
        "js_lb": (kl(p, m) + kl(q, m)) / 2,
        "tv_lb": np.abs(np.exp(p) - np.exp(q)).sum(1) / 2,
    }


def test_the_whole_vocabulary_gives_the_exact_divergences() -> None:
    """With K = V nothing is left over: KL both ways, JS and TV equal their definitions."""
    p, q = _logprobs(0.3)
    found = columns(_top(p, V), _top(q, V))
    for key, truth in _exact(p, q).items():
        np.testing.assert_allclose(found[key], truth, atol=2e-5)


@pytest.mark.parametrize("k", [1, 2, 5, 20])
@pytest.mark.parametrize("spread", [0.01, 1.0])
def test_fewer_tokens_give_lower_bounds(k: int, spread: float) -> None:
    """At every position, never below 0; and more tokens never loosen the mean."""
    p, q = _logprobs(spread)
    found, more = columns(_top(p, k), _top(q, k)), columns(_top(p, 2 * k), _top(q, 2 * k))
    for key, truth in _exact(p, q).items():
        assert (found[key] <= truth + 2e-5).all() and (found[key] >= 0).all()
        assert found[key].mean() <= more[key].mean() + 2e-5


def test_scoring_the_other_sides_tokens_leaves_no_more_in_the_bucket_than_it_does() -> None:
    """With q's three tokens scored by p too, the partition is those three and the rest."""
    p, q = _logprobs(1.0)
    right, own = _top(q, 3), _top(p, 1)
    more = wire.others(right.ids, own.ids)
    ids = np.concatenate([own.ids, more], axis=1)
    left = Top(ids, np.where(ids < 0, np.nan, np.take_along_axis(p, np.maximum(ids, 0), 1)))
    found = columns(left, right)["kl_infer_train_lb"]
    parts = [np.take_along_axis(np.exp(x), right.ids, 1) for x in (q, p)]
    a, b = (np.concatenate([x, 1 - x.sum(1, keepdims=True)], axis=1) for x in parts)
    np.testing.assert_allclose(found, (a * np.log(a / b)).sum(1), atol=1e-6)
    assert found.mean() > columns(own, right)["kl_infer_train_lb"].mean()


def test_flips_are_counted_at_rank_0() -> None:
    """top1_flip_rate is the share of positions whose likeliest tokens differ."""
    p, q = _logprobs(1.0)
    flips = columns(_top(p, 3), _top(q, 3))["top1_flip_rate"]
    assert flips.mean() == np.mean(p.argmax(1) != q.argmax(1)) > 0


def test_a_position_without_a_likeliest_token_neither_flips_nor_agrees() -> None:
    """Where a side gave no id, top1_flip_rate is unknown, not a flip."""
    p, q = _logprobs(1.0)
    left, right = _top(p, 3), _top(q, 3)
    left.ids[:5], left.ids[10], right.ids[10] = -1, -1, -1
    flips = columns(left, right)["top1_flip_rate"]
    assert np.flatnonzero(np.isnan(flips)).tolist() == [0, 1, 2, 3, 4, 10]


def test_a_top_k_that_holds_no_token_is_read_as_none(tmp_path: Path) -> None:
    """An engine that gave no rank at all leaves an empty table: every id is -1."""
    corpus = make_corpus([(np.arange(4), None)])
    nothing = [np.full((4, 2), -1, np.int32)]

    def fill(aside: Path) -> None:
        store.write_trace_tokens(aside / "tokens.parquet", corpus, [np.zeros(4, np.float32)])
        store.write_topk(aside / "topk.parquet", corpus, nothing, [np.zeros((4, 2), np.float32)])

    store.seal(tmp_path / "score-1", fill, {"kind": "trace"})
    top = read_top(tmp_path / "score-1", read_tokens(tmp_path / "score-1"))
    assert top is not None
    assert (top.ids == -1).all()
    assert np.isnan(columns(top, top)["top1_flip_rate"]).all()


def test_equal_sides_are_exactly_zero() -> None:
    """The same top-k on both sides: every divergence is 0."""
    p, _ = _logprobs(1.0)
    found = columns(_top(p, 4), _top(p, 4))
    assert all(not found[key].any() for key in found)


def test_topk_survives_the_store(tmp_path: Path) -> None:
    """Written for scored positions alone, read back on them, with missing ranks as -1."""
    corpus = make_corpus([(np.arange(5), np.array([0, 0, 1, 1, 1])), (np.arange(4), None)])
    ids = [RNG.integers(0, 9, (len(i), 3)).astype(np.int32) for i in corpus.token_ids]
    logprobs = [-RNG.exponential(1, i.shape).astype(np.float32) for i in ids]
    ids[0][2, 2] = -1

    def fill(aside: Path) -> None:
        values = [np.zeros(len(i), np.float32) for i in corpus.token_ids]
        store.write_trace_tokens(aside / "tokens.parquet", corpus, values, {"entropy": values})
        store.write_topk(aside / "topk.parquet", corpus, ids, logprobs)

    store.seal(tmp_path / "c" / "score-1", fill, {"kind": "trace"})
    tokens = read_tokens(tmp_path / "c" / "score-1")
    top = read_top(tmp_path / "c" / "score-1", tokens)
    assert top is not None and list(tokens.beside) == ["entropy"]
    keep = np.concatenate(corpus.scored)
    np.testing.assert_array_equal(top.ids, np.concatenate(ids)[keep])
    there = top.ids >= 0
    np.testing.assert_array_equal(top.logprobs[there], np.concatenate(logprobs)[keep][there])
    assert top.logprobs[0, 2] == -np.inf


def test_means_have_intervals_over_sequences() -> None:
    """Each column's mean over tokens, with an interval from 8 sequences on, null below."""
    sequence = np.repeat(np.arange(10), 20)
    found = measure_distribution(sequence, {"tv_lb": RNG.random(200)}, seed=0)
    low, value, high = (found["tv_lb"][k] for k in ("low", "value", "high"))
    assert low is not None and value is not None and high is not None and low < value < high
    few = measure_distribution(sequence[:100], {"tv_lb": RNG.random(100)}, seed=0)
    assert few["tv_lb"]["low"] is None
