"""report.md: complete, and nothing in foreign text becomes Markdown or HTML."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mismatch.report.markdown import code, escape, inside_html
from mismatch.report.provenance import NOT_RECORDED
from mismatch.report.tables import markdown, terminal
from tests.unit.report import runs
from tests.unit.report.runs import failed_pair, pair, routed, summary_of


def test_escape_leaves_nothing_active() -> None:
    """Pipes, backticks, HTML, links, mentions and control characters are all disarmed."""
    text = escape("a|b `c` <b> [x](http://y) *z* @me\x1b[0m\nnext")
    assert "\n" not in text
    assert "\x1b" not in text
    assert "<b>" not in text
    assert "http://" not in text
    assert "@me" not in text
    for char in "|`[]*":
        assert text.count(char) == text.count("\\" + char)


def test_code_survives_backticks_and_pipes() -> None:
    """An identifier that could close its own span is written another way."""
    assert code("hf~vllm.decode") == "`hf~vllm.decode`"
    assert "`" not in code("a`b").replace("\\`", "")
    assert code("a|b") == "<code>a\\|b</code>"


def test_rows_keep_their_cells_whatever_the_text() -> None:
    """A hostile reason adds no column: neither to the pairs nor to the table that holds it."""
    text = markdown(summary_of(pair(), failed_pair("|x|" + runs.HOSTILE)))
    rows = [line for line in text.splitlines() if line.startswith("|")]
    columns = [row.replace("\\|", "").count("|") - 1 for row in rows]
    assert columns[:7] == [4] * 4 + [2] * 3
    assert "The capture failed" in rows[6] and "<img" not in text


def test_the_table_has_value_interval_floors_and_excess() -> None:
    """Verdict, gap and excess in one line; the mean and both floors in the folded line below."""
    row, below = (x for x in markdown(summary_of(pair())).splitlines() if x.startswith("| `"))
    for said in ("1.00e-3<br>[8.00e-4, 1.20e-3]", "8.50e-4<br>[6.80e-4, 1.02e-3]",
                 "**more than noise**<br>100 (10)"):  # fmt: skip
        assert said in row
    for said in ("batch 1.00e-4<br>[", "repeat: deterministic", "0.0316<br>[0.0253, 0.0379]"):
        assert said in below


@pytest.mark.parametrize(("sequences", "spread"), [(10, 0.2), (4, None)])
def test_no_line_of_the_tables_of_pairs_is_wider_than_an_interval(
    sequences: int, spread: float | None
) -> None:
    """Of negative numbers with a mark too: a browser with too little room breaks at hyphens."""
    marked = {k: {**runs.estimate(-1.23e-4, spread), "trusted": False} for k in ("k2", "k3")}
    found = pair(sequences=sequences, metrics={**runs.metrics(1e-3), **marked}, excess=marked)
    lines = [x for x in markdown(summary_of(found)).splitlines() if x.startswith("| `")]
    for line in lines:
        widest = max(len(part) for cell in line.split("|")[2:] for part in cell.split("<br>"))
        assert widest <= len("repeat: deterministic ") + 4


def test_what_stands_in_a_summary_is_escaped_as_html() -> None:
    """No backslash is shown there, and no tag, link or mention comes of foreign text."""
    text = inside_html("hf~vllm_x <b> @me http://x #1")
    assert "\\" not in text and "hf~vllm_x &lt;b&gt;" in text
    assert "@me" not in text and "http://" not in text and "#1" not in text
    folded = [x for x in markdown(summary_of(pair())).splitlines() if "<summary>" in x]
    assert any("hf-bf16-sdpa~vllm-bf16-eager.decode" in x for x in folded)
    assert not any("\\" in x for x in folded)


def test_corrections_and_ess_by_length_of_the_leading_pair_are_told() -> None:
    """A comment has what the page has of training: affected in percent, ESS, each with bounds."""
    part = {"affected": runs.estimate(0.25), "ess": runs.estimate(0.5)}
    rule = {"name": "token-tis", "level": "token", "rule": "w = min(r, 2)", "by_length": [], **part}
    prefix = {"length": 64, "sequences": 9, "tokens": 576, "ess": part["ess"], "predicted": 0.6}
    text = markdown(summary_of(pair(corrections=[rule], ess_by_length=[prefix])))
    assert (
        "| `token-tis` | token | w = min(r, 2) | 25.0% [20.0, 30.0] | 0.500 [0.400, 0.600] |"
        in text
    )
    assert "| 64 | 9 | 0.500 [0.400, 0.600] | 0.600 |" in text


def test_failures_and_differences_are_told() -> None:
    """Failed captures and the facts in which the sides differ have tables of their own."""
    text = markdown(
        summary_of(pair()), [("facts.x", "1", "2")], [("sglang/decode-1", "load: ImportError: x")]
    )
    assert "| `facts.x` | 1 | 2 |" in text
    assert "| `sglang/decode-1` | load: ImportError: x |" in text


def test_what_one_side_alone_recorded_is_counted_not_listed() -> None:
    """As in the page: an engine's facts that the other never tells explain no gap."""
    unlike = [("a", "1", "2"), ("b", NOT_RECORDED, "2"), ("c", "1", NOT_RECORDED)]
    text = markdown(summary_of(pair()), unlike)
    assert "How the two sides differ (1 fact)" in text and "| `a` | 1 | 2 |" in text
    assert "2 facts more, recorded on one side alone" in text and "`b`" not in text
    only = markdown(summary_of(pair()), unlike[1:])
    assert "differ (0 facts)" in only and "2 facts more" in only
    assert "one side alone" not in markdown(summary_of(pair()), unlike[:1])


