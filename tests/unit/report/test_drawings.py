"""Figures of a pair: what is drawn, what is left out, and that the page says so."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from mismatch.report import build, drift, plots, spreads, svg
from mismatch.report.pairs import Bin, Estimate, estimate
from mismatch.report.sequences import Sequences, Tokens, sequences_of
from mismatch.report.words import reached
from tests.unit.report import runs
from tests.unit.report.runs import pair, write_run


def text(root: Path) -> str:
    source = build(root)[1].read_text(encoding="utf-8")
    body = re.sub(r"<(script|style)[^>]*>.*?</\1>", "", source, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", body).split())


def tokens(sequence: list[int], d: list[float]) -> Tokens:
    n = len(d)
    made = np.asarray(d, np.float64)
    position = np.arange(n, dtype=np.int32)
    right = np.full(n, -1.0, np.float32)
    return Tokens(np.asarray(sequence), position, position, right, right, made)


BIN = {"tokens": 50, "metrics": runs.metrics(1e-3)}


def test_every_breakdown_is_drawn_and_what_comes_after_three_is_folded(tmp_path: Path) -> None:
    """In the order that explains most; one of a later release comes last, by its own name."""
    names = ("infer_prob", "position", "length", "entropy", "token_type", "turn", "moon")
    made = {by: [{"bin": "x", **BIN}] for by in names}
    found = text(write_run(tmp_path / "run", pair(breakdowns=made)))
    order = ("probability", "entropy", "token type", "position", "sequence length", "turn", "moon")
    places = [found.index(f"The gap by {name} ") for name in order]
    assert places == sorted(places)
    folded = ", ".join(f"the gap by {name}" for name in order[3:])
    assert folded.capitalize() in found


def bin_of(
    label: str, low: float, high: float, *, value: float, largest: float = 0.1, trusted: bool = True
) -> Bin:
    found = {"value": value, "low": low, "high": high, "trusted": trusted}
    top = {"abs_logprob_diff_max": {"value": largest, "low": None, "high": None}}
    return Bin(label, 50, {"abs_logprob_diff_mean": found, "logprob_diff_mean": found, **top})


def test_bars_that_are_not_trusted_are_hollow_and_dotted(tmp_path: Path) -> None:
    """mean |d| and mean d alike, and the caption says so; a trusted one is drawn as ever."""
    made = {
        key: {"token_type": [{"bin": "x", "tokens": 50, "metrics": {
            name: {**runs.estimate(0.01), "trusted": key == "good"}
            for name in ("abs_logprob_diff_mean", "logprob_diff_mean")
        }}]}
        for key in ("good", "bad")
    }  # fmt: skip
    for key, breakdown in made.items():
        root = write_run(tmp_path / key, pair(breakdowns=breakdown))
        assert ("Hollow, dotted: interval not trusted." in text(root)) == (key == "bad")
        source = (root / "report.html").read_text(encoding="utf-8")
        for role in ("gap", "bias"):
            kind = f"{role} doubted" if key == "bad" else role
            assert source.count(f'class="range thin {kind}"') == 1
            assert len(re.findall(rf'class="dot {kind}"[^>]*><title>mean ', source)) == 1


@pytest.mark.parametrize(
    "absurd",
    [
        bin_of("special", 0.0, 0.976, value=0.008, trusted=False),
        bin_of("special", 0.0, 0.976, value=0.008, largest=0.088),
    ],
)
def test_a_bound_that_says_nothing_does_not_stretch_the_axis(absurd: Bin) -> None:
    """Not trusted, or beyond the largest |d| of its bin: the others are as large as without it, its
    bar ends in an arrow at the edge, and its tooltip has the number whole.
    """
    other = bin_of("other", 0.02, 0.04, value=0.03)
    drawn = plots.by_bin([other, absurd], [], 10)
    alone = plots.by_bin([other], [], 10)
    places = [re.findall(r'cy="([\d.]+)"', one)[0] for one in (drawn, alone)]
    assert places[0] == places[1]
    heights = [float(y) for y in re.findall(r' y[12]?="(-?[\d.]+)"', drawn)]
    assert min(heights) >= 0 and drawn.count('class="beyond ') == 2
    assert "mean |d|: 8.00e-3 [0, 0.976]" in drawn
    assert plots.are_cut([other, absurd], [])
    assert not plots.are_cut([other], []) and 'class="beyond ' not in alone


def test_a_trusted_bound_within_its_bin_is_on_the_axis() -> None:
    """Below 0 and above the values: nothing is cut."""
    wide = [bin_of("x", -0.05, 0.09, value=0.01), bin_of("y", 0.0, 0.02, value=0.01)]
    assert not plots.are_cut(wide, []) and 'class="beyond ' not in plots.by_bin(wide, [], 10)


def test_a_bound_beyond_the_axis_by_rounding_alone_has_no_arrow() -> None:
    """-8e-17 is 0: nothing is cut, and nothing is said to be."""
    rounded = [bin_of("x", -8e-17, 0.01, value=0.01, trusted=False)]
    assert not plots.are_cut(rounded, []) and "beyond " not in plots.by_bin(rounded, [], 10)


@pytest.mark.parametrize(
    ("at", "sequences", "said"),
    [
        (Estimate(1234.0, 139.0, None), 64, "1,234 [139, not reached]"),
        (Estimate(None, None, None), 64, "not reached"),
        (Estimate(5.0, None, None), 7, "5, no interval (fewer than 8 sequences)"),
        (Estimate(None, None, None), 7, "not reached, no interval (fewer than 8 sequences)"),
    ],
)
def test_a_median_of_tokens_is_a_whole_number(at: Estimate, sequences: int, said: str) -> None:
    """What was not followed so far is not reached; too few sequences are the reason told."""
    assert reached(at, sequences) == said


def test_corrections_and_ess_by_length_stand_with_their_intervals(tmp_path: Path) -> None:
    """Affected in percent, ESS as it is, each with its interval; by length folded below."""
    part = {"affected": runs.estimate(0.25), "ess": runs.estimate(0.5)}
    rows = [{"bin": "64-255", "tokens": 700, "sequences": 9, **part}]
    correction = {"name": "token-tis", "level": "token", "rule": "w = min(r, 2)", **part}
    prefix = {"length": 64, "sequences": 9, "tokens": 576, "ess": runs.estimate(0.5)}
    found = text(
        write_run(
            tmp_path / "run",
            pair(
                corrections=[{**correction, "by_length": rows}],
                ess_by_length=[{**prefix, "predicted": 0.6}, {**prefix, "predicted": None}],
            ),
        )
    )
    assert "token-tis token w = min(r, 2) 25.0% [20.0, 30.0] 0.500 [0.400, 0.600]" in found
    assert "token-tis 64-255 700 9 25.0%" in found
    assert "64 9 576 0.500 [0.400, 0.600] 0.600" in found
    assert "64 9 576 0.500 [0.400, 0.600] —" in found


def test_forks_are_drawn_with_their_band_and_floors_and_labelled(tmp_path: Path) -> None:
    """Powers of two in the table; whose run it is, the median with what was not reached, ties and
    the floors' medians in the caption; a text that nobody drew greedily is never a free run's."""
    found = text(write_run(tmp_path / "run", pair(forks=runs.forks_with_floors())))
    assert "How long greedy runs agree" in found and "One side drew these tokens greedily" in found
    assert "differ in 9, the first at token 2; median: 4 [3, not reached]" in found
    assert "At 5 tokens before that several are likeliest, which is no fork" in found
    assert "were each of them one, 10 would differ" in found
    assert "median: train not reached [3, not reached], infer 6 " in found
    assert "2 10 0.900 [0.720, 1.08] 4 10 0.500" in found
    other = text(write_run(tmp_path / "other", pair(forks=runs.forks(False))))
    assert "How long the likeliest agree" in other and "no fork of a free run" in other
    assert "greedy runs agree" not in other and "Dashed: a side against itself" not in other


def test_a_step_curve_holds_each_height_until_the_next_point() -> None:
    """Down at the next length and not before."""
    assert svg.stairs([(0.0, 1.0), (0.5, 0.8), (1.0, 0.2)]) == [
        (0.0, 1.0), (0.5, 1.0), (0.5, 0.8), (1.0, 0.8), (1.0, 0.2),
    ]  # fmt: skip
    assert svg.stairs([(0.0, 1.0)]) == [(0.0, 1.0)] and svg.stairs([]) == []


def test_a_folder_of_before_says_nothing_of_what_it_does_not_have(tmp_path: Path) -> None:
    """No correction, no ESS by length, no entropy: no empty figure for them."""
    found = text(write_run(tmp_path / "run", pair()))
    for name in (
        "What a correction would do",
        "ESS by length",
        "The gap by entropy",
        "likeliest agree",
    ):
        assert name not in found


def test_sequences_add_up() -> None:
    """D, mean |d|, the worst row; what is not finite is counted and in no sum, and a sequence
    without a finite d has no D.
    """
    found = sequences_of(tokens([3, 3, 3, 5, 5, 8], [0.5, -2.0, 0.25, np.nan, 1.0, np.inf]))
    assert found.number.tolist() == [3, 5, 8]
    np.testing.assert_array_equal(found.total, [-1.25, 1.0, np.nan])
    np.testing.assert_allclose(found.mean, [2.75 / 3, 1.0, np.nan])
    assert found.lost.tolist() == [0, 1, 1] and found.finite.tolist() == [3, 1, 0]
    assert found.worst.tolist() == [1, 3, 5]
    assert found.order.tolist() == [1, 2, 0]  # not finite first
    assert len(sequences_of(tokens([], [])).number) == 0


def many(n: int) -> Sequences:
    d = np.random.default_rng(0).normal(0, 1, n)
    return sequences_of(tokens(list(range(n)), d.tolist()))


def test_drift_is_thinned_by_the_rule_that_is_told() -> None:
    """Below the limit every sequence; above it the largest |D| all, and one in k of the others."""
    slope = estimate(runs.estimate(0.5))
    few, lots = (drift.drift(many(n), slope, n) for n in (drift.DRAWN, 10_000))
    assert few is not None and lots is not None
    assert (few.drawn, few.step) == (drift.DRAWN, 1)
    assert drift.EXTREME < lots.drawn <= drift.DRAWN and lots.step == 10
    assert lots.drawing.count("<circle") == lots.drawn
    largest = np.argsort(-np.abs(many(10_000).total))[: drift.EXTREME]
    drawn = {int(k) for k in re.findall(r"sequence (\d+):", lots.drawing)}
    assert set(largest.tolist()) <= drawn


def test_drift_without_a_slope_draws_no_line() -> None:
    """One length alone has none."""
    found = drift.drift(many(20), Estimate(None, None, None), 20)
    assert found is not None and "<path" not in found.drawing


def test_the_tails_end_at_the_largest_and_at_one_token() -> None:
    """A sign rises from the foot at its largest |d|, to a share of 1 / n first."""
    d = np.concatenate([-np.geomspace(1e-3, 1.0, 500), np.geomspace(1e-3, 0.1, 499), [0.0]])
    drawn = spreads.tails(d)
    assert drawn is not None
    for role, largest in (("neg", 1.0), ("pos", 0.1)):
        points = re.search(rf'curve {role}" d="M([^"]*)"', drawn)
        assert points is not None
        (x, foot), (same, y) = (map(float, p.split(",")) for p in points[1].split()[:2])
        assert same == x and foot == 1000
        assert y == 750  # 1 of 1,000 tokens, one of four decades up
        places = [float(p.split(",")[0]) for p in points[1].split()]
        assert x == max(places) == pytest.approx(1000 * (3 + np.log10(largest)) / 3, abs=0.1)
    assert spreads.tails(np.zeros(5)) is None


@pytest.mark.parametrize("n", [0, 9, 999])
def test_one_token_of_a_sign_is_a_line_in_the_tails(n: int) -> None:
    """Alone or beside n of the other sign: a path of two places, of which something is seen, on
    an axis of shares that ends at 1.
    """
    drawn = spreads.tails(np.concatenate([np.full(n, 1e-3), [-3.0]]))
    assert drawn is not None
    points = re.search(r'curve neg" d="M([^"]*)"', drawn)
    assert points is not None and len(set(points[1].split())) == 2
    shares = re.findall(r'class="tick axis"[^>]*>([^<]*)<', drawn)
    assert max(float(s) for s in shares) == 1.0


def test_density_counts_every_finite_token() -> None:
    """Where p is 1 on both sides there is a cell at the corner; NaN is in none; a value above 0,
    which rounding makes, is at the edge.
    """
    left = np.array([0.0, 1e-6, np.log(0.5), np.nan], np.float32)
    right = np.array([0.0, 0.0, np.log(0.25), -1.0], np.float32)
    drawn = spreads.density(left, right)
    assert drawn is not None and "of 3 tokens" in drawn
    assert 'class="q1" d="' in drawn and "M980 0h20" in drawn
    assert drawn.count("h20v20") == 2
    assert spreads.density(left[3:], right[3:]) is None


def test_pages_of_one_token_and_of_none_that_is_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both are pages; what cannot be drawn is not."""
    for name, size in (("SEQUENCES", 1), ("LENGTH", 3), ("PROMPT", 2)):
        monkeypatch.setattr(runs, name, size)
    one = text(write_run(tmp_path / "one", pair(), d=np.array([0.5])))
    assert "All 1 sequence," in one and "1 token in 1 sequence" in one
    lost = text(write_run(tmp_path / "lost", pair(nan_tokens=1), d=np.array([np.nan])))
    assert "No evidence: 1 NaN and 0 infinite tokens" in lost
    assert "How d is spread" not in lost and "D against length" not in lost
