"""Rules over comparisons -> a verdict: pass only where the whole 95% interval keeps to the limit.

What is not known never passes: no pair, no token, NaN, a failed capture, a null, a metric without
an interval, an interval that is not trusted. Verdicts from best to worst, with their exit codes;
the worst one decides:

    pass 0 < inconclusive 4 < no_evidence 4 < fail 1 < not_comparable 5

A failed rule outranks missing evidence: it is known to be broken whatever the missing part would
say, and neither is ever a pass. `not_comparable` outranks all, since the numbers are then not about
numerics. A limit is compared as it stands; it needs no floor. `excess.k2` and `excess.k3` do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mismatch.errors import (
    GATE_FAILED,
    NO_EVIDENCE,
    NOT_COMPARABLE,
    PASS,
    MismatchError,
    suggest,
)
from mismatch.glossary import MIN_SEQUENCES, NOT_TRUSTED, WHY_NOT_TRUSTED

Bound = Literal["max", "min"]
Verdict = Literal["pass", "inconclusive", "no_evidence", "fail", "not_comparable"]
Pair = Mapping[str, Any]

#: Best to worst.
VERDICTS: tuple[Verdict, ...] = ("pass", "inconclusive", "no_evidence", "fail", "not_comparable")
EXIT_CODES: dict[Verdict, int] = {
    "pass": PASS,
    "inconclusive": NO_EVIDENCE,
    "no_evidence": NO_EVIDENCE,
    "fail": GATE_FAILED,
    "not_comparable": NOT_COMPARABLE,
}

#: Floors subtract in d² alone (metrics.md), so these two have an excess.
EXCESS_KEYS = ("k2", "k3")

#: Metrics of either sign, 0 where the sides agree. A maximum holds their size: -5 nats are as far
#: off as 5.
SIGNED = (
    "k1",
    "logprob_diff_mean",
    "seq_log_ratio_mean",
    "seq_log_ratio_p05",
    "seq_log_ratio_p50",
    "seq_log_ratio_p95",
    "seq_log_ratio_slope_per_1k",
    "seq_k1",
    "log_ppl_diff",
)

#: Metrics that never have an interval, and what to gate on instead.
VALUE_ONLY = {
    "abs_logprob_diff_max": "abs_logprob_diff_p99",
    "abs_logprob_diff_p999": "abs_logprob_diff_p99",
    "prob_diff_max": "prob_diff_mean",
    "ratio_min": "ratio_p01",
    "ratio_max": "ratio_p99",
}


# ---------------------------------------------------------------- rules


@dataclass(frozen=True, slots=True)
class Rule:
    """`--max k3=1e-3` is Rule("k3", "max", 1e-3, False). excess: the part over the floors."""

    key: str
    bound: Bound
    limit: float
    excess: bool

    @property
    def name(self) -> str:
        """The key as it was written: `k3` or `excess.k3`."""
        return f"excess.{self.key}" if self.excess else self.key

    @property
    def allowed(self) -> tuple[float, float]:
        """Where the metric may lie."""
        if self.bound == "min":
            return self.limit, math.inf
        return (-self.limit if self.key in SIGNED else -math.inf), self.limit

    @property
    def wanted(self) -> str:
        """`allowed` in words."""
        if self.bound == "min":
            return f"at least {self.limit:.6g}"
        return f"within ±{self.limit:.6g}" if self.key in SIGNED else f"at most {self.limit:.6g}"


def parse_rule(text: str, bound: Bound, known: Iterable[str]) -> Rule:
    """`k3=1e-3` or `excess.k3=5e-4` -> Rule. known: the metric keys there are.

    Raises `bad-rule` (form, or a limit that is not a finite number) and `unknown-metric`.
    """
    name, equals, number = (piece.strip() for piece in text.partition("="))
    limit = _finite_number(number)
    if not equals or not name or limit is None:
        raise MismatchError("bad-rule", rule=text)
    key = name.removeprefix("excess.")
    excess = key != name
    metrics = list(known)
    if key not in (EXCESS_KEYS if excess else metrics):
        raise _unknown_metric(name, metrics)
    if bound == "max" and key in SIGNED and limit < 0:
        raise MismatchError(
            "bad-rule", rule=text, hint_extra=f" A maximum of {key} holds its size: 0 or more."
        )
    return Rule(key, bound, limit, excess)


def _finite_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _unknown_metric(name: str, metrics: list[str]) -> MismatchError:
    over_floors = [f"excess.{key}" for key in EXCESS_KEYS]
    if name.startswith("excess."):
        known = f"An excess over the floors exists for {' and '.join(EXCESS_KEYS)} alone."
    else:
        known = f"Metrics: {', '.join([*metrics, *over_floors])}."
    hint = suggest(name, [*metrics, *over_floors])
    return MismatchError("unknown-metric", metric=name, known=known, hint_extra=hint)


# ---------------------------------------------------------------- the verdict


@dataclass(frozen=True, slots=True)
class Judgement:
    """One rule on one pair. pair is None when there was no pair at all; rule is max or min."""

    pair: str | None
    rule: Bound
    key: str
    value: float | None
    low: float | None
    high: float | None
    limit: float
    verdict: Verdict
    reason: str


def judge(
    summary: Mapping[str, Any], rules: Sequence[Rule], pair: str | None = None
) -> dict[str, Any]:
    """Every rule on every train-infer pair of a summary.json, or on the pair named (of any kind).

    Returns {"verdict", "exit_code", "rules": [a Judgement as a dict, ...]}.
    Raises `usage` without a rule and `no-such-pair`.
    """
    if not rules:
        raise MismatchError(
            "usage", what="The gate has no rule.", todo="Give at least one: --max k3=1e-3."
        )
    found = [_judge(p, rule) for p in _chosen(summary, pair) for rule in rules]
    found = found or [_unjudged(rule) for rule in rules]
    worst = max((f.verdict for f in found), key=VERDICTS.index)
    return {
        "verdict": worst,
        "exit_code": EXIT_CODES[worst],
        "rules": [asdict(f) for f in found],
    }


def _chosen(summary: Mapping[str, Any], name: str | None) -> list[Pair]:
    pairs: list[Pair] = summary.get("pairs") or []
    if name is None:
        return [p for p in pairs if p["kind"] == "train-infer"]
    chosen = [p for p in pairs if p["id"] == name]
    if not chosen:
        known = [str(p["id"]) for p in pairs]
        raise MismatchError(
            "no-such-pair",
            pair=name,
            known=", ".join(known) or "none",
            hint_extra=suggest(name, known),
        )
    return chosen


def _unjudged(rule: Rule) -> Judgement:
    reason = f"There is no train-infer pair to hold {rule.name} against."
    return Judgement(
        None, rule.bound, rule.name, None, None, None, rule.limit, "no_evidence", reason
    )


def _judge(pair: Pair, rule: Rule) -> Judgement:
    estimate = _estimate(pair, rule)
    ruling = (
        _unusable(pair)
        or _unmeasured(pair, rule, estimate)
        or _untrusted(pair, rule, estimate)
        or _hold(pair, rule, estimate)
    )
    verdict, reason = ruling
    return Judgement(
        pair["id"], rule.bound, rule.name, *estimate, rule.limit, verdict, f"{pair['id']}: {reason}"
    )


Estimate = tuple[float | None, float | None, float | None]
Ruling = tuple[Verdict, str]


def _estimate(pair: Pair, rule: Rule) -> Estimate:
    """(value, low, high) as the summary has them; whatever is not a finite number is None."""
    entry = _entry(pair, rule)
    value, low, high = (_finite(entry.get(part)) for part in ("value", "low", "high"))
    return value, low, high


def _entry(pair: Pair, rule: Rule) -> Mapping[str, Any]:
    entry = (pair.get("excess" if rule.excess else "metrics") or {}).get(rule.key)
    return entry if isinstance(entry, Mapping) else {"value": entry}


def _finite(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and math.isfinite(value) else None


def _unusable(pair: Pair) -> Ruling | None:
    """Why nothing can be said of this pair, whatever the rule."""
    failed = [c for c in pair.get("preflight") or [] if c.get("verdict") == "fail"]
    checks = [c for c in failed if c.get("rung") != "capture"]
    if checks:
        said = "; ".join(f"check '{c.get('rung')}' failed: {_said(c)}" for c in checks)
        return "not_comparable", f"the sides are not comparable: {said}."
    if failed:
        return "no_evidence", f"it was not captured: {'; '.join(map(_said, failed))}."
    nan, inf = pair.get("nan_tokens"), pair.get("inf_tokens")
    if nan != 0 or inf != 0:  # a missing count is not 0 either
        size = f"{pair.get('tokens')} tokens are finite on both sides"
        return "no_evidence", f"{nan} tokens are NaN and {inf} infinite ({size})."
    if not pair.get("tokens"):
        return "no_evidence", "it has no token that both sides scored."
    return None


def _said(check: Mapping[str, Any]) -> str:
    return str(check.get("evidence") or "no reason was recorded").rstrip(".")


def _unmeasured(pair: Pair, rule: Rule, estimate: Estimate) -> Ruling | None:
    """Why this rule has no number, or none with an interval, in a pair that has tokens."""
    value, low, high = estimate
    sequences = pair.get("sequences") or 0
    if rule.excess and (pair.get("excess") or {}).get(rule.key) is None:
        why = (
            "a side has no floor, or is only known to repeat itself bit for bit, which is no noise"
        )
        todo = "capture both sides with --floor batch (a dump has no floors)"
        return "no_evidence", f"{rule.name} is unknown, because {why}: {todo}."
    if value is None:
        why = "not finite, or not measured here"
        return "no_evidence", f"{rule.name} is null on {_size(pair)} ({why})."
    shown = f"{rule.name} = {value:.6g} on {_size(pair)}"
    if sequences < MIN_SEQUENCES:
        return "no_evidence", f"{shown} has no interval: that takes {MIN_SEQUENCES} sequences."
    if low is None and high is None:
        return "no_evidence", f"{shown} has no interval: {_why_none(pair, rule)}."
    return None


def _size(pair: Pair) -> str:
    return f"{pair['tokens']} tokens in {pair.get('sequences') or 0} sequences"


def _why_none(pair: Pair, rule: Rule) -> str:
    """Why a metric of a large enough pair has no interval, and one that has."""
    if rule.key in VALUE_ONLY:
        why = "one extreme token makes it"
    else:
        why = "too few sequences reach that far, or one of them carries over 20% of the weight"
    offers = [VALUE_ONLY.get(rule.key, "k3"), "k3", *(pair.get("metrics") or {})]
    usable = (k for k in offers if _estimate(pair, Rule(k, rule.bound, 0.0, False))[2] is not None)
    other = next(usable, None)
    return f"{why}; gate on {other} instead" if other else why


def _untrusted(pair: Pair, rule: Rule, estimate: Estimate) -> Ruling | None:
    """An interval that compare marked.

    It neither passes nor fails. Where the truth is known such intervals lie wholly below it in 5 to
    12% of samples (reports/coverage), which a pass would turn into a gap let through. They seldom
    lie above it; yet a fail says that the gap is known to be over the limit, and an interval that
    is known to be wrong on one side is no ground for that either.
    """
    if _entry(pair, rule).get("trusted", True) is True:
        return None
    shown = f"{rule.name} = {estimate[0]:.6g} on {_size(pair)}"
    return "inconclusive", f"{shown}: {NOT_TRUSTED} ({WHY_NOT_TRUSTED}): more sequences would tell."


def _hold(pair: Pair, rule: Rule, estimate: Estimate) -> Ruling:
    """The interval against the limit. An open end (null) reaches without end to that side."""
    value, low, high = estimate
    bottom = -math.inf if low is None else low
    top = math.inf if high is None else high
    shown = f"{rule.name} = {value:.6g} on {_size(pair)}; its 95% interval"
    shown += f" [{bottom:.6g}, {top:.6g}]"
    least, most = rule.allowed
    if least <= bottom and top <= most:
        return "pass", f"{shown} lies wholly {rule.wanted}."
    if bottom > most or top < least:
        side, edge = ("above", most) if bottom > most else ("below", least)
        return "fail", f"{shown} lies wholly {side} {edge:.6g}; {rule.wanted} was asked."
    edge = most if bottom <= most < top else least
    return (
        "inconclusive",
        f"{shown} reaches across {edge:.6g}: {_what_would_tell(pair, rule, value)}.",
    )


def _what_would_tell(pair: Pair, rule: Rule, value: float | None) -> str:
    """An event never seen has the upper bound 1 - 0.025^(1/S): how many sequences reach the limit.

    (metrics.measure sets that bound.)
    """
    if value == 0.0 and rule.key.startswith("extreme_fraction") and 0 < rule.limit < 1:
        needed = math.ceil(math.log(0.025) / math.log1p(-rule.limit))
        return f"never seen in {pair.get('sequences')} sequences; about {needed} would tell"
    return "more sequences would narrow it"
