"""The pairs of a summary.json, read once: every accessor says None where there is no evidence.

An absent key, a null value and a missing floor side all come out as `NOTHING` or None, so that no
table or figure can mistake them for 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mismatch.errors import MismatchError, suggest
from mismatch.model import IS_UNSUPPORTED

SLOTS = ("train", "infer")

#: What a user may ask to cut a gap by -> its key in `breakdowns`.
BREAKDOWNS = {
    "probability": "infer_prob",
    "position": "position",
    "length": "length",
    "entropy": "entropy",
    "token_type": "token_type",
    "turn": "turn",
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its 95% interval; None where not finite, not captured, or not computed.

    trusted: False where the interval is known to miss the truth too often (metrics.md).
    """

    value: float | None
    low: float | None
    high: float | None
    trusted: bool = True

    @property
    def has_interval(self) -> bool:
        return self.low is not None and self.high is not None


NOTHING = Estimate(None, None, None)


def estimate(raw: Any) -> Estimate:
    """`{value, low, high}` or null, as it stands in the summary; no `trusted` means trusted."""
    if not isinstance(raw, Mapping):
        return NOTHING
    trusted = raw.get("trusted", True) is True
    return Estimate(raw.get("value"), raw.get("low"), raw.get("high"), trusted)


@dataclass(frozen=True, slots=True)
class Bin:
    """One row of a breakdown."""

    label: str
    tokens: int
    metrics: Mapping[str, Any]

    def metric(self, key: str) -> Estimate:
        return estimate(self.metrics.get(key)) if self.tokens else NOTHING


@dataclass(frozen=True, slots=True)
class Check:
    """One rung of the preflight of a pair; fault names what was found, where it failed."""

    rung: str
    verdict: str
    evidence: str
    todo: str
    fault: str


@dataclass(frozen=True, slots=True)
class Prefix:
    """ESS / n of the first `length` scored tokens, of the sequences that have so many."""

    length: int
    sequences: int
    tokens: int
    ess: Estimate
    predicted: float | None


@dataclass(frozen=True, slots=True)
class Corrected:
    """What a correction touches (a share) and the ESS / n it leaves; bin: lengths, "" for all."""

    bin: str
    tokens: int
    sequences: int
    affected: Estimate
    ess: Estimate


@dataclass(frozen=True, slots=True)
class Correction:
    """One rule that a trainer may put on r or R, and what it would do here."""

    name: str
    level: str
    rule: str
    whole: Corrected
    by_length: list[Corrected]


@dataclass(frozen=True, slots=True)
class Agreement:
    """The share of sequences whose first `length` scored tokens agree; sequences: of how many it
    is known.
    """

    length: int
    sequences: int
    share: Estimate


@dataclass(frozen=True, slots=True)
class Forks:
    """The first token at which the likeliest differ; greedy: of a run that one side drew so."""

    greedy: bool | None
    sequences: int
    forked: int
    first: int | None
    tied: int
    forked_or_tied: int
    median: Estimate
    agreement: list[Agreement]

    @property
    def octaves(self) -> list[Agreement]:
        """The lengths of a table: powers of two."""
        return [row for row in self.agreement if row.length & (row.length - 1) == 0]


