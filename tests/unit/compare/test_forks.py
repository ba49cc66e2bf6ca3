"""Forks: found by hand, and a survival curve held against scipy and against known hazards."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from mismatch.compare.compare import check, compare
from mismatch.compare.distribution import Top
from mismatch.compare.forks import Runs, agreement, curve, forks, median, runs_of
from mismatch.model import PairSpec, make_corpus
from tests.unit.compare.folders import run_folder


def top(*best: list[int], tie: tuple[int, ...] = ()) -> Top:
    """The likeliest tokens of positions, by rank; in the positions of `tie` the first two tie."""
    ids = np.array(best)
    logprobs = np.tile(-1.0 - np.arange(ids.shape[1]), (len(ids), 1))
    logprobs[list(tie), 1] = -1.0
    return Top(ids, np.where(ids < 0, -np.inf, logprobs))


def runs(tokens: list[int], forked: list[bool]) -> Runs:
    return Runs(np.array(tokens), np.array(forked), np.zeros(len(tokens), int))


# ---------------------------------------------------------------- where it forks


def test_a_run_forks_at_the_first_token_whose_likeliest_differ() -> None:
    """Counted from 1 in each sequence; one without any is followed to its end, and what comes
    after a fork says nothing."""
    sequence = np.array([3, 3, 3, 3, 8, 8, 9])
    left = top(*[[1, 2]] * 7)
    right = top([1, 2], [1, 2], [2, 1], [2, 1], [1, 2], [1, 2], [2, 1])
    found = runs_of(sequence, [left, right], None)
    assert found.tokens.tolist() == [3, 2, 1] and found.forked.tolist() == [True, False, True]
    assert not found.tied.any()


def test_a_greedy_run_is_held_against_what_was_drawn() -> None:
    """The replaying side's likeliest against the ids: its second likeliest is a fork."""
    found = runs_of(np.zeros(3, int), [top([1, 2], [5, 6], [7, 8])], np.array([1, 5, 8]))
    assert found.tokens.tolist() == [3] and found.forked.tolist() == [True]


def test_tokens_that_tie_are_all_likeliest_and_are_counted() -> None:
    """A tie is no fork whichever of the two was drawn, nor where the other side knows one of them
    alone; it is counted as long as the run was followed."""
    replay = top([1, 2], [5, 6], [7, 8], [7, 8], tie=(1, 3))
    found = runs_of(np.zeros(4, int), [replay], np.array([1, 6, 8, 8]))
    assert found.tokens.tolist() == [3] and found.tied.tolist() == [1]
    both = runs_of(np.zeros(2, int), [top([1, 2], [5, 6], tie=(1,)), top([1, 3], [6, 9])], None)
    assert both.tokens.tolist() == [2] and not both.forked.any() and both.tied.tolist() == [1]
    said = forks(both, greedy=False)
    assert (said["forked"], said["tied"], said["forked_or_tied"]) == (0, 1, 1)


def test_a_position_without_a_likeliest_token_ends_what_is_known() -> None:
    """The tokens before it agreed; a sequence that begins with one says nothing at all."""
    sequence = np.array([0, 0, 0, 1, 1])
    left = top([1, 2], [-1, -1], [1, 2], [-1, -1], [1, 2])
    found = runs_of(sequence, [left, top(*[[1, 2]] * 5)], None)
    assert found.tokens.tolist() == [1] and found.forked.tolist() == [False]


def test_a_position_whose_value_is_nan_ends_what_is_known_too() -> None:
    """An id whose log-probability is not a number is no likeliest token, and no fork."""
    left = top([1, 2], [1, 2])
    left.logprobs[1] = np.nan
    found = runs_of(np.zeros(2, int), [left, top([1, 2], [3, 2])], None)
    assert found.tokens.tolist() == [1] and found.forked.tolist() == [False]


def test_without_a_sequence_there_is_no_number() -> None:
    """Nothing judged: no share, no median, and no row."""
    none = top([-1, -1])
    found = forks(runs_of(np.zeros(1, int), [none, none], None), greedy=None)
    assert found["sequences"] == 0 and found["first"] is None and found["agreement"] == []
    assert found["median"] == {"value": None, "low": None, "high": None}


