"""retokenize.md and retokenize.html: what ids -> text or messages -> ids does to rollouts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import __version__, store
from mismatch.glossary import CAUSES, ROADS
from mismatch.report.boxes import Token, lines, probability
from mismatch.report.html import STYLES, TIPS, environment, inlined, policy
from mismatch.report.markdown import escape
from mismatch.report.words import NONE, clean, count, number, token_text

#: Nats below the median of the sampled tokens: the colour classes 1 to 5 of an inserted token.
STEPS = (1, 2, 4, 6, 8)

NOTE = (
    "Inserted: trained on, and never sampled there. Gradient share: of the sum of 1 - p over the "
    "trained tokens, half the 1-norm of each token's gradient in the logits, equal advantages."
)


def build_retokenize(root: Path) -> tuple[Path, Path]:
    """Write retokenize.md and retokenize.html of a folder with retokenize.json."""
    found = store.read_json(root / "retokenize.json")
    text, page = root / "retokenize.md", root / "retokenize.html"
    store.write_text(text, markdown(found))
    store.write_text(page, html(found))
    return text, page


# ---------------------------------------------------------------- tables


@dataclass(frozen=True, slots=True)
class Table:
    """A table of text cells."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def estimate(found: Mapping[str, float | None], scale: float = 1.0, unit: str = "") -> str:
    """`12.3% [10.1, 14.2]`; without an interval the value alone, and why."""
    value, low, high = (found.get(k) for k in ("value", "low", "high"))
    if value is None:
        return NONE
    said = f"{number(value * scale)}{unit}"
    if low is None or high is None:
        return f"{said} (no interval)"
    return f"{said} [{number(low * scale)}, {number(high * scale)}]"


def percent(found: Mapping[str, float | None]) -> str:
    return estimate(found, 100, "%")


def tables(found: Mapping[str, Any]) -> list[Table]:
    """Every table of the report, in order."""
    made = [_roads(found)]
    made += [
        _causes(road, found["roads"][road]) for road in ROADS if found["roads"][road]["causes"]
    ]
    if found["groups"]:
        made.append(_groups(found["groups"]))
    if found["scores"]:
        made += [_scores(found["scores"]), _by_cause(found["scores"])]
    return made


def _roads(found: Mapping[str, Any]) -> Table:
    rows = []
    for road, name in ROADS.items():
        r = found["roads"][road]
        drifted = f"{r['drifted']['count']} of {r['rollouts']}: {percent(r['drifted'])}"
        made = [f"{r[k]['count']:,}: {estimate(r[k]['per_1000'])}" for k in ("inserted", "lost")]
        rows.append((name, drifted, *made, f"{r['sampled_tokens']:,}"))
    head = ("road", "rollouts that drift", "inserted, per 1,000 sampled", "lost, per 1,000",
            "sampled tokens")  # fmt: skip
    return Table("How often", head, tuple(rows))


def _causes(road: str, rates: Mapping[str, Any]) -> Table:
    rows = [
        (
            CAUSES[cause],
            f"{c['rollouts']['count']} of {rates['rollouts']}: {percent(c['rollouts'])}",
            str(c["spans"]),
            f"{c['inserted']:,}: {estimate(c['inserted_per_1000'])}",
            f"{c['lost']:,}",
        )
        for cause, c in rates["causes"].items()
    ]
    head = ("cause", "rollouts", "spans", "inserted, per 1,000 sampled", "sampled tokens lost")
    return Table(f"Why: {ROADS[road]}", head, tuple(rows))


def _groups(groups: Mapping[str, Any]) -> Table:
    rows = [
        (
            name,
            f"{g['drifted']['count']} of {g['rollouts']}: {percent(g['drifted'])}",
            estimate(g["inserted"]["per_1000"]),
            ", ".join(f"{k} {c['rollouts']['count']}" for k, c in g["causes"].items()),
        )
        for name, g in groups.items()
    ]
    head = ("group", "rollouts that drift", "inserted per 1,000 sampled", "rollouts by cause")
    return Table(f"By group: {ROADS['template']}", head, tuple(rows))


