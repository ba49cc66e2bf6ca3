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


def _with(
    summary: str, pair: str, metric: str, to: dict[str, float], block: str = "metrics"
) -> page.Read:
    """The kept summaries, but for one metric of one pair."""

    def read(name: str) -> Any:
        kept = copy.deepcopy(page.read_kept(name))
        if name == summary:
            next(p for p in kept["pairs"] if p["id"] == pair)[block][metric] = to
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


def _verdict(number: int, read: page.Read = page.read_kept) -> str:
    claim = CLAIMS[number - 1]
    return page.verdict(claim, page.figures_of(claim, read))


def test_a_largest_that_rises_as_the_mean_does_confirms_nothing() -> None:
    """Claim 3 takes a largest that rises by more than the mean, with the whole interval."""
    assert _verdict(3) == "not confirmed"
    pair, metric = "hf-bf16-sdpa~vllm-bf16-eager.rollout", "seq_max_prob_diff_mean"
    read = _with("claims/short", pair, metric, {"value": 0.011, "low": 0.01, "high": 0.012})
    assert _verdict(3, read) == "confirmed"


def test_prefill_and_decode_differ_only_beyond_the_floor() -> None:
    """Claim 17 goes by the excess of both engines; a gap that the batch floor explains is none."""
    assert _verdict(17) == "not confirmed"
    above = {"value": 2e-4, "low": 1e-4, "high": 3e-4}
    pair = "vllm-bf16-eager.decode..prefill"
    assert _verdict(17, _with("smollm2-135m/bf16", pair, "k3", above, "excess")) == "confirmed"


def test_a_confirmed_direction_is_not_sold_as_a_size() -> None:
    """Where a rule asks only for a side of a limit, the verdict says so behind it."""
    for claim in CLAIMS:
        one_sided = any(f.above is not None or f.below is not None for f in claim.figure)
        if one_sided and _verdict(claim.number) == "confirmed":
            assert "direction" in claim.part, claim.number


@pytest.mark.parametrize(
    ("number", "figure", "published", "said", "where"),
    [
        (1, "k3_ratio", 100.0, "100 lies above", 1),
        (1, "k3_ratio", 64.0, "64 inside", 0),
        (7, "ratio", 33.0, "33 lies below", -1),
        (8, "share", 0.377, "37.7% lies below", -1),
    ],
)
def test_where_a_published_size_lies_is_said_as_it_is(
    number: int, figure: str, published: float, said: str, where: int
) -> None:
    """Above, in or below our interval."""
    claim = CLAIMS[number - 1]
    at = page.figures_of(claim)[figure].estimate
    assert at.low is not None and at.high is not None
    assert (published > at.high) - (published < at.low) == where
    assert said in claim.part


def test_the_overview_shows_the_rules_behind_a_verdict() -> None:
    """Of the figures shown and of all that do not hold, with what became of them."""
    figures = [
        Figure(id="a", label="A", above=0.5),
        Figure(id="b", label="B", above=2.0),
        Figure(id="c", label="C", above=0.5),
        Figure(id="d", label="D"),
    ]
    claim = Claim(
        number=1, claim="", published="", source="", tag="", part="P", why="",
        shows=("a", "d"), figure=tuple(figures),
    )  # fmt: skip
    row = page._overview(claim, {f.id: Found(SOME) for f in figures}, "not confirmed")
    rules = "Rules: A: above 0.500; B: above 2.00, open; 1 more that holds"
    assert row.endswith(f"| **not confirmed** (of it: P). {rules} |")


def test_the_readme_tells_the_counts_and_which_pairs_are_marked() -> None:
    """Counts of verdicts, and hf against vllm with a metric that is not trusted, as they are."""
    text = " ".join((page.REPORTS / "README.md").read_text(encoding="utf-8").split())
    said = [_verdict(claim.number) for claim in CLAIMS]
    n = {v: said.count(v) for v in set(said)}
    assert f"{n['confirmed']} are confirmed, {n['not confirmed']} are not" in text
    assert f"{n['differs']} differ" in text
    marked: dict[str, set[str]] = {"metrics": set(), "excess": set()}
    for file in page.HERE.glob("*/summary.json"):
        for pair in page.read_kept(f"claims/{file.parent.name}")["pairs"]:
            for block, names in marked.items():
                values = (pair[block] or {}).values()
                if any(isinstance(v, dict) and v.get("trusted") is False for v in values):
                    names.add(f"{file.parent.name} {pair['id'].rpartition('.')[0]}")
    assert marked["metrics"] == {
        "routes hf~vllm",
        "injected hf-bf16-sdpa-damage_other~vllm-bf16-eager",
    }
    folders = {name.partition(" ")[0] for name in marked["excess"]}
    assert folders == {"lse", "routes"}
    replayed = {name for name in marked["excess"] if name.startswith("routes ")}
    assert replayed == {"routes hf~vllm"} and "not replayed (its excess too)" in text
    said_of_lse = "In lse, by the rule before small floors were let pass, the excess of k2 and k3"
    assert said_of_lse in text


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


def test_a_length_that_was_not_reached_keeps_the_bound_that_is_known() -> None:
    """Half forked by token 248, by 139 at the earliest; not a number alone."""
    assert page._value(Found(Estimate(248.0, 139.0, None))) == "248 [139, not reached]"
    assert page._value(Found(Estimate(248.0, None, None))) == "248"


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
