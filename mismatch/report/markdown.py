"""report.md: what fits a comment on a pull request. All foreign text is escaped for GitHub's
Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mismatch.glossary import DISTRIBUTION, FORKS, ROUTES_NOTE, SURVIVAL
from mismatch.report.checks import NOT_RUN, grouped, tally, where
from mismatch.report.finding import finding, notices
from mismatch.report.fit import CELL, SENTENCE, Block, clipped, fitted, table
from mismatch.report.noise import is_deterministic, noise
from mismatch.report.pairs import SLOTS, Estimate, Forks, Pair, lead, pairs_of
from mismatch.report.provenance import NOT_RECORDED
from mismatch.report.routed import in_short
from mismatch.report.shares import HEAD, LEGEND, cells, shares_of
from mismatch.report.words import (
    NONE,
    clean,
    count,
    interval,
    number,
    percent,
    percents,
    reached,
    why_no_interval,
)

#: A differing provenance row: name, left, right.
Difference = tuple[str, str, str]

_ACTIVE = re.compile(r"([\\`*_~\[\]|$])")


def escape(text: str) -> str:
    """Foreign text as itself: no Markdown, no HTML, no table cell breaks, no link, no @mention, no
    #reference.
    """
    return _unlinked(_ACTIVE.sub(r"\\\1", _no_tags(text)))


def inside_html(text: str) -> str:
    """The same for what stands in an HTML element: GitHub reads no Markdown there, so a backslash
    would be shown. Links, mentions and references are looked for in its text all the same.
    """
    return _unlinked(_no_tags(clipped(text, CELL)))


def _no_tags(text: str) -> str:
    return clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _unlinked(text: str) -> str:
    plain_words = text.replace("@", "@<!-- -->").replace("://", ":<!-- -->//")
    return re.sub(r"(?i)www(?=\.)|#(?=\d)", r"\g<0><!-- -->", plain_words)


def code(text: str) -> str:
    """An identifier. Neither a backtick nor a pipe can be escaped inside backticks in a table."""
    plain = clipped(clean(text), CELL)
    safe = plain and not set(plain) & set("`|")
    return f"`{plain}`" if safe else f"<code>{escape(plain)}</code>"


def cell(text: str) -> str:
    """Foreign text in a table: an engine's message may be a page of its own."""
    return escape(clipped(text, CELL))


def sentence(text: str) -> str:
    """Foreign text outside of tables."""
    return escape(clipped(text, SENTENCE))


def markdown(
    summary: Mapping[str, Any],
    differences: Sequence[Difference] | None = None,
    failures: Sequence[tuple[str, str]] = (),
) -> str:
    """The report as Markdown.

    differences: provenance rows in which the two sides of the first pair differ; None: not read.
    failures: (capture, sentence) for every capture that failed.
    """
    pairs = pairs_of(summary)
    first = lead(pairs)
    blocks = [
        Block(_title(first)),
        Block("\n".join(_bold_head(line) for line in finding(summary))),
        _pair_table(pairs),
        _doubts(pairs),
        Block(_notes(pairs)),
        _floor_table(pairs),
        *_attributions(summary),
        _distributions(pairs),
        _forks(pairs),
        _routes(pairs),
        _failed(failures),
        _checks(pairs),
        *([] if first is None else [_breakdown(first), _prefixes(first), _corrections(first)]),
        _sides(first, differences),
    ]
    return fitted(blocks)


def _title(first: Pair | None) -> str:
    if first is None:
        return "## Train–inference mismatch: no evidence"
    verdict = noise(first).verdict
    return f"## Train–inference mismatch: {verdict} ({cell(first.path)})"


def _bold_head(line: str) -> str:
    head, _, rest = line.partition(": ")
    return f"- **{cell(head)}:** {sentence(rest)}"


#: Which tables lose rows first, where all is too long for a comment.
CUT = (
    "doubts", "pairs", "checks", "failed", "floors", "attributions", "breakdown", "prefixes",
    "corrections", "distributions", "forks", "routes", "sides",
)  # fmt: skip


#: Pairs whose reason is told: more would leave no room for the pairs themselves.
_MOST_DOUBTS = 20


def _pair_table(pairs: Sequence[Pair]) -> Block:
    """Narrow: GitHub gives a comment some 830 pixels, and where a table asks for more, a browser
    breaks numbers at their hyphens. So a line of a cell holds no more than an interval."""
    head = ("pair", "verdict<br>tokens (sequences)", "k3<br>[95%]", "excess k3<br>[95%]")
    rows = [_pair_row(p) for p in pairs]
    return table(head, rows, cut=CUT.index("pairs"), first=_worth_keeping(pairs))