@dataclass(frozen=True, slots=True)
class Pair:
    """One element of pairs[]; `left` is the train side, and d = left - right."""

    raw: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.raw["id"])

    @property
    def kind(self) -> str:
        return str(self.raw["kind"])

    @property
    def path(self) -> str:
        return str(self.raw["path"])

    @property
    def is_train_infer(self) -> bool:
        return self.kind == "train-infer"

    @property
    def sides(self) -> tuple[str, str]:
        """What the two sides are called: the slots of `floor` keep train and infer throughout."""
        return ("train", "infer") if self.is_train_infer else ("left", "right")

    @property
    def traces(self) -> tuple[str, str]:
        left, right = self.sides
        return str(self.raw[left]), str(self.raw[right])

    @property
    def conditions(self) -> tuple[str, str]:
        left, right = self.traces
        return left.rpartition("/")[0] or left, right.rpartition("/")[0] or right

    @property
    def setup(self) -> str:
        """Which two conditions, in words."""
        left, right = self.conditions
        return f"inside {left}" if left == right else f"{left} against {right}"

    @property
    def tokens(self) -> int:
        return int(self.raw.get("tokens") or 0)

    @property
    def sequences(self) -> int:
        return int(self.raw.get("sequences") or 0)

    @property
    def nan_tokens(self) -> int:
        return int(self.raw.get("nan_tokens") or 0)

    @property
    def inf_tokens(self) -> int:
        return int(self.raw.get("inf_tokens") or 0)

    @property
    def sampled_by(self) -> str:
        return str(self.raw.get("sampled_by") or "unknown")

    @property
    def emulated(self) -> list[tuple[str, str]]:
        """(condition, what it emulated) of each side whose quantised kernels were not the real."""
        said = self.raw.get("emulated") or {}
        both = zip(self.sides, self.conditions, strict=True)
        return [(condition, str(said[side])) for side, condition in both if side in said]

    @property
    def replayed(self) -> list[tuple[str, str]]:
        """(condition, what it replayed) of each side whose experts were the rollout's."""
        said = self.raw.get("replayed") or {}
        both = zip(self.sides, self.conditions, strict=True)
        return [(condition, str(said[side])) for side, condition in both if side in said]

    @property
    def routes(self) -> Mapping[str, Any]:
        """As in summary.json; empty where a side captured none."""
        return self.raw.get("routes") or {}

    @property
    def metric_keys(self) -> list[str]:
        return list(self.raw.get("metrics") or {})

    def metric(self, key: str) -> Estimate:
        return estimate((self.raw.get("metrics") or {}).get(key)) if self.tokens else NOTHING

    @property
    def has_untrusted(self) -> bool:
        """Whether an interval that the tables show is marked as not trusted."""
        shown = [self.metric(key) for key in self.metric_keys]
        return not all(e.trusted for e in [*shown, *map(self.excess, ("k2", "k3"))])

    def floor(self, name: str, slot: str, key: str) -> Estimate | None:
        """None: this floor was not captured on this side. `NOTHING`: captured, key not finite."""
        side = ((self.raw.get("floor") or {}).get(name) or {}).get(slot)
        return None if side is None else estimate(side.get(key))

    def excess(self, key: str) -> Estimate:
        return estimate((self.raw.get("excess") or {}).get(key))

    @property
    def distribution(self) -> list[str]:
        """What is known of the whole distribution; nothing where it was not captured."""
        return list(self.raw.get("distribution") or {})

    def of_distribution(self, key: str) -> Estimate:
        return estimate((self.raw.get("distribution") or {}).get(key))

    @property
    def breakdown_keys(self) -> list[str]:
        return list(self.raw.get("breakdowns") or {})

    def breakdown(self, by: str) -> list[Bin]:
        rows: Sequence[Mapping[str, Any]] = (self.raw.get("breakdowns") or {}).get(by) or []
        return [Bin(_label(r["bin"]), int(r["tokens"] or 0), r.get("metrics") or {}) for r in rows]

    @property
    def checks(self) -> list[Check]:
        return [
            Check(*(str(row.get(k) or "") for k in _CHECK))
            for row in self.raw.get("preflight") or []
        ]

    @property
    def prefixes(self) -> list[Prefix]:
        return [
            Prefix(int(r["length"]), int(r["sequences"]), int(r["tokens"]), estimate(r["ess"]),
                   r.get("predicted"))
            for r in self.raw.get("ess_by_length") or []
        ]  # fmt: skip

    @property
    def corrections(self) -> list[Correction]:
        return [
            Correction(
                str(r["name"]), str(r["level"]), str(r["rule"]), _corrected(r),
                [_corrected(part) for part in r.get("by_length") or []],
            )
            for r in self.raw.get("corrections") or []
        ]  # fmt: skip

    @property
    def forks(self) -> Forks | None:
        """None where a side has no likeliest tokens, or no sequence could be judged."""
        return _forks(self.raw.get("forks"))

    def forks_of_floor(self, name: str, slot: str) -> Forks | None:
        """The same of a side against itself in another capture."""
        floors = (self.raw.get("forks") or {}).get("floor") or {}
        return _forks((floors.get(name) or {}).get(slot))

    @property
    def failure(self) -> str | None:
        """Why there are no tokens, when a capture failed; None otherwise."""
        failed = [c for c in self.checks if c.rung == "capture" and c.verdict == "fail"]
        return "; ".join(c.evidence for c in failed) if failed else None

    @property
    def unsupported(self) -> bool:
        """Whether nothing failed: the captures that are missing cannot run on this machine."""
        missing = [c for c in self.checks if c.rung == "capture" and c.verdict == "fail"]
        return bool(missing) and all(IS_UNSUPPORTED in c.evidence for c in missing)

    @property
    def failed_checks(self) -> list[Check]:
        return [c for c in self.checks if c.verdict == "fail" and c.rung != "capture"]


