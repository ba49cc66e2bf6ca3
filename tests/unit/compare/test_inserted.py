"""Rates of drift and the weight of inserted tokens, against what is known."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mismatch.compare import inserted


def test_wilson_s_interval_is_the_textbook_s() -> None:
    """8 of 10: Wilson (1927) gives [0.4902, 0.9433]."""
    found = inserted.fraction(8, 10)
    assert found["value"] == 0.8
    assert found["low"] == pytest.approx(0.4902, abs=5e-5)
    assert found["high"] == pytest.approx(0.9433, abs=5e-5)


def test_few_rollouts_have_no_interval() -> None:
    assert inserted.fraction(1, 7) == {"value": 1 / 7, "low": None, "high": None}


def test_no_rollout_is_no_evidence() -> None:
    assert inserted.fraction(0, 0)["value"] is None


def test_a_rate_that_was_never_seen_has_a_bound_above_zero() -> None:
    found = inserted.ratios({"x": (np.zeros(40), np.full(40, 10.0))}, 0)["x"]
    assert found["value"] == 0 and found["high"] == pytest.approx(1 - 0.025 ** (1 / 40))


def test_a_rate_per_1000_has_the_bound_of_a_share_a_thousand_times() -> None:
    """None in 40 sequences leaves 8.8% of their tokens open: 88 of 1,000, however long they are."""
    found = inserted.ratios({"x": (np.zeros(40), np.full(40, 10.0))}, 0, per=1000)["x"]
    assert found["value"] == 0 and found["high"] == pytest.approx(1000 * (1 - 0.025 ** (1 / 40)))


def test_no_interval_of_a_share_goes_beyond_the_whole() -> None:
    """Few sequences, some of which are all inserted: a share stays within [0, 1]."""
    rng = np.random.default_rng(0)
    for _ in range(20):
        flags = rng.random(320) < np.repeat(rng.choice([0.3, 1.0], 8, p=[0.3, 0.7]), 40)
        found = inserted.weights(np.repeat(np.arange(8), 40), -rng.exponential(1, 320), flags, 0)
        highs = [found[key]["high"] for key in ("tokens", "gradient", "loss")]
        assert all(high is None or high <= 1 for high in highs)


def test_the_interval_of_a_rate_holds_the_truth() -> None:
    """Sequences that share a rate of 0.1 but cluster: 95% intervals hold it 17 times of 20."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(20):
        weight = rng.integers(20, 60, 100)
        hits = rng.binomial(weight, rng.beta(2, 18, 100))
        found = inserted.ratios({"x": (hits, weight)}, 0)["x"]
        held += found["low"] <= 0.1 <= found["high"]  # type: ignore[operator]
    assert held >= 17


def test_the_gradient_s_share_is_that_of_its_1_norm() -> None:
    """Softmax in full: ||onehot - p||_1 of the inserted tokens over that of all."""
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (60, 7))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    token = rng.integers(7, size=60)
    gradient = np.eye(7)[token] - p
    flags = np.arange(60) % 5 == 0
    logprob = np.log(p[np.arange(60), token])
    found = inserted.weights(np.repeat(np.arange(12), 5), logprob, flags, 0)
    one, two = (np.linalg.norm(gradient, order, axis=1) for order in (1, 2))
    assert found["gradient"]["value"] == pytest.approx(one[flags].sum() / one.sum())
    least, most = found["gradient_norm2"]
    assert least <= two[flags].sum() / two.sum() <= most
    assert found["tokens"]["value"] == pytest.approx(0.2)
    assert found["loss"]["value"] == pytest.approx(logprob[flags].sum() / logprob.sum())
    assert found["gradient"]["low"] < found["gradient"]["value"] < found["gradient"]["high"]


def test_an_impossible_token_carries_almost_all() -> None:
    """p = e^-20 among tokens of p = 0.999: one in a hundred tokens has 91% of the gradient."""
    logprob = np.full(100, math.log(0.999))
    logprob[50] = -20
    found = inserted.weights(np.repeat(np.arange(10), 10), logprob, np.arange(100) == 50, 0)
    assert found["tokens"]["value"] == 0.01
    assert found["gradient"]["value"] == pytest.approx(1 / 1.099, rel=1e-3)


def test_no_token_has_no_median() -> None:
    found = inserted.values(np.zeros(0, int), np.zeros(0))
    assert found["tokens"] == 0 and found["median"]["value"] is None
