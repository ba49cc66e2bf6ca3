"""`make claims`: claims.toml and the kept summaries -> README.md.

    python reports/claims/page.py

What is published stands in claims.toml, with where our figure lies in a kept summary and the rule
that it must keep. Every figure of ours is read, and the verdict follows from the rules.
"""

from __future__ import annotations

import json
import math
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field

from mismatch.report.pairs import NOTHING, SLOTS, Estimate, estimate
from mismatch.report.words import interval, number, reached

HERE = Path(__file__).parent
REPORTS = HERE.parent

Verdict = Literal["confirmed", "not confirmed", "differs", "not measured here"]
#: What a rule says of a figure; open: the interval straddles, is not trusted, or there is none.
Outcome = Literal["holds", "fails", "open"]

TAGS = {
    "T": "text or code of the source was read",
    "F": "read off a figure, to about 15%",
    "S": "a secondary source's word",
}

# ---------------------------------------------------------------- claims.toml


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Figure(_Table):
    """A figure: read from a summary (`summary`, `pair`, `key`), or made of others of its claim.

    key: a path down the pair, or down the whole file where no pair is named; a part finds a row of
    a list by what the row is called. floor: the summary and pair of the same two engines whose
    floors stand beside it, where its own study took none. ratio: two figures, a over b. rest: the
    first less all others.

    The rules, of which a figure has one or none: within, above, below: where its whole interval
    must lie; contains: what its interval must; exactly: its value; meets: the figure (times
    `times`) whose interval its own must overlap; says: its text.
    """

    id: str
    label: str
    summary: str = ""
    pair: str = ""
    key: tuple[str, ...] = ()
    floor: tuple[str, str] | None = None
    ratio: tuple[str, str] | None = None
    rest: tuple[str, ...] = ()

    within: tuple[float, float] | None = None
    above: float | None = None
    below: float | None = None
    contains: float | None = None
    exactly: float | None = None
    meets: str = ""
    times: float = 1.0
    says: str = ""


class Claim(_Table):
    """A published claim. part: what of it the figures judge; empty where it is all of it.

    shows: the figures of the overview; why: one sentence, `{id}` stands for a figure.
    """

    number: int
    claim: str
    published: str
    source: str
    tag: Literal["T", "F", "S", ""]
    part: str = ""
    needs: str = ""
    shows: tuple[str, ...] = ()
    why: str
    figure: tuple[Figure, ...] = ()


class Claims(_Table):
    claim: tuple[Claim, ...] = Field(min_length=1)


def read_claims(path: Path = HERE / "claims.toml") -> tuple[Claim, ...]:
    """The claims in order; an unknown key is an error."""
    return Claims.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).claim


# ---------------------------------------------------------------- what the summaries say

#: A kept result's name -> its JSON; a folder's name is that of its summary.json.
Read = Callable[[str], Any]


def read_kept(name: str) -> Any:
    path = REPORTS / name
    file = path if path.suffix == ".json" else path / "summary.json"
    return json.loads(file.read_text(encoding="utf-8"))


@dataclass(frozen=True, slots=True)
class Found:
    """A figure as it was read or made. text: where it is no number. floors: train and infer, of the
    figure's own tokens unless `borrowed`.
    """

    estimate: Estimate
    text: str = ""
    floors: tuple[Estimate, Estimate] | None = None
    borrowed: bool = False
    tokens: int | None = None
    sequences: int | None = None

    def __str__(self) -> str:
        return self.text or number(self.estimate.value)


#: What a row of a list is called, wherever it stands.
NAMES = ("id", "bin", "name", "length", "fault", "rung", "knob", "spec", "routes")


def _step(at: Any, part: str) -> Any:
    """One step down: a key of a table, or a row of a list by its name; None where it is not."""
    if isinstance(at, Sequence) and not isinstance(at, str):
        return next((row for row in at if part in (str(row.get(n)) for n in NAMES)), None)
    return at.get(part) if isinstance(at, Mapping) else None


