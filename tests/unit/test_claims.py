"""The page of published claims says what the kept summaries say, by rules that can fail."""

from __future__ import annotations

import copy
import re
from typing import Any

import pytest

from mismatch.report.pairs import NOTHING, Estimate
from reports.claims import page
from reports.claims.page import Claim, Figure, Found

CLAIMS = page.read_claims()
#: Figures that are read, not made.
READ = [(c.number, f) for c in CLAIMS for f in c.figure if f.summary]


def test_all_claims_are_there_once() -> None:
    """The 21 claims, in order."""
    assert [c.number for c in CLAIMS] == list(range(1, 22))


def test_the_page_is_what_the_summaries_give() -> None:
    """`make claims` would change no byte of the page that is kept."""
    assert (page.HERE / "README.md").read_text(encoding="utf-8") == page.page(CLAIMS)


@pytest.mark.parametrize(("number", "figure"), READ, ids=lambda x: getattr(x, "id", x))
def test_every_figure_is_found(number: int, figure: Figure) -> None:
    """A key that leads nowhere would be printed as missing evidence, and be a slip of the pen."""
    found = page.figures_of(CLAIMS[number - 1])[figure.id]
    assert found.text != "nothing" and (found.text or found.estimate.value is not None)


def test_no_figure_of_ours_is_typed() -> None:
    """A sentence reads its measured figures by name: none looks like one."""
    typed = re.compile(r"\d\.\d\d|\de-\d")
    assert not [c.number for c in CLAIMS if typed.search(c.why)]


def test_a_claim_without_a_rule_says_what_it_needs() -> None:
    """Not measured is never without a reason."""
    for claim in CLAIMS:
        if page.verdict(claim, page.figures_of(claim)) == "not measured here":
            assert claim.needs


def _with(summary: str, pair: str, metric: str, to: dict[str, float]) -> page.Read:
    """The kept summaries, but for one metric of one pair."""

    def read(name: str) -> Any:
        kept = copy.deepcopy(page.read_kept(name))
        if name == summary:
            next(p for p in kept["pairs"] if p["id"] == pair)["metrics"][metric] = to
        return kept

    return read


def test_another_summary_is_another_page() -> None:
    """fp16 as far apart as bf16: the figure changes, and claim 1 no longer holds."""
    pair = "hf-fp16-sdpa~vllm-fp16-eager.decode"
    read = _with("smollm2-135m/fp16", pair, "k3", {"value": 2e-3, "low": 1.9e-3, "high": 2.1e-3})
    claim = CLAIMS[0]
    assert page.verdict(claim, page.figures_of(claim)) == "confirmed"
    assert page.verdict(claim, page.figures_of(claim, read)) == "differs"
    assert page.page(CLAIMS, read) != page.page(CLAIMS)


def test_a_count_is_shown_as_one_and_judged_as_a_number() -> None:
    """20 runs, not 20.0; forks have the floors of their own curve beside them."""
    kept = {"pairs": [{"id": "p", "forks": {
        "forked": 20, "share": {"value": 0.7, "low": 0.6, "high": 0.8},
        "floor": {"batch": {"infer": {"share": {"value": 1.0, "low": 0.9, "high": 1.0}}}},
    }}]}  # fmt: skip
    count, share = (
        page._find(_figure(summary="s", pair="p", key=("forks", key)), lambda _: kept)
        for key in ("forked", "share")
    )
    assert str(count) == "20" and page.judge(_figure(exactly=20.0), {"x": count}) == "holds"
    assert share.floors is not None and [f.value for f in share.floors] == [None, 1.0]


def _figure(**rule: Any) -> Figure:
    return Figure(id="x", label="x", **rule)


SOME = Estimate(2.0, 1.0, 3.0)


@pytest.mark.parametrize(
    ("rule", "at", "outcome"),
    [
        ({"within": (0.5, 4.0)}, SOME, "holds"),
        ({"within": (1.5, 4.0)}, SOME, "open"),
        ({"within": (3.5, 4.0)}, SOME, "fails"),
        ({"above": 0.5}, SOME, "holds"),
        ({"above": 1.0}, SOME, "open"),
        ({"above": 3.0}, SOME, "fails"),
        ({"below": 4.0}, SOME, "holds"),
        ({"below": 2.0}, SOME, "open"),
        ({"below": 1.0}, SOME, "fails"),
        ({"contains": 1.5}, SOME, "holds"),
        ({"contains": 3.5}, SOME, "fails"),
        ({"exactly": 2.0}, SOME, "holds"),
        ({"exactly": 2.1}, SOME, "fails"),
        ({"exactly": 2.0}, NOTHING, "open"),
        ({"above": 0.0}, NOTHING, "open"),
        ({"above": 0.5}, Estimate(2.0, 1.0, 3.0, trusted=False), "open"),
        ({"above": 0.5}, Estimate(2.0, None, None), "open"),
        ({"contains": 2.0}, Estimate(2.0, None, None), "open"),
        ({}, SOME, None),
    ],
)
def test_a_rule_is_judged_by_the_whole_interval(
    rule: dict[str, Any], at: Estimate, outcome: str | None
) -> None:
    """A value on the right side of a limit proves nothing where its interval straddles it."""
    assert page.judge(_figure(**rule), {"x": Found(at)}) == outcome


def test_an_interval_meets_another_times_a_number() -> None:
    """A negative factor turns the other interval round."""
    rule = _figure(meets="y", times=-1000.0)
    other = Found(Estimate(2e-3, 1e-3, 3e-3))
    for at, outcome in (((-4.0, -2.5), "holds"), ((-0.5, 0.5), "fails"), ((2.0, 3.0), "fails")):
        found = {"x": Found(Estimate(sum(at) / 2, *at)), "y": other}
        assert page.judge(rule, found) == outcome


@pytest.mark.parametrize(
    ("a", "b", "made"),
    [
        (Estimate(4.0, 2.0, 6.0), Estimate(2.0, 1.0, 4.0), (2.0, 0.5, 6.0)),
        (Estimate(-4.0, -6.0, -2.0), Estimate(-2.0, -4.0, -1.0), (2.0, 0.5, 6.0)),
        (Estimate(4.0, -2.0, 6.0), Estimate(2.0, 1.0, 4.0), (2.0, None, None)),
        (Estimate(4.0, 2.0, 6.0), Estimate(0.0, 0.0, 0.0), (None, None, None)),
    ],
)
def test_a_ratio_has_the_bounds_of_both(
    a: Estimate, b: Estimate, made: tuple[float | None, ...]
) -> None:
    """The least by the most and the most by the least, for figures of one sign."""
    found = page._ratio(a, b)
    assert (found.value, found.low, found.high) == made


@pytest.mark.parametrize(
    ("outcomes", "said"),
    [("hh", "confirmed"), ("ho", "not confirmed"), ("hof", "differs"), ("", "not measured here")],
)
def test_the_verdict_follows_from_all_rules(outcomes: str, said: str) -> None:
    """One failure differs, whatever else is open."""
    limit = {"h": 0.5, "o": 2.0, "f": 4.0}
    figures = [Figure(id=str(k), label="", above=limit[o]) for k, o in enumerate(outcomes)]
    claim = Claim(number=1, claim="", published="", source="", tag="", why="", figure=figures)
    assert page.verdict(claim, {f.id: Found(SOME) for f in figures}) == said


def test_kept_summaries_are_small() -> None:
    """No summary of the folder is over 300 kB, and no page is kept with them."""
    kept = list(page.HERE.glob("*/*"))
    assert {p.name for p in kept} <= {"summary.json", "report.md"}
    assert max(p.stat().st_size for p in kept) < 300_000