# ---------------------------------------------------------------- of a run folder

DRAWN = {"condition": "infer", "model": "x", "temperature": 1.0, "support": "cut", "greedy": True}
IDS = np.array([9, 1, 2, 3, 4, 5])
PAIR = PairSpec(
    "p", "train-infer", "decode", "train/score-1", "infer/decode-1",
    {"batch": {"train": ("train/score-batch",), "infer": ("infer/decode-batch",)}},
)  # fmt: skip
#: Trace -> the position at which its likeliest token is another than the one that was drawn.
LEAVES = {"train/score-1": 4, "infer/decode-1": 2, "train/score-batch": 3, "infer/decode-batch": 5}


def compared(root: Path, sampled_by: dict[str, Any] | None, *without: str) -> Any:
    """The pair of ten sequences of six equal tokens, the last four scored; `without` top-k."""
    scored = np.array([False, False, True, True, True, True])
    corpus = make_corpus([(np.append(IDS[:1] + k, IDS[1:]), scored) for k in range(10)])
    tops = {}
    for trace, at in LEAVES.items():
        best = np.stack([IDS, IDS + 50], axis=1)
        best[at] = best[at, ::-1]
        tops[trace] = [best] * 10
    for trace in without:
        del tops[trace]
    run_folder(root, corpus, {trace: {} for trace in LEAVES}, [PAIR], sampled_by, tops)
    compare(root)
    return check(root)["pairs"][0].get("forks")


def test_a_greedy_run_forks_where_the_other_side_leaves_it(tmp_path: Path) -> None:
    """infer drew greedily: train leaves it at its third scored token, infer in another batch at its
    fourth, whatever the sides would do against each other; train against itself is no free run."""
    found = compared(tmp_path, DRAWN)
    floors = found["floor"]["batch"]
    said = [(f["greedy"], f["first"], f["forked"]) for f in (found, *floors.values())]
    assert said == [(True, 3, 10), (False, 2, 10), (True, 4, 10)]


@pytest.mark.parametrize(
    ("sampled_by", "greedy"),
    [
        ({**DRAWN, "greedy": False}, False),
        ({**DRAWN, "condition": "another"}, False),
        ({k: v for k, v in DRAWN.items() if k != "greedy"}, None),
        ({**DRAWN, "support": "whole", "greedy": None}, False),
        (None, None),
    ],
)
def test_another_text_is_labelled_so(
    tmp_path: Path, sampled_by: dict[str, Any] | None, greedy: bool | None
) -> None:
    """Drawn otherwise, by a third condition, or by nobody knows whom: the sides are held against
    each other, infer leaving first; a corpus of before says nothing of a cut support."""
    found = compared(tmp_path, sampled_by)
    assert (found["greedy"], found["first"]) == (greedy, 1)


def test_without_top_k_nothing_is_said(tmp_path: Path) -> None:
    """One side's is not enough; a floor without it is left out."""
    assert compared(tmp_path / "a", DRAWN, "train/score-1") is None
    found = compared(tmp_path / "b", DRAWN, "train/score-batch")
    assert list(found["floor"]["batch"]) == ["infer"]


# ---------------------------------------------------------------- the curve


def test_the_curve_is_that_of_scipy() -> None:
    """Kaplan-Meier shares and log-log intervals of scipy.stats.ecdf, wherever it has them."""
    rng = np.random.default_rng(5)
    fork, end = rng.geometric(0.05, 40), rng.integers(5, 60, 40)
    found = curve(runs(np.minimum(fork, end).tolist(), (fork <= end).tolist()))
    data = scipy_stats.CensoredData(uncensored=fork[fork <= end], right=end[fork > end])
    expected = scipy_stats.ecdf(data).sf
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has no interval at 0 and 1, and says so
        bounds = expected.confidence_interval(method="log-log")
    at = np.arange(1, len(found.share) + 1)
    np.testing.assert_allclose(found.share, expected.evaluate(at))
    for ours, theirs in ((found.low, bounds.low), (found.high, bounds.high)):
        there = np.isfinite(theirs.evaluate(at)) & (found.share < 1)
        assert there.sum() > 20
        np.testing.assert_allclose(ours[there], theirs.evaluate(at)[there])


