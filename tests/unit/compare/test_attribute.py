"""Shares add up, an inert knob owns exactly nothing, a planted one what a hand computes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from mismatch.compare.attribute import Corners, attribute, shapley

SEQUENCE = np.repeat(np.arange(20), 30)
N = len(SEQUENCE)


@pytest.fixture
def rng() -> np.random.Generator:
    """One seed a test: tests run in any order."""
    return np.random.default_rng(7)


def _corners(n: int, value: object) -> Corners:
    """All corners of n knobs; value: bits -> (N,) log-probabilities."""
    bits = ["".join(b) for b in itertools.product("01", repeat=n)]
    return Corners(tuple("abcd"[:n]), {b: value(b) for b in bits}, SEQUENCE)  # type: ignore[operator]


def _random(n: int) -> Corners:
    draw = np.random.default_rng(n)
    return _corners(n, lambda b: -draw.exponential(1, N))


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_effects_sum_to_d_at_every_token(n: int) -> None:
    """The telescope closes whatever the corners hold."""
    corners = _random(n)
    d = corners.values["0" * n] - corners.values["1" * n]
    np.testing.assert_allclose(shapley(corners).sum(axis=0), d, atol=1e-12)
    found = attribute(corners, resamples=50)
    assert sum(k["share"]["value"] for k in found["knobs"]) == pytest.approx(1, abs=1e-9)
    assert found["method"] == "shapley" and found["residual"] < 1e-12


def test_two_knobs_are_the_mean_of_both_orders() -> None:
    """phi_a = half of (00 - 10) + (01 - 11), written out by hand."""
    v = _random(2)
    by_hand = (v.values["00"] - v.values["10"] + v.values["01"] - v.values["11"]) / 2
    np.testing.assert_allclose(shapley(v)[0], by_hand, atol=1e-12)


def test_an_inert_knob_owns_exactly_nothing(rng: np.random.Generator) -> None:
    """A knob that changes no bit at any corner has effect 0, share 0 and interval [0, 0]."""
    steps = rng.normal(0, 0.01, (3, N))

    def value(bits: str) -> np.ndarray:
        return -1 - sum(int(b) * s for b, s in zip(bits, steps, strict=True) if b != "c")

    inert = _corners(3, lambda b: value(b[:2] + "0"))
    found = {k["knob"]: k for k in attribute(inert, resamples=200)["knobs"]}
    assert not shapley(inert)[2].any()
    for key in ("share", "alone_share", "interaction", "alone_k3"):
        assert found["c"][key] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_additive_knobs_own_their_variance(rng: np.random.Generator) -> None:
    """Independent steps of sizes 3 and 1 own 90% and 10%, do not interact, and their ranks hold."""
    big, small = rng.normal(0, 0.03, N), rng.normal(0, 0.01, N)
    v = _corners(2, lambda b: -1 - int(b[0]) * big - int(b[1]) * small)
    first, second = attribute(v)["knobs"]
    assert (first["knob"], second["knob"]) == ("a", "b")
    assert first["share"]["value"] == pytest.approx(0.9, abs=0.03)
    assert first["share"]["low"] < 0.9 < first["share"]["high"]
    assert first["interaction"]["value"] == pytest.approx(0, abs=1e-12)
    assert first["resolved_from_next"] is True and second["resolved_from_next"] is None


def test_knobs_that_undo_each_other_are_printed_as_they_are(rng: np.random.Generator) -> None:
    """A share may be above 1 and another negative: nothing is clamped."""
    x = rng.normal(0, 0.01, N)
    v = _corners(2, lambda b: -1 - 2 * int(b[0]) * x + int(b[1]) * x)
    shares = [k["share"]["value"] for k in attribute(v, resamples=50)["knobs"]]
    assert shares == pytest.approx([2.0, -1.0], abs=1e-9)


def test_equal_knobs_are_not_resolved(rng: np.random.Generator) -> None:
    """Two knobs of one size: the first is not said to lead."""
    a, b = rng.normal(0, 0.01, (2, N))
    v = _corners(2, lambda c: -1 - int(c[0]) * a - int(c[1]) * b)
    assert attribute(v)["knobs"][0]["resolved_from_next"] is False


def test_a_path_is_labelled_and_still_sums(rng: np.random.Generator) -> None:
    """Five knobs have one order: steps along it, each knob alone beside."""
    steps = rng.normal(0, 0.01, (5, N))
    bits = ["00000", "10000", "11000", "11100", "11110", "11111"]
    bits += ["01000", "00100", "00010", "00001"]
    values = {b: -1 - sum(int(x) * s for x, s in zip(b, steps, strict=True)) for b in bits}
    found = attribute(Corners(tuple("abcde"), values, SEQUENCE), resamples=50)
    assert found["method"] == "path" and found["residual"] < 1e-12
    assert all(abs(k["interaction"]["value"]) < 1e-9 for k in found["knobs"])


def test_tokens_that_are_not_finite_are_left_out_and_counted() -> None:
    """NaN at one corner takes the token out of every corner."""
    v = _random(2)
    v.values["01"][:5] = np.nan
    v.values["10"][5] = -np.inf
    found = attribute(v, resamples=50)
    assert (found["dropped"], found["tokens"]) == (6, N - 6)


def test_nothing_left_is_no_evidence() -> None:
    """No token and no knob, never a share of 0."""
    found = attribute(_corners(1, lambda b: np.full(N, np.nan)), resamples=50)
    assert found["tokens"] == 0 and found["knobs"] == []


def test_the_interval_of_a_share_covers_it() -> None:
    """Of 200 draws of correlated tokens, the 95% interval holds the true share in 90% to 99%."""
    rng, hits, trials = np.random.default_rng(1), 0, 200
    for _ in range(trials):
        scale = np.repeat(rng.gamma(4, 0.25, 40), 20)
        steps = rng.normal(0, 0.01, (2, 800)) * scale * np.array([[2.0], [1.0]])
        values = {
            b: -1 - sum(int(x) * s for x, s in zip(b, steps, strict=True))
            for b in ("00", "01", "10", "11")
        }
        corners = Corners(("a", "b"), values, np.repeat(np.arange(40), 20))
        share = attribute(corners, resamples=300)["knobs"][0]["share"]
        hits += share["low"] <= 0.8 <= share["high"]
    assert 0.90 <= hits / trials <= 0.99
