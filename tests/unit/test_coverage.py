"""The study of coverage: its truth is the truth, and its counts are those of `measure` and gate."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from bench.coverage import draws, page, study
from bench.coverage.draws import SETTINGS


@pytest.mark.parametrize("setting", [name for name, s in SETTINGS.items() if not s.spread])
def test_the_truth_of_a_normal_tail_is_the_closed_form(setting: str) -> None:
    """k1, k2, k3, mean |d| (a folded normal) and both excesses."""
    found = draws.truth("normal", SETTINGS[setting], points=801)
    mean, rms, one = draws.GAP_MEAN, draws.GAP_RMS, SETTINGS[setting]
    share, floor = one.sparse, one.floor_rms
    variance = rms**2 - mean**2
    k3 = math.exp(mean + variance / 2) - 1 - mean
    folded = math.sqrt(2 * variance / math.pi) * math.exp(-(mean**2) / (2 * variance))
    folded -= mean * math.erf(-mean / math.sqrt(2 * variance))
    assert found["k1"] == pytest.approx(-mean)
    assert found["k2"] == pytest.approx(rms**2 / 2)
    assert found["k3"] == pytest.approx(k3)
    assert found["abs_logprob_diff_mean"] == pytest.approx(folded, rel=1e-5)
    assert found["excess.k2"] == pytest.approx((rms**2 - floor**2) / 2)
    assert found["excess.k3"] == pytest.approx(k3 - share * math.expm1(floor**2 / share / 2))


@pytest.mark.parametrize("tail", draws.TAILS)
def test_what_is_drawn_has_the_moments_of_the_tail(tail: str) -> None:
    """Mean 0, variance 1, and mean |x| as its quantiles give it, from 400,000 draws."""
    x = draws.draw(tail, np.random.default_rng(5), 400_000)
    z = np.linspace(-7, 7, 2001)
    weight = np.exp(-(z**2) / 2) / np.exp(-(z**2) / 2).sum()
    assert np.mean(x) == pytest.approx(0, abs=0.01)
    assert np.mean(x**2) == pytest.approx(1, rel=0.03)
    assert np.mean(np.abs(x)) == pytest.approx(weight @ np.abs(draws.standard(tail, z)), rel=0.01)


def test_tokens_of_a_sequence_correlate_as_stated() -> None:
    """The correlation of d inside a sequence of the strong setting is 0.25, within 0.02."""
    rng = np.random.default_rng(6)
    gap, _ = draws.gap_and_floors("normal", SETTINGS["strong"], 4000, rng)
    d = gap.lp_train.astype(float) - gap.lp_infer - draws.GAP_MEAN
    starts = np.flatnonzero(np.diff(gap.sequence, prepend=-1))
    assert np.mean(d[starts] * d[starts + 1]) / np.mean(d**2) == pytest.approx(0.25, abs=0.04)


def test_a_sparse_floor_moves_few_sequences_and_has_the_rms_stated() -> None:
    """One sequence of ten, 0.003 nats over all tokens; within 3% and 10% on 4,000."""
    one = SETTINGS["sparse floors"]
    _, floors = draws.gap_and_floors("normal", one, 4000, np.random.default_rng(7))
    floor = floors["batch"]["train"][0]
    d = floor.lp_train.astype(float) - floor.lp_infer
    starts = np.flatnonzero(np.diff(floor.sequence, prepend=-1))
    assert np.mean(d[starts] != 0) == pytest.approx(one.sparse, abs=0.03)
    assert np.sqrt(np.mean(d**2)) == pytest.approx(one.floor_rms, rel=0.1)


@pytest.fixture(scope="module")
def easy() -> Counter[str]:
    """60 trials of 50 sequences that hardly matter."""
    cell = study.Cell("weak", "t5", 50, trials=60)
    true = draws.truth("t5", SETTINGS["weak"], points=801)
    return sum((study.trial(cell, true, k) for k in range(cell.trials)), Counter())


@pytest.mark.parametrize("key", study.KEYS)
def test_an_easy_cell_covers(key: str, easy: Counter[str]) -> None:
    """At least 51 of 60 intervals hold the truth, and no more than 6 are marked."""
    assert easy[f"{key} above"] + easy[f"{key} below"] <= 9
    assert easy[f"{key} marked"] <= 6


@pytest.mark.parametrize("key", study.KEYS)
def test_a_limit_at_the_truth_errs_where_the_interval_misses(key: str, easy: Counter[str]) -> None:
    """Passes are the unmarked intervals below the truth, fails those above it."""
    assert easy[f"{key} pass"] == easy[f"{key} below"] - easy[f"{key} marked below"]
    assert easy[f"{key} fail"] == easy[f"{key} above"] - easy[f"{key} marked above"]


def test_the_page_says_which_cells_fail() -> None:
    """Coverage below 0.92 fails, and more than 5% on one side; 0.053 ±0.007 is not told from it."""
    cell = {"setting": "strong", "tail": "t5", "sequences": 50, "trials": 1000}
    for above, below, fails in ((20, 30, False), (0, 53, False), (0, 60, True), (48, 48, True)):
        counts = {"k3 above": above, "k3 below": below}
        assert page.fails({"cell": cell, "counts": counts}, "k3") is fails
    assert page.share(900, 1000) == "0.900 ±0.009"