def _scores(scores: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for one in scores:
        for road, name in ROADS.items():
            r = one["roads"][road]
            rows.append(
                (
                    f"{one['condition']}, {one['path']}",
                    name,
                    f"{estimate(one['sampled']['median'])}, n={one['sampled']['tokens']:,}",
                    f"{estimate(r['inserted']['median'])}, n={r['inserted']['tokens']:,}",
                    number(r["inserted"]["least"]),
                    *_shares(r["share"]),
                )
            )
    head = ("engine, path", "road", "median ln p, sampled", "median ln p, inserted", "least",
            "of the trained tokens", "of the gradient (1-norm)", "in the 2-norm",
            "of -ln p")  # fmt: skip
    return Table("What real engines make of the inserted tokens", head, tuple(rows))


def _shares(share: Mapping[str, Any]) -> tuple[str, ...]:
    bounds = share["gradient_norm2"]
    said = f"{number(100 * bounds[0])} to {number(100 * bounds[1])}%" if bounds else NONE
    return percent(share["tokens"]), percent(share["gradient"]), said, percent(share["loss"])


def _by_cause(scores: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        (
            one["condition"],
            ROADS[road],
            CAUSES[cause],
            f"{estimate(c['inserted']['median'])}, n={c['inserted']['tokens']:,}",
            number(c["inserted"]["least"]),
            percent(c["share"]["tokens"]),
            percent(c["share"]["gradient"]),
        )
        for one in scores
        for road in ROADS
        for cause, c in one["roads"][road]["causes"].items()
    ]
    head = ("engine", "road", "cause", "median ln p, inserted", "least", "of the trained tokens",
            "of the gradient (1-norm)")  # fmt: skip
    return Table("The same, by cause", head, tuple(rows))


def title(found: Mapping[str, Any]) -> str:
    """The first sentence: what happened to how many rollouts."""
    r = (
        found["roads"]["template"]
        if found["roads"]["template"]["rollouts"]
        else found["roads"]["text"]
    )
    return f"{r['drifted']['count']} of {count(r['rollouts'], 'rollout')} come back as other tokens"


def facts(found: Mapping[str, Any]) -> str:
    """What went in."""
    i, about = found["input"], found["tokenizer"]
    said = [
        count(i["rollouts"], "rollout"),
        f"{i['rollouts_with_calls']:,} with a tool call",
        count(i["turns"], "sampled turn"),
        count(i["sampled_tokens"], "sampled token"),
        f"{i['turns_that_do_not_parse']:,} turns with a tool call that does not parse",
        f"{i['without_messages']:,} rollouts without messages, which take the first road only",
        f"{about['tokenizer']}, {about['vocabulary']:,} tokens",
    ]
    return " · ".join(said)


def markdown(found: Mapping[str, Any]) -> str:
    """The report as Markdown; foreign text is escaped."""
    blocks = [f"# Retokenisation: {title(found)}", escape(facts(found)), NOTE]
    for table in tables(found):
        head = "| " + " | ".join(table.head) + " |"
        rule = "|" + "---|" * len(table.head)
        rows = ["| " + " | ".join(map(escape, row)) + " |" for row in table.rows]
        blocks.append("\n".join([f"## {table.title}", "", head, rule, *rows]))
    return "\n\n".join(blocks) + "\n"


# ---------------------------------------------------------------- the page


@dataclass(frozen=True, slots=True)
class Shown:
    """One example: what was sampled, and what came back."""

    heading: str
    cause: str
    least: str
    before: list[Token]
    after: list[Token]


def html(found: Mapping[str, Any]) -> str:
    """One page that loads nothing; the environment escapes every string that is not markup."""
    script, style = inlined(TIPS), inlined(STYLES)
    median = found["scores"][0]["sampled"]["median"]["value"] if found["scores"] else None
    return environment().get_template("retokenize.html.j2").render(
        examples=[_shown(e, median) for e in found["examples"]],
        facts=facts(found),
        median=None if median is None else number(median),
        scored=[one["condition"] for one in found["scores"]],
        note=NOTE,
        policy=policy(script, style),
        script=script,
        steps=STEPS,
        style=style,
        tables=tables(found),
        title=title(found),
        version=__version__,
    )  # fmt: skip


def _shown(example: Mapping[str, Any], median: float | None) -> Shown:
    group = f", group {clean(example['group'])}" if example["group"] else ""
    least = example["least"]
    return Shown(
        f"Rollout {example['row']}{group}: {ROADS[example['road']]}",
        CAUSES[example["cause"]],
        f"least ln p of its inserted tokens {least:.4g}" if least else "",
        *([_token(t, median) for t in example[side]] for side in ("before", "after")),
    )


#: State of a token in retokenize.json -> its CSS class.
CLASSES = {"off": "off", "kept": "", "changed": "gone", "inserted": "ins"}


def _token(token: Mapping[str, Any], median: float | None) -> Token:
    text = token["text"]
    logprobs = token.get("logprobs", {})
    about = [f"position {token['position']}, id {token['id']}", STATES[token["state"]]]
    about += [CAUSES[token["cause"]]] if token["cause"] else []
    about += [f"{name}: {probability(lp)}" for name, lp in logprobs.items()]
    shade = CLASSES[token["state"]]
    if token["state"] == "inserted" and logprobs and median is not None:
        shade = f"ins {depth(next(iter(logprobs.values())), median)}".strip()
    shown = token_text(text) if text else f"‹{token['id']}›"
    return Token(shown, shade, lines(about), "\n" in text)


STATES = {
    "off": "not trained on",
    "kept": "sampled",
    "changed": "sampled, and not in the new ids",
    "inserted": "trained on, never sampled here",
}


def depth(lp: float, median: float) -> str:
    """n1..n5: how far below the median of the sampled tokens; nothing within a nat of it."""
    level = int(np.searchsorted(STEPS, median - lp, side="right"))
    return f"n{level}" if level else ""
