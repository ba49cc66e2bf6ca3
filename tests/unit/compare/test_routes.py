"""Which experts two sides chose: counted by hand, and what chance leaves of an agreement."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mismatch import store
from mismatch.compare.align import read_tokens
from mismatch.compare.routes import beyond_chance, measure_routes, read_routes, replays, shared
from mismatch.model import make_corpus

RNG = np.random.default_rng(12)
EXPERTS, K = 8, 2


def drawn(n: int, layers: int = 1) -> np.ndarray:
    """(n, L, K) experts, K different ones of EXPERTS, each set as likely."""
    order = RNG.permuted(np.tile(np.arange(EXPERTS), (n, layers, 1)), axis=2)
    return order[:, :, :K].astype(np.int16)


def test_an_order_of_experts_is_no_other_route() -> None:
    """Sets are compared: two of two, one of two, none, and -1 where a side has no route."""
    left = np.array([[[1, 2]], [[1, 2]], [[1, 2]], [[-1, -1]]], np.int16)
    right = np.array([[[2, 1]], [[1, 3]], [[3, 4]], [[1, 2]]], np.int16)
    assert shared(left, right)[:, 0].tolist() == [2, 1, 0, -1]


def test_shares_are_those_counted_by_hand() -> None:
    """Three tokens of two layers: one all alike, one with one of two experts other in one layer,
    one with both other in both; a token without a route counts nothing.
    """
    left = np.array([[[0, 1], [2, 3]]] * 3 + [[[-1, -1], [-1, -1]]], np.int16)
    right = np.array([[[1, 0], [2, 3]], [[0, 1], [2, 4]], [[4, 5], [6, 7]], [[0, 1], [2, 3]]])
    d = np.array([0.1, 0.2, -0.4, 9.0])
    found = measure_routes(np.array([0, 0, 1, 1]), d, left, right.astype(np.int16), seed=0)
    values = {k: e["value"] for k, e in found["metrics"].items()}
    assert found["tokens"] == 3 and (found["layers"], found["experts_per_token"]) == (2, 2)
    assert values["router_flip_rate"] == pytest.approx(3 / 6)
    assert values["token_flip_rate"] == pytest.approx(2 / 3)
    assert values["expert_miss_rate"] == pytest.approx(5 / 12)
    assert [r["router_flip_rate"]["value"] for r in found["by_layer"]] == pytest.approx(
        [1 / 3, 2 / 3]
    )
    agree, differ = found["by_agreement"]
    assert (agree["tokens"], differ["tokens"]) == (1, 2)
    assert agree["metrics"]["abs_logprob_diff_mean"]["value"] == pytest.approx(0.1)
    assert differ["metrics"]["abs_logprob_diff_mean"]["value"] == pytest.approx(0.3)
    k3 = np.mean(np.expm1(d[1:3]) - d[1:3])
    assert differ["metrics"]["k3"]["value"] == pytest.approx(k3)


def test_a_flip_that_was_not_seen_has_a_bound() -> None:
    """Equal routes of ten sequences: the rate is 0, and its upper bound is not."""
    routes, sequence = drawn(200), np.repeat(np.arange(10), 20)
    rate = measure_routes(sequence, np.zeros(200), routes, routes, seed=0)["metrics"]
    assert rate["token_flip_rate"]["value"] == 0 < rate["token_flip_rate"]["high"] < 0.5


def test_independent_choices_agree_no_better_than_chance() -> None:
    """Beyond chance: 1 for equal sets, 0 for independent ones, whether experts are used alike or
    one of them is always there, and the share of agreeing tokens in between.
    """
    left, right = drawn(20_000), drawn(20_000)
    assert beyond_chance(left[:, 0], left[:, 0, ::-1], EXPERTS) == 1.0
    assert abs(beyond_chance(left[:, 0], right[:, 0], EXPERTS)) < 0.02
    always = [np.where(np.arange(K) == 0, 0, 1 + side % (EXPERTS - 1)) for side in (left, right)]
    assert abs(beyond_chance(always[0][:, 0], always[1][:, 0], EXPERTS)) < 0.02
    half = np.where(np.arange(20_000)[:, None, None] < 10_000, left, right)
    assert beyond_chance(left[:, 0], half[:, 0], EXPERTS) == pytest.approx(0.5, abs=0.02)


def test_a_rate_is_no_more_than_all_and_an_infinite_d_is_no_warning() -> None:
    """Where all tokens but one go another way the bound is 1; means leave out what is not finite,
    and count what is left."""
    left = np.zeros((40, 1, 1), np.int16)
    right = np.where(np.arange(40) == 3, 0, 1).astype(np.int16)[:, None, None]
    d = np.where(np.arange(40) == 5, np.inf, 800.0)
    found = measure_routes(np.arange(40) // 4, d, left, right, seed=0)
    assert found["metrics"]["token_flip_rate"]["high"] <= 1
    assert [g["tokens"] for g in found["by_agreement"]] == [1, 38]


def test_routers_that_chance_alone_makes_agree_say_nothing() -> None:
    """One expert in use on both sides: no agreement is beyond chance."""
    assert np.isnan(beyond_chance(np.zeros((9, 1), np.int16), np.zeros((9, 1), np.int16), 1))


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (None, drawn(4)),
        (drawn(4), None),
        (drawn(4), drawn(4, layers=2)),
        (np.full((4, 1, K), -1, np.int16), drawn(4)),
    ],
    ids=["no left", "no right", "other layers", "nothing known"],
)
def test_nothing_is_said_where_nothing_can_be_compared(left: Any, right: Any) -> None:
    """A side without routes, of other layers, or with no position known."""
    assert measure_routes(np.arange(4), np.zeros(4), left, right, seed=0) == {}


def test_a_value_is_held_against_the_route_of_the_position_before(tmp_path: Path) -> None:
    """What was sealed for position p is read for the token at p + 1, across sequences."""
    ids = [np.arange(5), np.arange(4)]
    corpus = make_corpus([(ids[0], np.array([0, 0, 1, 0, 1])), (ids[1], None)])
    routes = [drawn(5, 3), drawn(4, 3)]

    def fill(aside: Path) -> None:
        store.write_trace_tokens(
            aside / "tokens.parquet", corpus, [np.zeros(5, np.float32), np.zeros(4, np.float32)]
        )
        store.write_routes(aside / store.ROUTES, corpus, routes)

    folder = tmp_path / "c" / "score-1"
    store.seal(folder, fill, {"kind": "trace"})
    found = read_routes(folder, read_tokens(folder))
    assert found is not None and found.dtype == np.int16
    np.testing.assert_array_equal(found, np.concatenate([routes[0][[1, 3]], routes[1][[0, 1, 2]]]))


def test_only_a_side_that_replayed_says_so() -> None:
    """The words are the guest's."""
    assert replays({"facts": {"routes": {"tokens": 4, "replay": "4 of 4"}}}) == "4 of 4"
    assert replays({"facts": {"routes": {"tokens": 4}}}) is None
    assert replays({"facts": {}}) is None
