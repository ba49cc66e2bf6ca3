"""The gap by what a token is and where it stands."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mismatch.compare.breakdowns import breakdowns, kinds_of
from mismatch.compare.metrics import Aligned, measure
from mismatch.kinds import KINDS, kind_of
from tests.unit.compare.samples import aligned, noisy, of_d


def test_no_token_has_no_bin() -> None:
    """Without a token every breakdown is there and has no row."""
    assert breakdowns(aligned([], [], [])) == {"infer_prob": [], "position": [], "length": []}


def test_bins_hold_their_tokens() -> None:
    """Edges belong to the bin above, p = 1 to the last, and a bin without tokens is left out."""
    p = [0.005, 0.01, 0.099, 0.1, 0.5, 0.6, 0.9, 0.99, 1.0, 1.0]
    gap = aligned(np.log(p) - 0.1, np.log(p), [8, 2])
    rows = breakdowns(gap)["infer_prob"]
    assert [(row["bin"], row["tokens"]) for row in rows] == [
        ("[0, 0.01)", 1),
        ("[0.01, 0.1)", 2),
        ("[0.1, 0.5)", 1),
        ("[0.5, 0.9)", 2),
        ("[0.9, 0.99)", 1),
        ("[0.99, 1]", 3),
    ]


def test_position_counts_from_the_first_scored_token() -> None:
    """A prompt before it, and a token of NaN at its start, move no bin."""
    gap = aligned(np.full(5000, -1.1), np.full(5000, -1.0), [4500, 500], first=100)
    broken = replace(gap, lp_train=np.where(gap.position == 100, np.nan, gap.lp_train))
    for x, lost in ((gap, 0), (broken, 2)):
        rows = {row["bin"]: row["tokens"] for row in breakdowns(x)["position"]}
        assert rows == {
            "0-15": 32 - lost, "16-63": 96, "64-255": 384,
            "256-1023": 768 + 244, "1024-4095": 3072, "4096+": 404,
        }  # fmt: skip


def test_length_counts_the_scored_tokens_of_the_sequence() -> None:
    """Each token falls into the bin of its sequence's length."""
    lengths = [15, 16, 63, 64, 255]
    rows = breakdowns(of_d(np.full(413, 0.1), lengths))["length"]
    assert {row["bin"]: row["tokens"] for row in rows} == {"1-15": 15, "16-63": 79, "64-255": 319}


def test_a_bin_is_measured_like_a_pair_of_its_own() -> None:
    """Values and intervals of a bin are those of its tokens alone."""
    gap = noisy(31, tokens=40)
    row = next(r for r in breakdowns(gap, seed=2)["position"] if r["bin"] == "0-15")
    early = gap.position - 7 < 16
    part = Aligned(*(x[early] for x in (gap.sequence, gap.position, gap.lp_train, gap.lp_infer)))
    alone = measure(part, {}, seed=2).metrics
    assert list(row["metrics"]) == [
        "abs_logprob_diff_mean", "logprob_diff_mean", "k3", "abs_logprob_diff_max"
    ]  # fmt: skip
    for key, found in row["metrics"].items():
        assert found == pytest.approx(alone[key])


def test_entropy_is_binned_where_it_is_known() -> None:
    """NaN is in no bin, an edge belongs to the bin above, and without entropy there is no row."""
    gap = of_d([0.1, 0.2, 0.3, 0.4], [4])
    rows = breakdowns(gap, entropy=np.array([0.0, 0.5, np.nan, 7.0]))["entropy"]
    assert [(r["bin"], r["tokens"]) for r in rows] == [
        ("[0, 0.01)", 1), ("[0.5, 1)", 1), ("2+", 1)
    ]  # fmt: skip
    assert rows[1]["metrics"]["logprob_diff_mean"]["value"] == pytest.approx(0.2)


def test_a_gap_in_the_mask_starts_a_turn() -> None:
    """Stretches are counted within a sequence; a pair of one turn each has no such breakdown."""
    gap = of_d(np.full(9, 0.1), [6, 3])
    assert "turn" not in breakdowns(gap)
    position = np.array([4, 5, 9, 10, 20, 21, 4, 5, 6], np.int32)
    rows = breakdowns(replace(gap, position=position))["turn"]
    assert {r["bin"]: r["tokens"] for r in rows} == {"1": 5, "2": 2, "3": 2}


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<|im_end|>", "special"), ("</s>", "special"), ("", "special"), ("[INST]", "special"),
        ("<tool_call>", "tool/template"), ("</think>", "tool/template"),
        ("<tool_response>", "tool/template"),
        ("\n\n", "whitespace"), ("\u2003", "whitespace"),
        (" 42", "digit"), ("3.14", "digit"), ("\u0663", "digit"),
        ('{"', "code"), (" ==", "code"), ("\\", "code"), ('":{"', "code"),
        ("__", "code"), (" ____", "code"), (") {", "code"), ("=0", "other"),
        (" the", "other"), (".", "other"), ("x=", "other"), ("\ufffd", "other"), ("I'm", "other"),
    ],
)  # fmt: skip
def test_a_token_is_of_one_type(text: str, kind: str) -> None:
    """By its text alone."""
    assert KINDS[kind_of(text)] == kind


@pytest.mark.parametrize("part", ["=", "1", "_", " ", "<|", "<a_"])
def test_a_long_text_is_read_once(part: str) -> None:
    """A token of a million characters takes no time that grows with its square."""
    assert KINDS[kind_of(part * (10**6 // len(part)) + "é.")] == "other"


def test_types_are_told_where_the_text_is_known() -> None:
    """An id without text is in no bin; one with text counts once for each place it stands."""
    kinds = kinds_of(np.array([5, 7, 5, 9]), {"5": " the", "9": "12"})
    assert [KINDS[k] if k >= 0 else None for k in kinds] == ["other", None, "other", "digit"]
    rows = breakdowns(of_d([0.1, 0.2, 0.3, 0.4], [4]), kinds=kinds)["token_type"]
    assert [(r["bin"], r["tokens"]) for r in rows] == [("digit", 1), ("other", 2)]
