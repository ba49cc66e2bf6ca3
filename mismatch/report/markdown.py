"""report.md: what fits a pull request. All foreign text is escaped for GitHub's Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mismatch.glossary import DISTRIBUTION
from mismatch.report.checks import NOT_RUN, grouped, tally, where
from mismatch.report.finding import emulations, finding, untrusted, who_sampled
from mismatch.report.noise import is_deterministic, noise
from mismatch.report.pairs import SLOTS, Estimate, Pair, lead, pairs_of
from mismatch.report.shares import HEAD, LEGEND, cells, shares_of
from mismatch.report.words import NONE, clean, interval, number, why_no_interval

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
    plain = clean(text)
    safe = plain and not set(plain) & set("`|")
    return f"`{plain}`" if safe else f"<code>{escape(plain)}</code>"


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
        _title(first),
        "\n".join(_bold_head(line) for line in finding(summary)),
        _pair_table(pairs),
        _notes(pairs),
        *_attributions(summary),
        _distributions(pairs),
        _failed(failures),
        _checks(pairs),
        _breakdown(first),
        _sides(first, differences),
    ]
    return "\n\n".join(b for b in blocks if b) + "\n"


def _title(first: Pair | None) -> str:
    if first is None:
        return "## Train–inference mismatch: no evidence"
    verdict = noise(first).verdict
    return f"## Train–inference mismatch: {verdict} ({escape(first.path)})"


def _bold_head(line: str) -> str:
    head, _, rest = line.partition(": ")
    return f"- **{escape(head)}:** {escape(rest)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _pair_table(pairs: Sequence[Pair]) -> str:
    head = (
        "pair", "verdict", "tokens (sequences)", "k3 [95%]", "mean abs d [95%]",
        "floor k3, train or left", "floor k3, infer or right", "excess k3 [95%]",
    )  # fmt: skip
    return _table(head, [_pair_row(p) for p in pairs]) if pairs else ""


def _pair_row(pair: Pair) -> list[str]:
    found = noise(pair)
    reason = f": {escape(found.reason)}" if found.tone == "broken" else ""
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
    notes = [*who_sampled(pairs), *emulations(pairs), *untrusted(pairs)]
    said = " ".join(map(escape, notes))
    return (
        "d = lp_train - lp_infer in nats (left - right in pairs of another kind); "
        "k3 = mean(expm1(d) - d), log space, over tokens. Intervals are 95%, bootstrap over "
        "sequences. A floor is the same side against itself: in another batch (batch), or once "
        f"more (repeat). Excess = k3 - (floor + floor) / 2. {said}".rstrip()
    )


def _distributions(pairs: Sequence[Pair]) -> str:
    found = [p for p in pairs if p.distribution]
    if not found:
        return ""
    keys = list(dict.fromkeys(k for p in found for k in p.distribution))
    rows = [[code(p.id), *(_value(p.of_distribution(k), p) for k in keys)] for p in found]
    table = _table(("pair", *map(code, keys)), rows)
    return _folded("Whole distribution: top-k, entropy, kept mass", f"{table}\n\n{DISTRIBUTION}")


def _attributions(summary: Mapping[str, Any]) -> list[str]:
    found = shares_of(summary)
    blocks = []
    for one in found:
        rows = [[code(k.knob), *map(escape, cells(k)[1:])] for k in one.knobs]
        title = f"### Which knob: {escape(one.title)}\n\n{escape(one.finding)}"
        blocks.append(f"{title}\n\n{_table(HEAD, rows)}" if rows else title)
    return [*blocks, escape(LEGEND)] if found else []


def _failed(failures: Sequence[tuple[str, str]]) -> str:
    if not failures:
        return ""
    rows = [[code(capture), escape(sentence)] for capture, sentence in failures]
    return "### Captures that are missing\n\n" + _table(("capture", "what happened"), rows)


def _checks(pairs: Sequence[Pair]) -> str:
    rows = [
        [
            escape(check.rung),
            f"**{escape(check.verdict)}**",
            escape(check.evidence),
            escape(check.todo),
            escape(where(ids, pairs)),
        ]
        for check, ids in grouped(pairs)
    ]
    if not rows:
        return NOT_RUN
    head = ("check", "verdict", "evidence", "to do", "pairs")
    return _folded(f"Preflight: {escape(tally(pairs))}", _table(head, rows))


def _breakdown(first: Pair | None) -> str:
    rows = [] if first is None else first.breakdown("infer_prob")
    if first is None or not rows:
        return ""
    table = [
        [
            escape(row.label),
            f"{row.tokens:,}",
            *(_value(row.metric(k), first) for k in ("abs_logprob_diff_mean", "logprob_diff_mean")),
        ]
        for row in rows
    ]
    head = (f"{first.sides[1]} probability", "tokens", "mean abs d [95%]", "mean d [95%]")
    return _folded(f"Gap by probability ({escape(first.id)}, log space)", _table(head, table))


def _sides(first: Pair | None, differences: Sequence[Difference] | None) -> str:
    if first is None or not differences:
        return ""
    rows = [[code(name), escape(left), escape(right)] for name, left, right in differences]
    left, right = first.traces
    head = ("fact", f"{first.sides[0]}: {code(left)}", f"{first.sides[1]}: {code(right)}")
    return _folded(f"How the two sides differ ({len(rows)} facts)", _table(head, rows))


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"