def test_emulated_quantisation_is_named_so() -> None:
    """Both conditions that emulate, in the report and on a terminal; nothing where none does."""
    words = "emulated: 4 linear layers rounded to fp8"
    summary = summary_of(pair(emulated={"train": words, "infer": words}))
    console = Console(width=200, record=True, file=io.StringIO())
    terminal(summary, console)
    said = f"{runs.TRAIN}, {runs.INFER}: quantisation {words}."
    assert said in markdown(summary) and said in console.export_text()
    assert "emulated" not in markdown(summary_of(pair()))


def test_an_interval_that_is_not_trusted_says_so_beside_it_and_why_below() -> None:
    """In the row of its pair, and in one sentence that names the pair; nothing where all hold."""
    marked = runs.metrics(1e-3)
    marked["k3"] = {**marked["k3"], "trusted": False}
    text = markdown(summary_of(pair(metrics=marked)))
    row = next(x for x in text.splitlines() if x.startswith("| `"))
    assert "1.00e-3<br>[8.00e-4, 1.20e-3],<br>interval not trusted" in row
    assert row.count("not trusted") == 1
    assert "interval not trusted: too few sequences" in text
    assert "not trusted" not in markdown(summary_of(pair()))


def test_forks_have_a_line_a_pair_and_say_whose_run_it_is() -> None:
    """Counts, the first, the median with what is not reached, the last share, both floors; a
    greedy run is named as one, any other text as none; a pair without top-k has no line."""
    lines = markdown(
        summary_of(
            pair(forks=runs.forks_with_floors()),
            pair("prefill", forks=runs.forks(False)),
            pair("x"),
        )
    ).splitlines()
    greedy, other = (line for line in lines if "9 (10) of 10" in line)
    assert "(greedy run) | 9 (10) of 10 | 2 | 4 [3, not reached]" in greedy
    assert "8 tokens: 0.100 [0.0800, 0.120] | not reached" in greedy
    assert "greedy run" not in other and other.count("not captured") == 2
    (note,) = (line for line in lines if line.startswith("Kaplan-Meier"))
    assert "One side drew these tokens greedily" in note and "Neither side drew" in note


def test_few_sequences_and_missing_floors_have_words() -> None:
    """No interval says why; no floor is `not captured`, never 0."""
    bare = pair(sequences=4, metrics=runs.metrics(1e-3, None), floor=None, excess=None)
    text = markdown(summary_of(bare))
    assert "no interval<br>(fewer than 8 sequences)" in text
    assert "not captured" in text


def test_nothing_compared_is_a_report_too() -> None:
    """An empty summary gives a page that says no evidence."""
    assert markdown(summary_of()).startswith("## Train–inference mismatch: no evidence")


def test_routes_are_told_of_the_pairs_that_have_them() -> None:
    """Rates, the layer that differs most, the groups that have a token; a replay in the notes and
    nothing where no pair captured routes.
    """
    one = pair(routes=routed(), replayed={"train": "99 of 100 routed tokens"})
    text = markdown(summary_of(one, pair("prefill")))
    (table,) = [t for t in text.split("<details>") if "Which experts" in t]
    assert table.count("hf-bf16-sdpa~vllm-bf16-eager.decode") == 6 and "layer 1" in table
    assert "layer 0" not in table and "routes differ" not in table and "| 75 |" in table
    assert "hf-bf16-sdpa: routes replayed: 99 of 100 routed tokens." in text
    assert "Which experts" not in markdown(summary_of(pair()))