def _doubts(pairs: Sequence[Pair]) -> Block:
    """Why a pair cannot be believed: whole sentences, which would take the room of the numbers."""
    found = [(p, why) for p in pairs if (why := noise(p)).tone == "broken"]
    rows = [[code(p.id), cell(why.reason)] for p, why in found[:_MOST_DOUBTS]]
    more = len(found) - len(rows)
    return table(
        ("pair", "why its numbers count for nothing"),
        rows,
        note=f"{count(more, 'pair')} more: report.html has the reasons." if more else "",
        cut=CUT.index("doubts"),
    )


def _floor_table(pairs: Sequence[Pair]) -> Block:
    head = (
        "pair", "mean abs d<br>[95%]", "floor k3,<br>train or left", "floor k3,<br>infer or right",
    )  # fmt: skip
    rows = [
        [
            code(p.id),
            _stacked(p.metric("abs_logprob_diff_mean"), p),
            *(_floors(p, slot) for slot in SLOTS),
        ]
        for p in pairs
    ]
    return table(
        head,
        rows,
        title="The floors beneath, and mean abs d" if rows else "",
        cut=CUT.index("floors"),
        first=_worth_keeping(pairs),
    )


def _worth_keeping(pairs: Sequence[Pair]) -> list[int]:
    """What cannot be believed before the gaps, and large gaps before small ones."""

    def rank(k: int) -> tuple[bool, float]:
        return noise(pairs[k]).tone != "broken", -(pairs[k].metric("k3").value or 0.0)

    return sorted(range(len(pairs)), key=rank)


def _pair_row(pair: Pair) -> list[str]:
    return [
        code(pair.id),
        f"**{noise(pair).verdict}**<br>{pair.tokens:,} ({pair.sequences:,})",
        _stacked(pair.metric("k3"), pair),
        _stacked(pair.excess("k3"), pair),
    ]


def _stacked(found: Estimate, pair: Pair) -> str:
    """The value above its interval, and each doubt on a line of its own."""
    value, _, beside = _value(found, pair).partition(" ")
    lines = beside.replace("], ", "],<br>").replace(" (", "<br>(")
    return f"{value}<br>{lines}" if lines else value


def _value(found: Estimate, pair: Pair) -> str:
    if found.value is None:
        return NONE
    beside = interval(found) if found.has_interval else why_no_interval(pair.sequences)
    return f"{number(found.value)} {beside}"


def _floors(pair: Pair, slot: str) -> str:
    said = []
    batch, repeat = (pair.floor(name, slot, "k3") for name in ("batch", "repeat"))
    if batch is not None:
        said.append(f"batch {_stacked(batch, pair)}")
    if is_deterministic(pair, slot):
        said.append("repeat: deterministic")
    elif repeat is not None:
        said.append(f"repeat {_stacked(repeat, pair)}")
    return "<br>".join(said) or "not captured"


def _notes(pairs: Sequence[Pair]) -> str:
    said = " ".join(map(sentence, notices(pairs)))
    return (
        "d = lp_train - lp_infer in nats (left - right in pairs of another kind); "
        "k3 = mean(expm1(d) - d), log space, over tokens. Intervals are 95%, bootstrap over "
        "sequences. A floor is the same side against itself: in another batch (batch), or once "
        f"more (repeat). Excess = k3 - (floor + floor) / 2. {said}".rstrip()
    )


def _distributions(pairs: Sequence[Pair]) -> Block:
    """A row for each pair and number: a dozen columns would not fit."""
    rows = [
        [code(p.id), code(k), _value(p.of_distribution(k), p)]
        for p in pairs
        for k in p.distribution
    ]
    return table(
        ("pair", "what", "mean [95%]"),
        rows,
        title="Whole distribution: top-k, entropy, kept mass" if rows else "",
        note=DISTRIBUTION if rows else "",
        cut=CUT.index("distributions"),
    )


def _forks(pairs: Sequence[Pair]) -> Block:
    found = [(p, f) for p in pairs if (f := p.forks) is not None]
    rows = [_fork_row(pair, forks) for pair, forks in found]
    head = (
        "pair", "sequences that differ (or tie)", "first token that differs", "median [95%]",
        "agree to the last length told [95%]", "median of the batch floor, train or left",
        "infer or right",
    )  # fmt: skip
    kinds = dict.fromkeys(f.greedy for _, f in found)
    note = ". ".join([f"{SURVIVAL[0].upper()}{SURVIVAL[1:]}", *(FORKS[k] for k in kinds)])
    title = "How long the likeliest tokens agree" if found else ""
    return table(head, rows, title=title, note=f"{note}." if found else "", cut=CUT.index("forks"))


def _fork_row(pair: Pair, found: Forks) -> list[str]:
    last = found.agreement[-1]
    floors = (pair.forks_of_floor("batch", slot) for slot in SLOTS)
    return [
        code(pair.id) + (" (greedy run)" if found.greedy else ""),
        f"{found.forked:,} ({found.forked_or_tied:,}) of {found.sequences:,}",
        NONE if found.first is None else f"{found.first:,}",
        reached(found.median, found.sequences),
        f"{last.length:,} tokens: {_value(last.share, pair)}",
        *(
            "not captured" if floor is None else reached(floor.median, floor.sequences)
            for floor in floors
        ),
    ]