def _find(figure: Figure, read: Read) -> Found:
    whole = read(figure.summary)
    pair = _pair(whole, figure.summary, figure.pair) if figure.pair else None
    at, counted = pair or whole, Found(NOTHING)
    for part in figure.key:
        if isinstance(at, Mapping) and isinstance(at.get("tokens"), int):
            counted = Found(NOTHING, tokens=at["tokens"], sequences=at.get("sequences"))
        at = _step(at, part)
    if figure.says or isinstance(at, str):
        return Found(NOTHING, str(at or "nothing"))
    value = estimate(at) if isinstance(at, Mapping) else _plain(at)
    if isinstance(at, int):  # a count has no digits behind the point
        counted = replace(counted, text=f"{at:,}")
    floors = _floors(pair, figure.key)
    if floors is None and figure.floor:
        other = _pair(read(figure.floor[0]), *figure.floor)
        return replace(counted, estimate=value, floors=_floors(other, figure.key), borrowed=True)
    return replace(counted, estimate=value, floors=floors)


def _pair(summary: Mapping[str, Any], name: str, pair: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] | None = _step(summary["pairs"], pair)
    if found is None:
        raise KeyError(f"{name} has no pair {pair}")
    return found


def _plain(value: Any) -> Estimate:
    """A number that has no interval because it is no estimate."""
    if not isinstance(value, int | float):
        return NOTHING
    return Estimate(value, value, value)


def _floors(pair: Mapping[str, Any] | None, key: Sequence[str]) -> tuple[Estimate, Estimate] | None:
    """The batch floors of the same metric, or of the same curve of forks; None where there is none
    of its kind."""
    if pair is None or not (key[0] == "forks" or (key[0] == "metrics" and len(key) == 2)):
        return None
    where = pair if key[0] == "metrics" else pair["forks"]
    batch = (where.get("floor") or {}).get("batch") or {}
    one, other = (estimate(_down(batch.get(slot), key[1:])) for slot in SLOTS)
    return None if one.value is None and other.value is None else (one, other)


def _down(at: Any, key: Sequence[str]) -> Any:
    for part in key:
        at = _step(at, part)
    return at


def _ratio(a: Estimate, b: Estimate) -> Estimate:
    """a / b of one sign; the least by the most, and the most by the least."""
    if a.value is None or not b.value:
        return NOTHING
    value, trusted = a.value / b.value, a.trusted and b.trusted
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Estimate(value, None, None, trusted)
    if a.high < 0 and b.high < 0:
        return Estimate(value, a.high / b.low, a.low / b.high, trusted)
    if a.low < 0 or b.low <= 0:
        return Estimate(value, None, None, trusted)
    return Estimate(value, a.low / b.high, a.high / b.low, trusted)


def _rest(parts: Sequence[Estimate]) -> Estimate:
    """The first less the others: arithmetic on values, no estimate."""
    first, *others = (p.value for p in parts)
    if first is None or any(v is None for v in others):
        return NOTHING
    return _plain(math.fsum([first, *(-v for v in others if v is not None)]))


def figures_of(claim: Claim, read: Read = read_kept) -> dict[str, Found]:
    """id -> what was found; a figure may be made of those above it."""
    found: dict[str, Found] = {}
    for figure in claim.figure:
        if figure.ratio:
            a, b = (found[name].estimate for name in figure.ratio)
            found[figure.id] = Found(_ratio(a, b))
        elif figure.rest:
            found[figure.id] = Found(_rest([found[name].estimate for name in figure.rest]))
        else:
            found[figure.id] = _find(figure, read)
    return found


# ---------------------------------------------------------------- rules and verdicts


def judge(figure: Figure, found: Mapping[str, Found]) -> Outcome | None:
    """What the figure's rule says of it; None where it has no rule."""
    here, at = found[figure.id], found[figure.id].estimate
    if figure.says:
        return "holds" if here.text == figure.says else "fails"
    if figure.exactly is not None:
        return _unless_none(at, at.value == figure.exactly)
    bounds = _bounds(figure)
    if bounds is not None:
        return _inside(at, *bounds)
    if figure.contains is not None:
        return _overlap(at, Estimate(figure.contains, figure.contains, figure.contains))
    if figure.meets:
        return _overlap(at, _times(found[figure.meets].estimate, figure.times))
    return None


def _bounds(figure: Figure) -> tuple[float, float] | None:
    if figure.within:
        return figure.within
    if figure.above is not None:
        return figure.above, math.inf
    return None if figure.below is None else (-math.inf, figure.below)


