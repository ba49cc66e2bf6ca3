"""What corrections would do: weights by hand, and the ESS that theory expects."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from mismatch.compare.corrections import CORRECTIONS, corrections, ess_by_length
from mismatch.compare.metrics import measure
from tests.unit.compare.samples import aligned, noisy, of_d


def ess(weights: list[float]) -> float:
    return sum(weights) ** 2 / (len(weights) * sum(w * w for w in weights))


def rows(gap: Any) -> dict[str, Any]:
    return {row["name"]: row for row in corrections(gap)}


@pytest.mark.parametrize(
    ("name", "affected", "weights"),
    [
        ("none-token", 0.0, [1, 3, 0.4, 6]),
        ("token-tis", 0.5, [1, 2, 0.4, 2]),
        ("token-mis", 0.5, [1, 0, 0.4, 0]),
        ("icepop", 0.5, [1, 3, 0, 0]),
    ],
)
def test_a_token_weighs_what_the_rule_says(
    name: str, affected: float, weights: list[float]
) -> None:
    """Ratios 1, 3, 0.4 and 6: cut at 2, dropped above 2, dropped outside [0.5, 5]."""
    row = rows(of_d(np.log([1, 3, 0.4, 6]), [2, 2]))[name]
    assert row["level"] == "token"
    assert row["affected"]["value"] == affected
    assert row["ess"]["value"] == pytest.approx(ess(weights), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "affected", "weights"),
    [
        ("none-sequence", 0.0, [1, 4, 0.25, 1.0005**2]),
        ("sequence-tis", 0.25, [1, 2, 0.25, 1.0005**2]),
        ("sequence-mis", 0.25, [1, 0, 0.25, 1.0005**2]),
        ("geometric-rejection", 0.5, [1, 0, 0, 1]),
        ("gspo-clip", 0.75, [1, 0, 0, 0]),
    ],
)
def test_a_sequence_weighs_what_the_rule_says(
    name: str, affected: float, weights: list[float]
) -> None:
    """Ratios of whole sequences 1, 4, 1/4 and 1.0005^2; their geometric means are the roots."""
    d = np.log([1, 1, 2, 2, 0.5, 0.5, 1.0005, 1.0005])
    row = rows(of_d(d, [2, 2, 2, 2]))[name]
    assert row["level"] == "sequence"
    assert row["affected"]["value"] == affected
    assert row["ess"]["value"] == pytest.approx(ess(weights), rel=1e-5)


def test_without_a_correction_the_ess_is_the_metric() -> None:
    """none-token is ess_token and none-sequence ess_seq, with their intervals."""
    gap = noisy(3)
    found, metrics = rows(gap), measure(gap, {}).metrics
    for name, key in (("none-token", "ess_token"), ("none-sequence", "ess_seq")):
        assert found[name]["ess"] == pytest.approx(metrics[key])
        assert found[name]["affected"] == {"value": 0.0, "low": 0.0, "high": 0.0}


def test_nothing_touched_is_no_proof_that_nothing_would_be() -> None:
    """The bound of an event that 30 sequences did not show is 1 - 0.025^(1/30), not 0."""
    row = rows(noisy(4, size=0.01))["token-tis"]
    assert row["affected"]["value"] == 0
    assert row["affected"]["high"] == pytest.approx(1 - 0.025 ** (1 / 30))


def test_all_dropped_leaves_no_sample() -> None:
    """Where a rule drops every sequence its ESS is 0, without an interval."""
    row = rows(of_d(np.full(40, 0.5), [4] * 10))["geometric-rejection"]
    assert row["affected"]["value"] == 1
    assert row["ess"] == {"value": 0.0, "low": None, "high": None}


def test_bins_of_length_hold_all_tokens_and_are_measured_alone() -> None:
    """Every sequence is in the bin of its length, measured as if it were all there is."""
    rng = np.random.default_rng(0)
    lengths = [10] * 12 + [40] * 9
    gap = of_d(0.3 * rng.standard_normal(sum(lengths)), lengths)
    row = rows(gap)["icepop"]
    sizes = [(p["bin"], p["tokens"], p["sequences"]) for p in row["by_length"]]
    assert sizes == [("1-15", 120, 12), ("16-63", 360, 9)]
    d = gap.lp_train[:120].astype(float) - gap.lp_infer[:120]
    short = rows(of_d(d, lengths[:12]))["icepop"]
    for key in ("affected", "ess"):
        for bound, value in row["by_length"][0][key].items():
            assert value == (short[key][bound] and pytest.approx(short[key][bound], rel=1e-6))


def test_a_bin_of_small_weights_keeps_its_digits() -> None:
    """Long sequences of R = e^-30 beside short ones of R = 1: each bin's ESS is that of its own
    weights, and 0 where the rule drops all of the bin alone."""
    rng = np.random.default_rng(3)
    short, long = 1e-6 * rng.standard_normal(16 * 10), -0.3 + 0.03 * rng.standard_normal(100 * 10)
    gap = of_d(np.concatenate([short, long]), [16] * 10 + [100] * 10)
    d = gap.lp_train[160:].astype(float) - gap.lp_infer[160:]
    found = rows(gap)
    expected = ess(np.exp(d.reshape(10, 100).sum(axis=1)).tolist())
    assert found["none-sequence"]["by_length"][1]["ess"]["value"] == pytest.approx(expected)
    dropped = found["geometric-rejection"]["by_length"]
    assert [part["ess"]["value"] for part in dropped] == [1.0, 0.0]


def test_all_touched_is_no_proof_that_all_would_be() -> None:
    """The bounds of an event whose opposite 10 sequences did not show: of the share clipped, and
    of the sample that is left where weights are 1 or 0."""
    bound = 1 - 0.025 ** (1 / 10)
    clipped = rows(of_d(np.full(40, 0.5), [4] * 10))["gspo-clip"]
    kept = rows(of_d(np.zeros(40), [4] * 10))["gspo-clip"]
    assert clipped["affected"] == {"value": 1.0, "low": pytest.approx(1 - bound), "high": 1.0}
    assert kept["affected"] == {"value": 0.0, "low": 0.0, "high": pytest.approx(bound)}
    assert kept["ess"] == {"value": 1.0, "low": pytest.approx(1 - bound), "high": 1.0}


def test_ess_falls_with_length_as_theory_says() -> None:
    """Independent normal d of variance s^2: ESS over T tokens is exp(-s^2 T), as is predicted."""
    rng = np.random.default_rng(1)
    gap = of_d(0.08 * rng.standard_normal(4000 * 64), [64] * 4000)
    found = ess_by_length(gap, 0.08**2 / 2)
    assert [(r["length"], r["sequences"], r["tokens"]) for r in found] == [
        (16, 4000, 64000), (32, 4000, 128000), (64, 4000, 256000)
    ]  # fmt: skip
    for row in found:
        expected = math.exp(-(0.08**2) * row["length"])
        assert row["predicted"] == pytest.approx(expected)
        assert row["ess"]["low"] <= expected <= row["ess"]["high"]
        assert row["ess"]["value"] == pytest.approx(expected, rel=0.02)


def test_a_prefix_needs_enough_sequences() -> None:
    """Lengths that fewer than 8 sequences reach are not told; a prefix takes first tokens only."""
    lengths = [32] * 7 + [16] * 3
    d = np.zeros(sum(lengths))
    d[16:32] = 5.0  # behind the first 16 tokens of the first sequence
    (row,) = ess_by_length(of_d(d, lengths), None)
    assert (row["length"], row["sequences"], row["predicted"]) == (16, 10, None)
    assert row["ess"]["value"] == 1


def test_tokens_that_are_not_finite_weigh_nothing() -> None:
    """They are left out as everywhere; without any token there is no row."""
    gap = aligned([-1.0, np.nan, -1.0, -np.inf], [-1.0, -1.0, -1.0, -1.0], [2, 2])
    assert rows(gap)["token-tis"]["ess"]["value"] == 1
    assert corrections(aligned([], [], [])) == ess_by_length(aligned([], [], []), None) == []
    assert len({c.name for c in CORRECTIONS}) == len(CORRECTIONS) == 9
