"""The tables on a terminal: complete at 80 columns, and deaf to escape codes in foreign text."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mismatch.report.tables import attributions, terminal
from tests.unit.report import runs
from tests.unit.report.runs import failed_pair, inner_pair, pair, summary_of


def shown(*pairs: runs.Summary, width: int = 80) -> str:
    out = io.StringIO()
    terminal(summary_of(*pairs), Console(file=out, width=width, force_terminal=False))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_every_number_is_whole_at_usual_widths(width: int) -> None:
    """No column is cut: value, interval, floors, excess and its interval are all there."""
    text = shown(pair(), inner_pair(), width=width)
    for said in ("1.00e-3", "[8.0e-4, 1.2e-3]", "1.00e-4", "2.00e-4", "8.50e-4", "more than noise"):
        assert said in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


@pytest.mark.parametrize("width", [80, 120])
def test_an_interval_that_is_not_trusted_is_marked_and_cuts_no_column(width: int) -> None:
    """The mark stands below its interval; the finding has the words on one line."""
    excess = {key: {**runs.estimate(8.5e-4), "trusted": False} for key in ("k2", "k3")}
    text = shown(pair(excess=excess), width=width)
    assert "not trusted" in text
    assert "interval not trusted" in " ".join(text.split())
    assert "[6.8e-4, 1.0e-3]" in text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width


def test_a_failed_pair_stands_in_the_table_with_its_reason() -> None:
    """It is never dropped, and its numbers are dashes."""
    text = shown(pair(), failed_pair())
    assert "hf-bf16-sdpa against sglang" in text
    assert "failed" in text
    assert "no sgl_kernel" in " ".join(text.split())
    assert "—" in text


def test_a_deterministic_side_is_named_not_zero() -> None:
    """A repeat floor of 0 without a batch floor is printed as deterministic."""
    still = {"train": runs.metrics(0.0), "infer": runs.metrics(0.0)}
    assert "deterministic" in shown(pair(floor={"repeat": still}, excess=None))


def test_escape_codes_and_markup_of_foreign_text_are_inert() -> None:
    """An error message cannot colour, clear or forge lines of the terminal."""
    text = shown(failed_pair("\x1b[2J[red]gone[/red]\r\u202efake"))
    assert "\x1b" not in text
    assert "\r" not in text
    assert "\u202e" not in text
    assert "[red]gone[/red]" in text


def test_unchecked_preflight_is_told() -> None:
    """Not checked is counted beside pass; no check at all has its own sentence."""
    assert "1 not checked, 1 pass" in shown(pair())
    assert "stale weights" in shown(pair(preflight=[]))


def test_an_empty_summary_prints_no_evidence() -> None:
    """Nothing compared prints the finding and no table."""
    assert "no evidence" in shown()


def shares_shown(width: int) -> str:
    knobs = []
    for name in ("quantization", "repetition_penalty", "engine"):
        found = {k: runs.estimate(0.431) for k in ("share", "alone_share", "interaction")}
        alone = {"alone_k3": runs.estimate(3.5e-11), "resolved_from_next": False}
        knobs.append({"knob": name, **found, **alone})
    one = {
        "id": "why", "left": "a", "right": "b", "missing": [], "tokens": 90, "sequences": 9,
        "dropped": 0, "method": "shapley", "gap": {"k3": runs.estimate(1e-3)}, "knobs": knobs,
        "folded": ["dtype", "autocast"],
    }  # fmt: skip
    out = io.StringIO()
    attributions({"attributions": [one]}, Console(file=out, width=width, force_terminal=False))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 100, 160])
def test_no_knob_and_no_number_of_an_attribution_is_cut(width: int) -> None:
    """Long names, headers and intervals stand whole on one line each, inside the screen."""
    text = shares_shown(width)
    whole = ("quantization", "repetition_penalty", "interaction", "[34.5, 51.7]", "43.1%")
    for said in (*whole, "[2.80e-11, 4.20e-11]", "not resolved"):
        assert said in text, text
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