def _unless_none(at: Estimate, holds: bool) -> Outcome:
    if at.value is None:
        return "open"
    return "holds" if holds else "fails"


def _inside(at: Estimate, low: float, high: float) -> Outcome:
    if at.low is None or at.high is None or not at.trusted:
        return "open"
    if low < at.low and at.high < high:
        return "holds"
    return "fails" if at.high <= low or high <= at.low else "open"


def _overlap(at: Estimate, other: Estimate) -> Outcome:
    ends = (at.low, at.high, other.low, other.high)
    if any(e is None for e in ends) or not (at.trusted and other.trusted):
        return "open"
    low, high, first, last = (float(e) for e in ends if e is not None)
    return "holds" if low <= last and first <= high else "fails"


def _times(at: Estimate, by: float) -> Estimate:
    scaled = [None if x is None else x * by for x in (at.value, at.low, at.high)]
    value, low, high = scaled if by >= 0 else (scaled[0], scaled[2], scaled[1])
    return Estimate(value, low, high, at.trusted)


def verdict(claim: Claim, found: Mapping[str, Found]) -> Verdict:
    """Differs as soon as one rule fails; confirmed where all hold."""
    outcomes = [o for f in claim.figure if (o := judge(f, found)) is not None]
    if not outcomes:
        return "not measured here"
    if "fails" in outcomes:
        return "differs"
    return "confirmed" if set(outcomes) == {"holds"} else "not confirmed"


# ---------------------------------------------------------------- the page


def rule_words(figure: Figure, claim: Claim) -> str:
    """The rule as a reader checks it."""
    if figure.says:
        return f"says “{figure.says}”"
    if figure.exactly is not None:
        return f"is {number(figure.exactly)} exactly"
    if figure.within:
        low, high = figure.within
        return f"inside {number(low)} to {number(high)}"
    if figure.above is not None:
        return f"above {number(figure.above)}"
    if figure.below is not None:
        return f"below {number(figure.below)}"
    if figure.contains is not None:
        return f"holds {number(figure.contains)}"
    if figure.meets:
        other = next(f.label for f in claim.figure if f.id == figure.meets)
        by = "" if figure.times == 1 else f"{number(figure.times)} x "
        return f"overlaps {by}“{other}”"
    return ""


def _value(found: Found) -> str:
    at = found.estimate
    if found.text:
        return found.text
    if at.value is None:
        return "no evidence"
    if (at.low is None) != (at.high is None):  # a length: one end lies beyond what was followed
        return reached(at, found.sequences or 0)
    if not at.has_interval or at.low == at.high:
        return number(at.value)
    return f"{number(at.value)} {interval(at)}"


def _floor(found: Found) -> str:
    if found.floors is None:
        return "—"
    return " / ".join(number(f.value) for f in found.floors) + ("¹" if found.borrowed else "")


def _size(found: Found) -> str:
    if found.tokens is None:
        return "—"
    behind = "" if found.sequences is None else f" / {found.sequences:,}"
    return f"{found.tokens:,}{behind}"


def _study(name: str) -> str:
    """A link to the study file that made a kept result, else to the script."""
    if not name:
        return "—"
    for place in (REPORTS / f"{name}.toml", (REPORTS / name).parent / "run.sh"):
        if place.is_file():
            link = Path(os.path.relpath(place, HERE)).as_posix()
            return f"[{link.removeprefix('../')}]({link})"
    raise FileNotFoundError(f"nothing says how {name} was made")


def _cell(text: str) -> str:
    return text.replace("|", r"\|")


def _row(*cells: str) -> str:
    return "| " + " | ".join(map(_cell, cells)) + " |"


def _sentence(claim: Claim, found: Mapping[str, Found]) -> str:
    return re.sub(r"\{(\w+)\}", lambda m: str(found[m[1]]), claim.why)


def _overview(claim: Claim, found: Mapping[str, Found], said: Verdict) -> str:
    labels = {f.id: f.label for f in claim.figure}
    ours = "; ".join(f"{labels[name]} {_value(found[name])}" for name in claim.shows)
    part = f" (of it: {claim.part})" if claim.part else ""
    link = f"[{claim.number}](#{claim.number})"
    judged = f"**{said}**{part}{_rules(claim, found)}"
    return _row(link, claim.claim, claim.published, ours or "—", judged)


