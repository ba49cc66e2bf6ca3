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
from mismatch.report.routed import in_short
from mismatch.report.shares import HEAD, LEGEND, cells, shares_of
from mismatch.report.words import (
    NONE,
    clean,
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
    plain = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    escaped = _ACTIVE.sub(r"\\\1", plain)
    plain_words = escaped.replace("@", "@<!-- -->").replace("://", ":<!-- -->//")
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
        Block(_notes(pairs)),
        *_attributions(summary),
        _distributions(pairs),
        _forks(pairs),
        _routes(pairs),
        _failed(failures),
        _checks(pairs),
        _breakdown(first),
        _prefixes(first),
        _corrections(first),
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
    "pairs", "checks", "failed", "attributions", "breakdown", "prefixes", "corrections",
    "distributions", "forks", "routes", "sides",
)  # fmt: skip


def _pair_table(pairs: Sequence[Pair]) -> Block:
    head = (
        "pair", "verdict", "tokens (sequences)", "k3 [95%]", "mean abs d [95%]",
        "floor k3, train or left", "floor k3, infer or right", "excess k3 [95%]",
    )  # fmt: skip
    rows = [_pair_row(p) for p in pairs]
    return table(head, rows, cut=CUT.index("pairs"), first=_worth_keeping(pairs))


def _worth_keeping(pairs: Sequence[Pair]) -> list[int]:
    """What cannot be believed before the gaps, and large gaps before small ones."""

    def rank(k: int) -> tuple[bool, float]:
        return noise(pairs[k]).tone != "broken", -(pairs[k].metric("k3").value or 0.0)

    return sorted(range(len(pairs)), key=rank)


def _pair_row(pair: Pair) -> list[str]:
    found = noise(pair)
    reason = f": {cell(found.reason)}" if found.tone == "broken" else ""
    return [
        code(pair.id),
        f"**{found.verdict}**{reason}",
        f"{pair.tokens:,} ({pair.sequences:,})",
        _value(pair.metric("k3"), pair),
        _value(pair.metric("abs_logprob_diff_mean"), pair),
        *(_floors(pair, slot) for slot in SLOTS),
        _value(pair.excess("k3"), pair),
    ]


def _value(found: Estimate, pair: Pair) -> str:
    if found.value is None:
        return NONE
    beside = interval(found) if found.has_interval else why_no_interval(pair.sequences)
    return f"{number(found.value)} {beside}"


def _floors(pair: Pair, slot: str) -> str:
    said = []
    batch, repeat = (pair.floor(name, slot, "k3") for name in ("batch", "repeat"))
    if batch is not None:
        said.append(f"batch {_value(batch, pair)}")
    if is_deterministic(pair, slot):
        said.append("repeat: deterministic")
    elif repeat is not None:
        said.append(f"repeat {_value(repeat, pair)}")
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
    found = [p for p in pairs if p.distribution]
    keys = list(dict.fromkeys(k for p in found for k in p.distribution))
    rows = [[code(p.id), *(_value(p.of_distribution(k), p) for k in keys)] for p in found]
    return table(
        ("pair", *map(code, keys)),
        rows,
        title="Whole distribution: top-k, entropy, kept mass" if found else "",
        note=DISTRIBUTION if found else "",
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
        reached(found.median),
        f"{last.length:,} tokens: {_value(last.share, pair)}",
        *("not captured" if floor is None else reached(floor.median) for floor in floors),
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
    said = f"Preflight: {cell(tally(pairs))}"
    if not rows:
        return Block(f"{said}. report.html has the evidence." if found else NOT_RUN)
    note = "What passed, and on what evidence, is in report.html."
    return table(head, rows, title=said, note=note, cut=CUT.index("checks"))


def _breakdown(first: Pair | None) -> Block:
    rows = [] if first is None else first.breakdown("infer_prob")
    if first is None or not rows:
        return Block()
    lines = [
        [
            cell(row.label),
            f"{row.tokens:,}",
            *(_value(row.metric(k), first) for k in ("abs_logprob_diff_mean", "logprob_diff_mean")),
        ]
        for row in rows
    ]
    head = (f"{first.sides[1]} probability", "tokens", "mean abs d [95%]", "mean d [95%]")
    title = f"Gap by probability ({cell(first.id)}, log space)"
    return table(head, lines, title=title, cut=CUT.index("breakdown"))


def _prefixes(first: Pair | None) -> Block:
    rows = [] if first is None else first.prefixes
    if first is None or not rows:
        return Block()
    lines = [
        [f"{row.length:,}", f"{row.sequences:,}", _value(row.ess, first), number(row.predicted)]
        for row in rows
    ]
    head = ("first L scored tokens", "sequences", "ESS / n [95%]", "exp(-2 L k3)")
    title = f"Effective sample by length ({cell(first.id)}, ratio space)"
    return table(head, lines, title=title, cut=CUT.index("prefixes"))


def _corrections(first: Pair | None) -> Block:
    rows = [] if first is None else first.corrections
    if first is None or not rows:
        return Block()
    lines = [
        [
            code(row.name),
            cell(row.level),
            cell(row.rule),
            f"{percent(row.whole.affected.value)} {percents(row.whole.affected)}",
            _value(row.whole.ess, first),
        ]
        for row in rows
    ]
    head = ("correction", "level", "rule", "affected, % [95%]", "ESS / n [95%]")
    title = f"What a correction would do ({cell(first.id)}, ratio space)"
    return table(head, lines, title=title, cut=CUT.index("corrections"))


def _sides(first: Pair | None, differences: Sequence[Difference] | None) -> Block:
    if first is None or not differences:
        return Block()
    rows = [[code(name), cell(left), cell(right)] for name, left, right in differences]
    left, right = first.traces
    head = ("fact", f"{first.sides[0]}: {code(left)}", f"{first.sides[1]}: {code(right)}")
    title = f"How the two sides differ ({len(rows)} facts)"
    return table(head, rows, title=title, cut=CUT.index("sides"))
