"""Attributions as a person reads them: rows for the tables, one sentence, and the waterfall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mismatch.corners import ENGINE
from mismatch.report.pairs import Estimate, estimate
from mismatch.report.words import NONE, count, interval, number, sample_size

#: What the numbers are, below every table.
LEGEND = (
    "Share: <phi, d> / <d, d>, phi the knob's Shapley effect on each token (nats); shares sum to "
    "100%, and one may be negative or above 100%. Alone: the same with this knob toggled alone "
    "from the left end, and its k3. Interaction = share - alone. Intervals: 95%, bootstrap over "
    "sequences."
)


@dataclass(frozen=True, slots=True)
class Share:
    """One knob of one attribution."""

    knob: str
    share: Estimate
    alone: Estimate
    interaction: Estimate
    alone_k3: Estimate
    rank: str


@dataclass(frozen=True, slots=True)
class Shares:
    """One attribution: what it is between, on how much, and its knobs, largest share first."""

    id: str
    title: str
    finding: str
    knobs: list[Share]
    missing: list[str]


def shares_of(summary: Mapping[str, Any]) -> list[Shares]:
    """The attributions of a summary; none where the study asked for none."""
    return [_shares(raw) for raw in summary.get("attributions") or []]


def _shares(raw: Mapping[str, Any]) -> Shares:
    knobs = [_share(k, raw.get("folded") or []) for k in raw["knobs"]]
    size = sample_size(raw["tokens"], raw["sequences"])
    title = f"{raw['id']}: {raw['left']} to {raw['right']} ({size})"
    return Shares(raw["id"], title, _finding(raw, knobs), knobs, list(raw["missing"]))


def _share(raw: Mapping[str, Any], folded: Sequence[str]) -> Share:
    """folded: options that engine carries beside its own, as they were left out of the knobs."""
    more = f" (with {', '.join(folded)})" if folded and raw["knob"] == ENGINE else ""
    resolved = raw["resolved_from_next"]
    rank = {True: "above the next", False: "not resolved from the next"}.get(resolved, "")
    return Share(
        knob=raw["knob"] + more,
        share=estimate(raw["share"]),
        alone=estimate(raw["alone_share"]),
        interaction=estimate(raw["interaction"]),
        alone_k3=estimate(raw["alone_k3"]),
        rank=rank,
    )


def _finding(raw: Mapping[str, Any], knobs: Sequence[Share]) -> str:
    if raw["missing"]:
        return f"No evidence: {count(len(raw['missing']), 'corner')} missing; {raw['missing'][0]}."
    if raw.get("unlike"):
        again = "Take them again with one set of versions, on one kind of device"
        return f"No evidence: {'; '.join(raw['unlike'])}. {again}."
    if not knobs or knobs[0].share.value is None:
        return "No evidence: the two ends do not differ on any token."
    first = knobs[0]
    gap = estimate(raw["gap"]["k3"])
    said = f"{first.knob} owns {percent(first.share)} of the gap (k3 = {number(gap.value)} nats)"
    if first.rank.startswith("not"):
        said += f", not resolved from {knobs[1].knob}"
    dropped = f"; {count(raw['dropped'], 'token')} not finite, left out" if raw["dropped"] else ""
    how = "" if raw["method"] == "shapley" else "; one path, not all orders: too many knobs"
    return f"{said}{_inert(raw, knobs)}{dropped}{how}."


def _inert(raw: Mapping[str, Any], knobs: Sequence[Share]) -> str:
    """Which knobs change no bit. One path shows no such thing: a knob that is inert along it and
    alone may matter together with others."""
    still = [k.knob for k in knobs if k.share.value == 0 and k.alone_k3.value == 0]
    if not still or raw["method"] != "shapley":
        return ""
    return f"; {', '.join(still)} {'changes' if len(still) == 1 else 'change'} no bit"


def percent(found: Estimate) -> str:
    """`71.2% [64.0, 77.9]`."""
    if found.value is None:
        return NONE
    if found.low is None or found.high is None:
        return f"{_percent(found.value)}%"
    return f"{_percent(found.value)}% [{_percent(found.low)}, {_percent(found.high)}]"


def _percent(share: float) -> str:
    """One digit; what rounds to nothing has no sign."""
    return f"{round(100 * share, 1) + 0.0:.1f}"


HEAD = ("knob", "share of the gap", "alone", "interaction", "k3 alone (nats)", "rank")


def cells(share: Share) -> list[str]:
    """A knob's row under HEAD."""
    alone = f"{number(share.alone_k3.value)} {interval(share.alone_k3)}"
    shown = [percent(e) for e in (share.share, share.alone, share.interaction)]
    return [share.knob, *shown, alone, share.rank]