def _rules(claim: Claim, found: Mapping[str, Found]) -> str:
    """The rules behind a verdict: of the figures shown, and all that do not hold; how many more."""
    judged = {f.id: said for f in claim.figure if (said := judge(f, found)) is not None}
    told = [
        f"{f.label}: {rule_words(f, claim)}"
        + ("" if judged[f.id] == "holds" else f", {judged[f.id]}")
        for f in claim.figure
        if f.id in judged and (f.id in claim.shows or judged[f.id] != "holds")
    ]
    more = len(judged) - len(told)
    told += [f"{more} more that {'holds' if more == 1 else 'hold'}"] if more else []
    return f". Rules: {'; '.join(told)}" if told else ""


def _section(claim: Claim, found: Mapping[str, Found], said: Verdict) -> list[str]:
    tag = f" ({claim.tag})" if claim.tag else ""
    lines = [f'<a id="{claim.number}"></a>', f"### {claim.number}. {claim.claim}: {said}", ""]
    lines += [f"Published: {claim.published}. Source: {claim.source}{tag}.", ""]
    if claim.part:
        lines += [f"Measured of it: {claim.part}.", ""]
    if claim.figure:
        lines += [
            "| figure | value, 95% | batch floor, left / right | tokens / sequences | study | rule "
            "| |",
            "|---|---|---|---|---|---|---|",
        ]
        for figure in claim.figure:
            here = found[figure.id]
            lines.append(
                _row(figure.label, _value(here), _floor(here), _size(here), _study(figure.summary),
                     rule_words(figure, claim), judge(figure, found) or "")
            )  # fmt: skip
        lines.append("")
    lines.append(_sentence(claim, found))
    if claim.needs:
        lines.append(f"Not measured here: {claim.needs}.")
    return [*lines, ""]


def page(claims: Sequence[Claim], read: Read = read_kept) -> str:
    """README.md: the overview, then each claim with its figures, rules and sentence."""
    made = [(c, found := figures_of(c, read), verdict(c, found)) for c in claims]
    counts = {v: sum(s == v for *_, s in made) for v in get_args(Verdict)}
    lines = [HEAD, ", ".join(f"{n} {v}" for v, n in counts.items()) + ".", ""]
    lines += ["| # | claim | published | measured here | verdict |", "|---|---|---|---|---|"]
    lines += [_overview(*one) for one in made]
    lines += ["", *(f"{tag}: {words}.  " for tag, words in TAGS.items()), "", "## One by one", ""]
    for one in made:
        lines += _section(*one)
    return "\n".join(lines).rstrip() + "\n"


HEAD = """# Published claims, measured again

`make claims` writes this page from [claims.toml](claims.toml) and the summaries that are kept in
this repository; `make claims-capture` takes the traces of this folder's studies again
([run.sh](run.sh)). No figure of ours is typed: each is read from a summary, and the verdict follows
from its rules.

SmolLM2-135M-Instruct **dequantised from Q4_1**, transformers 5.19 and vllm 0.32 on two CPU cores,
where a row does not say otherwise; d = train - infer in nats (in a pair of one side, left - right),
means over tokens, 95% intervals over sequences. The floor is the same metric between an engine and
itself in another batch composition; ¹ where a study took none, that of the same two engines on
other tokens of the same model ([smollm2-135m](../smollm2-135m/bf16/report.md)). A ratio's interval
divides the least by the most and the most by the least: it covers 90% at least, and over 95% where
the two do not move against each other; of two such ratios, 80% at least. A small model on a CPU
decides nothing about a large one on a GPU: a verdict is about what was measured here.

**confirmed**: every rule holds with the whole interval; where the rule is to hold a number or to
overlap another figure, that says only that the interval does not exclude it, and its width how much
that is worth. **differs**: a rule fails with the whole interval. **not confirmed**: an interval
straddles its limit, is not trusted, or is not there. **not measured here**: this machine or this
tool cannot, and it is said what it takes. Behind a verdict stand its rules; "of it" says what they
judge, and whether that is the direction alone or the published size too.
"""


if __name__ == "__main__":
    (HERE / "README.md").write_text(page(read_claims()), encoding="utf-8")
