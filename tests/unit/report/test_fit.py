"""report.md fits a comment on a pull request, and says what it left out."""

from __future__ import annotations

from typing import Any

import pytest

from mismatch.report.fit import COMMENT, Block, clipped, fitted, table
from mismatch.report.markdown import markdown
from tests.unit.report.runs import HOSTILE, estimate, failed_pair, metrics, pair, summary_of

CHECKS = {
    verdict: {"rung": f"rung {verdict}", "verdict": verdict, "evidence": "e", "todo": "t"}
    for verdict in ("pass", "fail", "not checked")
}


def many(count: int, **changes: Any) -> list[dict[str, Any]]:
    """Pairs of different ids and sizes, the largest gap last."""
    return [pair(id=f"hf~vllm-{k:04d}.decode", k3=1e-3 + 1e-6 * k, **changes) for k in range(count)]


def test_what_fits_is_not_cut() -> None:
    """Forty pairs stand in the report whole."""
    text = markdown(summary_of(*many(40)))
    assert all(f"vllm-{k:04d}.decode` |" in text for k in range(40))
    assert "left out" not in text


def test_many_pairs_fit_and_the_cut_is_said() -> None:
    """Of 1000 pairs the one that failed and the largest gaps stay, in their order, with the count
    of what is cut."""
    pairs = many(1000)
    pairs[500] = failed_pair()
    text = markdown(summary_of(*pairs))
    found = [line for line in text.splitlines() if line.startswith("| `hf")]
    *rows, why = found  # the last line says why the one that failed cannot be believed
    assert len(text) <= COMMENT and len(rows) > 200 and "The capture failed" in why
    assert f"*{1000 - len(rows):,} of 1,000 rows are left out here; report.html has them.*" in text
    assert sum("sglang.decode" in row for row in rows) == 1
    kept = [row.split("`")[1] for row in rows if "sglang" not in row]
    largest = [f"hf~vllm-{k:04d}.decode" for k in range(1000) if k != 500]
    assert kept == largest[-len(kept) :]


@pytest.mark.parametrize("length", [10, 10_000])
def test_hostile_text_of_any_length_fits(length: int) -> None:
    """Evidence, provenance, failures and sampler notes that are all escape codes do not push it
    over."""
    long = (HOSTILE + "@www.x#1") * (length // 10)
    check = {**CHECKS["fail"], "evidence": long, "todo": long}
    pairs = [{**p, "preflight": [{**check, "rung": str(k)}]} for k, p in enumerate(many(99))]
    differ = [(f"facts.{k}", long, long) for k in range(500)]
    failures = [(f"sglang/decode-{k}", long) for k in range(500)]
    text = markdown(summary_of(*pairs, failed_pair(long)), differ, failures)
    assert len(text) <= COMMENT
    assert "hf~vllm-0098.decode" in text and "left out" in text


def test_reasons_leave_room_for_the_pairs() -> None:
    """Of thirty pairs that cannot be believed twenty say why, and the rest is counted."""
    text = markdown(summary_of(*(failed_pair(f"reason {k}.") for k in range(30))))
    assert "reason 19." in text and "reason 20." not in text
    assert "10 pairs more: report.html has the reasons." in text


def test_the_ladder_is_short_where_nothing_failed() -> None:
    """Rungs that passed are counted; those that failed or were not checked have rows."""
    passed = markdown(summary_of(pair(preflight=[CHECKS["pass"]])))
    assert "Preflight: 1 pass. report.html has the evidence." in passed
    assert "rung pass" not in passed
    mixed = markdown(summary_of(pair(preflight=list(CHECKS.values()))))
    assert "| rung fail | **fail** |" in mixed and "| rung not checked |" in mixed
    assert "rung pass" not in mixed and "1 fail, 1 not checked, 1 pass" in mixed


def test_a_list_of_many_pairs_is_shortened() -> None:
    """A sentence that names pairs names some of them, and how many more."""
    marked = metrics(1e-3)
    marked["k3"] = {**estimate(1e-3), "trusted": False}
    text = markdown(summary_of(*many(20, metrics=marked), pair()))
    assert "vllm-0005.decode and 14 more: interval not trusted" in text


def test_the_most_dispensable_table_is_cut_first() -> None:
    """A table loses rows only when all that are cut before it have none left."""
    rows = [[f"row {k}", "x" * 90] for k in range(50)]
    first, last = (table(("a", "b"), rows, title=t, cut=c) for t, c in (("early", 1), ("late", 0)))
    text = fitted([Block("head"), last, first], 6000)
    early = text[text.index("early") :]
    assert len(text) <= 6000 and "row 49" in text[: text.index("early")]
    assert early.count("| row") < 20 and "left out" in early
    empty = fitted([Block("head"), last, first], 3000)
    assert "*50 of 50 rows are left out" in empty and len(empty) <= 3000


def test_a_clipped_text_says_how_much_is_missing() -> None:
    """Nothing is lost in silence."""
    assert clipped("abc", 3) == "abc"
    assert clipped("abcdef", 3) == "abc… (3 more characters)"
