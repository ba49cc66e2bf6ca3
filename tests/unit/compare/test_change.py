"""Did a gap change between two runs? Against data whose truth is known."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy.stats import binom

from mismatch.compare import stats
from mismatch.compare.change import BETTER, CALM, CHANGED, KEYS, UNKNOWN, WORSE, Run, change
from mismatch.compare.metrics import Aligned

TRIALS = 120
#: Of 120 samples where nothing changed, at most so many may look as if: 5%, and 3 in 10,000.
MOST = int(binom.isf(3e-4, TRIALS, 0.05))


def aligned(d: np.ndarray, lengths: np.ndarray, right: float = -6.0) -> Aligned:
    other = np.full(len(d), right, np.float32)
    sequence = np.repeat(np.arange(len(lengths)), lengths)
    return Aligned(sequence, np.arange(len(d)), (other + d).astype(np.float32), other)


def drawn(
    rng: np.random.Generator, lengths: np.ndarray, scale: np.ndarray, size: float, bias: float = 0.0
) -> Run:
    """Tokens whose size differs between sequences, with floors of a tenth of it."""
    spread = np.repeat(scale, lengths)
    d = bias + size * spread * rng.normal(0, 1, len(spread))
    floors = [0.1 * size * spread * rng.normal(0, 1, len(spread)) for _ in range(2)]
    made = {side: [aligned(f, lengths)] for side, f in zip(("train", "infer"), floors, strict=True)}
    return Run(aligned(d, lengths), {"batch": made})


#: How unlike in size the sequences are (log standard deviation): little, and as real ones.
ALIKE, UNLIKE = 0.2, 0.7


def verdicts(
    paired: bool,
    sequences: int,
    grown: float = 1.0,
    bias: float = 0.0,
    trials: int = TRIALS,
    unlike: float = ALIKE,
) -> dict[str, Counter[str]]:
    """How often each verdict, where the new run's d is `grown` times as large and moved by bias.

    The sequences differ in length, and in size as `unlike` says.
    """
    rng = np.random.default_rng(7)
    found: dict[str, Counter[str]] = {key: Counter() for key in KEYS}
    for trial in range(trials):
        lengths = rng.integers(10, 60, sequences)
        scale = rng.lognormal(0, unlike, sequences)
        old = drawn(rng, lengths, scale, 0.03)
        if not paired:
            lengths = rng.integers(10, 60, sequences + 5)
            scale = rng.lognormal(0, unlike, sequences + 5)
        new = drawn(rng, lengths, scale, 0.03 * grown, bias)
        told_of = change(old, new, paired=paired, seed=trial, resamples=300, draws=300)
        for key, told in told_of.items():
            found[key][told["verdict"]] += 1
    return found


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("sequences", [10, 40])
def test_where_nothing_changed_at_most_one_in_twenty_says_so(paired: bool, sequences: int) -> None:
    """For every metric. A size is calm of 40 like sequences; of 10, or of unlike ones, mostly
    nothing is said, as its interval is not trusted."""
    for unlike in (ALIKE, UNLIKE):
        often = CALM if (sequences, unlike) == (40, ALIKE) else UNKNOWN
        for key, counts in verdicts(paired, sequences, unlike=unlike).items():
            assert sum(counts[v] for v in (WORSE, BETTER, CHANGED)) <= MOST, key
            if key in ("k3", "abs_logprob_diff_mean", "excess.k3"):
                assert counts[often] > 0.6 * TRIALS, (key, unlike)


@pytest.mark.parametrize(("paired", "grown"), [(True, 1.2), (False, 2.5)])
def test_a_planted_change_is_found_and_its_direction(paired: bool, grown: float) -> None:
    """d grown by 20% is seen on the same ids, by 150% on other ids."""
    grew = verdicts(paired, 40, grown, trials=25)
    for key in ("abs_logprob_diff_mean", "k3", "excess.k3", "ess_token"):
        assert grew[key][WORSE] >= 18 and not grew[key][BETTER], key
    fell = verdicts(paired, 40, 1 / grown, trials=25)
    for key in ("abs_logprob_diff_mean", "k3", "ess_token"):
        assert fell[key][BETTER] >= 18 and not fell[key][WORSE], key


def test_a_bias_is_a_change_and_neither_better_nor_worse() -> None:
    """mean d moved by 0.02 nats of 0.03."""
    found = verdicts(True, 40, bias=0.02, trials=10)["logprob_diff_mean"]
    assert found == Counter({CHANGED: 10})


def test_difference_and_ratio_are_those_of_numpy() -> None:
    """new - old and new / old, of means over tokens; excess less half of both floors."""
    rng = np.random.default_rng(3)
    lengths = rng.integers(10, 60, 30)
    old, new = (drawn(rng, lengths, np.ones(30), size) for size in (0.03, 0.05))
    found = change(old, new, paired=True)

    def k3(one: Aligned) -> float:
        d = one.lp_train.astype(float) - one.lp_infer
        return float(np.mean(np.expm1(d) - d))

    def excess(run: Run) -> float:
        floors = run.floors["batch"]
        return k3(run.gap) - (k3(floors["train"][0]) + k3(floors["infer"][0])) / 2

    assert math.isclose(found["k3"]["difference"]["value"], k3(new.gap) - k3(old.gap))
    assert math.isclose(found["k3"]["ratio"]["value"], k3(new.gap) / k3(old.gap))
    assert math.isclose(found["excess.k3"]["difference"]["value"], excess(new) - excess(old))
    assert found["excess.k3"]["ratio"] is None and found["logprob_diff_mean"]["ratio"] is None
    weights = [np.exp(run.gap.lp_train.astype(float) - run.gap.lp_infer) for run in (new, old)]
    a, b = (np.mean(w) ** 2 / np.mean(w * w) for w in weights)
    assert math.isclose(found["ess_token"]["difference"]["value"], a - b, rel_tol=1e-6)


def test_pairing_cancels_what_the_runs_share() -> None:
    """On the same ids the interval is narrower than on others."""
    rng = np.random.default_rng(5)
    lengths, scale = rng.integers(10, 60, 40), rng.lognormal(0, 0.7, 40)
    old, new = (drawn(rng, lengths, scale, 0.03) for _ in range(2))
    same, apart = (change(old, new, paired=paired)["k3"]["difference"] for paired in (True, False))
    assert math.isclose(same["value"], apart["value"], rel_tol=1e-9)
    assert same["high"] - same["low"] < 0.5 * (apart["high"] - apart["low"])


def test_equal_runs_are_no_change_and_few_sequences_are_no_evidence() -> None:
    """0 with an interval of 0; seven sequences say nothing, whatever they show."""
    rng = np.random.default_rng(9)
    lengths = np.full(12, 30)
    run = drawn(rng, lengths, np.ones(12), 0.03)
    equal = change(run, run, paired=True)
    assert equal["k3"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert {one["verdict"] for one in equal.values()} == {CALM}
    old, new = (drawn(rng, lengths[:7], np.ones(7), size) for size in (0.03, 0.3))
    for paired in (True, False):
        few = change(old, new, paired=paired)
        assert {one["verdict"] for one in few.values()} == {UNKNOWN}
        assert all("8 sequences" in one["reason"] for one in few.values())


def test_no_floor_is_no_excess_and_other_floors_are_not_mixed() -> None:
    """A run without the batch floor is compared over no floor, never over another kind."""
    rng = np.random.default_rng(11)
    lengths = np.full(12, 30)
    old, new = (drawn(rng, lengths, np.ones(12), 0.03) for _ in range(2))
    found = change(old, Run(new.gap, {"repeat": new.floors["batch"]}), paired=True)["excess.k3"]
    assert found["verdict"] == UNKNOWN and "floor" in found["reason"]


def test_a_repeat_that_is_bit_equal_leaves_no_excess_to_compare() -> None:
    """Noisy repeats of both sides of both runs do; one silent side of one of them is no noise."""
    rng = np.random.default_rng(9)
    lengths = np.full(40, 30)
    old, new = (drawn(rng, lengths, np.ones(40), 0.03) for _ in range(2))
    old, new = (Run(run.gap, {"repeat": run.floors["batch"]}) for run in (old, new))
    assert change(old, new, paired=True)["excess.k3"]["verdict"] != UNKNOWN
    silent = {**new.floors["repeat"], "infer": [aligned(np.zeros(1200), lengths)]}
    found = change(old, Run(new.gap, {"repeat": silent}), paired=True)["excess.k3"]
    assert found["verdict"] == UNKNOWN and "floor" in found["reason"]


def test_what_was_never_seen_is_not_known_to_be_impossible() -> None:
    """No extreme token in either run: the interval is as wide as 12 sequences allow, and one
    extreme token more is not yet worse."""
    rng = np.random.default_rng(13)
    lengths = np.full(12, 30)
    old = drawn(rng, lengths, np.ones(12), 0.001)
    none = change(old, old, paired=True)["extreme_fraction_2"]["difference"]
    assert none["value"] == 0 and none["high"] == -none["low"] > 0.1
    d = np.zeros(360)
    d[5] = 1.0
    one = change(old, Run(aligned(d, lengths), {}), paired=True)["extreme_fraction_2"]
    assert one["verdict"] in (CALM, UNKNOWN)


def test_a_ratio_of_what_was_never_seen_has_no_interval() -> None:
    """No extreme token in the new run: 0 times as many, and [0, 0] would say that none can be."""
    rng = np.random.default_rng(19)
    lengths = np.full(60, 30)
    old, new = (drawn(rng, lengths, np.ones(60), size) for size in (0.05, 0.001))
    ratio = change(old, new, paired=True)["extreme_fraction_1.1"]["ratio"]
    assert ratio == {"value": 0.0, "low": None, "high": None}


def test_what_is_not_trusted_is_marked_in_all_it_is_part_of() -> None:
    """Sequences with a bias of their own mark difference and ratio of k3; in a floor alone they
    mark the difference of the excess, and not that of the gap."""
    rng = np.random.default_rng(17)
    lengths = np.full(20, 100)

    def noise(bias: float) -> Aligned:
        own = np.repeat(rng.normal(0, 1, 20), lengths)
        return aligned(bias * own + 0.05 * rng.normal(0, 1, 2000), lengths)

    def run(of_gap: float, of_floor: float) -> Run:
        return Run(noise(of_gap), {"batch": {s: [noise(of_floor)] for s in ("train", "infer")}})

    gap = change(run(0.1, 0), run(0.1, 0), paired=True)["k3"]
    assert [gap[part].get("trusted") for part in ("difference", "ratio")] == [False, False]
    much = change(run(0.1, 0), run(1.0, 0), paired=True)["k3"]
    for told in (gap, much):
        assert told["verdict"] == UNKNOWN and "interval not trusted" in told["reason"]
    assert much["chance"] < 0.05 and much["difference"]["low"] > 0
    floor = change(run(0, 0), run(0, 0.1), paired=True)
    assert floor["excess.k3"]["difference"]["trusted"] is False
    assert "trusted" not in floor["k3"]["difference"] and "trusted" not in floor["k3"]["ratio"]


def test_nan_tokens_are_left_out_and_no_token_is_no_evidence() -> None:
    """Of the run that has them; the sequences still stand against each other."""
    rng = np.random.default_rng(15)
    lengths = np.full(12, 30)
    old, new = (drawn(rng, lengths, np.ones(12), 0.03) for _ in range(2))
    new.gap.lp_train[:40] = np.nan
    assert change(old, new, paired=True)["k3"]["verdict"] == CALM
    new.gap.lp_train[:] = np.nan
    assert change(old, new, paired=True)["k3"]["verdict"] == UNKNOWN


@pytest.mark.parametrize("open_end", ["low", "high"])
def test_an_interval_open_at_one_end_is_no_verdict(
    monkeypatch: pytest.MonkeyPatch, open_end: str
) -> None:
    """Half an interval is shown as none, so that no verdict may rest on it."""
    rng = np.random.default_rng(21)
    lengths = np.full(40, 30)
    old, new = (drawn(rng, lengths, np.ones(40), size) for size in (0.09, 0.03))
    bootstrap = stats.bootstrap_t
    end = {"low": {"low": -math.inf}, "high": {"high": math.inf}}[open_end]

    def opened(*args: Any, **kwargs: Any) -> dict[Any, stats.Estimate]:
        return {key: one._replace(**end) for key, one in bootstrap(*args, **kwargs).items()}

    assert change(old, new, paired=True)["k3"]["verdict"] == BETTER
    monkeypatch.setattr(stats, "bootstrap_t", opened)
    told = change(old, new, paired=True)["k3"]
    assert told["verdict"] == UNKNOWN and "no interval" in told["reason"]