def _routes(pairs: Sequence[Pair]) -> Block:
    rows = [
        [code(p.id), cell(told.what), f"{told.tokens:,}", _value(told.value, p)]
        for p in pairs
        for told in in_short(p)
    ]
    return table(
        ("pair", "routes", "tokens", "value [95%]"),
        rows,
        title="Which experts each token was sent to" if rows else "",
        note=ROUTES_NOTE if rows else "",
        cut=CUT.index("routes"),
    )


def _attributions(summary: Mapping[str, Any]) -> list[Block]:
    found = shares_of(summary)
    blocks = []
    for one in found:
        rows = [[code(k.knob), *map(cell, cells(k)[1:])] for k in one.knobs]
        title = f"### Which knob: {cell(one.title)}\n\n{sentence(one.finding)}"
        blocks.append(table(HEAD, rows, above=title, cut=CUT.index("attributions")))
    return [*blocks, Block(escape(LEGEND))] if found else []


def _failed(failures: Sequence[tuple[str, str]]) -> Block:
    rows = [[code(capture), cell(sentence)] for capture, sentence in failures]
    above = "### Captures that are missing" if failures else ""
    return table(("capture", "what happened"), rows, above=above, cut=CUT.index("failed"))


def _checks(pairs: Sequence[Pair]) -> Block:
    """What failed and what was not checked; what passed is counted, and told in report.html."""
    found = grouped(pairs)
    rows = [
        [
            cell(check.rung),
            f"**{cell(check.verdict)}**",
            cell(check.evidence),
            cell(check.todo),
            cell(where(ids, pairs)),
        ]
        for check, ids in found
        if check.verdict != "pass"
    ]
    head = ("check", "verdict", "evidence", "to do", "pairs")
    if not rows:
        said = f"Preflight: {cell(tally(pairs))}. report.html has the evidence."
        return Block(said if found else NOT_RUN)
    note = "What passed, and on what evidence, is in report.html."
    title = f"Preflight: {inside_html(tally(pairs))}"
    return table(head, rows, title=title, note=note, cut=CUT.index("checks"))


def _breakdown(first: Pair) -> Block:
    lines = [
        [
            cell(row.label),
            f"{row.tokens:,}",
            *(_value(row.metric(k), first) for k in ("abs_logprob_diff_mean", "logprob_diff_mean")),
        ]
        for row in first.breakdown("infer_prob")
    ]
    head = (f"{cell(first.sides[1])} probability", "tokens", "mean abs d [95%]", "mean d [95%]")
    title = f"Gap by probability ({inside_html(first.id)}, log space)"
    return table(head, lines, title=title, cut=CUT.index("breakdown"))


def _prefixes(first: Pair) -> Block:
    lines = [
        [f"{row.length:,}", f"{row.sequences:,}", _value(row.ess, first), number(row.predicted)]
        for row in first.prefixes
    ]
    head = ("first L scored tokens", "sequences", "ESS / n [95%]", "exp(-2 L k3)")
    title = f"Effective sample by length ({inside_html(first.id)}, ratio space)"
    return table(head, lines, title=title, cut=CUT.index("prefixes"))


def _corrections(first: Pair) -> Block:
    lines = [
        [
            code(row.name),
            cell(row.level),
            cell(row.rule),
            f"{percent(row.whole.affected.value)} {percents(row.whole.affected)}",
            _value(row.whole.ess, first),
        ]
        for row in first.corrections
    ]
    head = ("correction", "level", "rule", "affected, % [95%]", "ESS / n [95%]")
    title = f"What a correction would do ({inside_html(first.id)}, ratio space)"
    return table(head, lines, title=title, cut=CUT.index("corrections"))


def _sides(first: Pair | None, differences: Sequence[Difference] | None) -> Block:
    """Facts that both sides recorded. What one of two engines alone has to say is no difference
    that explains a gap: it is counted."""
    if first is None or not differences:
        return Block()
    both = [row for row in differences if NOT_RECORDED not in row[1:]]
    rows = [[code(name), cell(left), cell(right)] for name, left, right in both]
    left, right = first.traces
    one, other = map(cell, first.sides)
    title = f"How the two sides differ ({count(len(rows), 'fact')})"
    alone = len(differences) - len(both)
    note = f"{count(alone, 'fact')} more, recorded on one side alone: report.html has them."
    return table(
        ("fact", f"{one}: {code(left)}", f"{other}: {code(right)}"),
        rows,
        title=title,
        note=note if alone else "",
        cut=CUT.index("sides"),
    )