_CHECK = ("rung", "verdict", "evidence", "todo", "fault")


def _corrected(raw: Mapping[str, Any]) -> Corrected:
    tokens, sequences = (int(raw.get(key) or 0) for key in ("tokens", "sequences"))
    affected, ess = (estimate(raw.get(key)) for key in ("affected", "ess"))
    return Corrected(str(raw.get("bin") or ""), tokens, sequences, affected, ess)


def _forks(raw: Any) -> Forks | None:
    if not raw or not raw.get("sequences"):
        return None
    rows = [
        Agreement(int(r["length"]), int(r["sequences"]), estimate(r["share"]))
        for r in raw.get("agreement") or []
    ]
    sequences, forked, tied, either = (int(raw.get(key) or 0) for key in _COUNTED)
    return Forks(
        raw.get("greedy"), sequences, forked, raw.get("first"), tied, either,
        estimate(raw.get("median")), rows,
    )  # fmt: skip


_COUNTED = ("sequences", "forked", "tied", "forked_or_tied")


def _label(bin_: Any) -> str:
    return "–".join(map(str, bin_)) if isinstance(bin_, list | tuple) else str(bin_)


def pairs_of(summary: Mapping[str, Any]) -> list[Pair]:
    """All pairs, in the summary's order (train-infer first)."""
    return [Pair(raw) for raw in summary.get("pairs") or []]


def lead(pairs: Sequence[Pair]) -> Pair | None:
    """The pair the finding speaks of: the first train-infer pair that has tokens; where none was
    asked for, the first pair of any kind that has. None when what was asked for has no evidence: a
    pair inside one engine must not stand in for it."""
    asked = [p for p in pairs if p.is_train_infer] or list(pairs)
    return next((p for p in asked if p.tokens), None)


def breakdown_key(asked: str) -> str:
    """The key of `breakdowns` that a user means, by its own name too; else `option-value`."""
    name = asked.replace("-", "_")
    if name in BREAKDOWNS.values():
        return name
    if name not in BREAKDOWNS:
        takes, hint = ", ".join(BREAKDOWNS), suggest(asked, BREAKDOWNS)
        raise MismatchError("option-value", option="by", value=asked, takes=takes, hint_extra=hint)
    return BREAKDOWNS[name]


def setups(pairs: Sequence[Pair]) -> list[tuple[str, list[Pair]]]:
    """(title, pairs) for each two conditions that were compared, in the summary's order."""
    found: dict[str, list[Pair]] = {}
    for pair in pairs:
        found.setdefault(f"{pair.setup} ({pair.kind})", []).append(pair)
    return list(found.items())