def test_no_fork_is_no_proof_that_there_would_be_none() -> None:
    """Ten runs that all agree over 20 tokens: at least 0.025^(1/10) of all agree so long, and no
    median is known but that it is not below that."""
    found = forks(runs([20] * 10, [False] * 10), greedy=True)
    last = found["agreement"][-1]
    assert (last["length"], last["sequences"], last["share"]["value"]) == (19, 10, 1.0)
    assert last["share"]["low"] == pytest.approx(0.025**0.1) and last["share"]["high"] == 1.0
    assert found["forked"] == 0 and found["median"] == {"value": None, "low": None, "high": None}


def test_all_forked_is_no_proof_that_all_would() -> None:
    """Ten runs that fork at once: their share is 0, and bounded by an event that ten did not
    show."""
    found = curve(runs([1] * 10, [True] * 10))
    assert found.share[0] == found.low[0] == 0.0
    assert found.high[0] == pytest.approx(1 - 0.025**0.1)


def test_fewer_than_eight_sequences_have_no_interval() -> None:
    """A value alone: of seven runs, and of a length at which only seven are known."""
    few = forks(runs([1, 2, 3, 4, 5, 6, 7], [True] * 7), greedy=True)
    assert few["median"] == {"value": 4.0, "low": None, "high": None}
    assert all(row["share"]["low"] is None for row in few["agreement"])
    ended = agreement(curve(runs([2] * 5 + [4] * 7, [False] * 12)))
    assert [(r["length"], r["sequences"], r["share"]["low"] is None) for r in ended] == [
        (1, 12, False), (2, 12, False), (3, 7, True), (4, 7, True),
    ]  # fmt: skip


def test_lengths_are_exact_and_four_an_octave() -> None:
    """Powers of two are among them, and the last does not exceed the longest run."""
    lengths = [row["length"] for row in agreement(curve(runs([100] * 9, [False] * 9)))]
    assert lengths[:9] == [1, 2, 3, 4, 5, 6, 7, 8, 10] and lengths[-1] == 91
    assert {2**k for k in range(7)} <= set(lengths)


def test_a_fork_that_cannot_be_reached_is_censored_and_not_counted_late() -> None:
    """Half of the runs end at token 10 before they fork: the share at 20 is that of those that
    were followed, 8 of 8 and then 6 of 8, not 14 of 16 nor 6 of 16."""
    found = curve(runs([10] * 8 + [15, 15] + [20] * 6, [False] * 8 + [True] * 2 + [False] * 6))
    assert found.share[9] == 1.0 and found.share[19] == pytest.approx(0.75)


# ---------------------------------------------------------------- known truth


@pytest.mark.parametrize("sequences", [16, 64])
@pytest.mark.parametrize("longest", [40, 400])
def test_intervals_hold_the_known_truth(sequences: int, longest: int) -> None:
    """Forks of a constant hazard of 2% a token, runs of up to 40 or 400 tokens: the interval of
    the share at 8 and at 32 tokens holds 0.98^t in 92 to 99% of 1,500 samples, that of the median
    holds 35 where it has bounds, and no side is missed by more than 5%."""
    rng, trials = np.random.default_rng(1), 1500
    misses = np.zeros((3, 2))
    for _ in range(trials):
        fork = rng.geometric(0.02, sequences)
        end = rng.integers(longest // 2, longest + 1, sequences)
        found = curve(runs(np.minimum(fork, end).tolist(), (fork <= end).tolist()))
        for k, length in enumerate((8, 32)):
            at = min(length, len(found.share)) - 1
            truth = 0.98 ** (at + 1)
            misses[k] += truth < found.low[at], truth > found.high[at]
        middle = median(found)
        assert middle.low is not None and middle.high is not None
        misses[2] += middle.low > 35, middle.high < 35
    assert (misses / trials).max() < 0.05
    assert (misses.sum(axis=1) / trials).max() < 0.08
