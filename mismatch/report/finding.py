"""Three lines a person understands: how large, more than noise or not, what else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mismatch.glossary import NOT_TRUSTED, WHY_NOT_TRUSTED
from mismatch.report.checks import where
from mismatch.report.noise import compared_floor, noise
from mismatch.report.pairs import Estimate, Pair, lead, pairs_of
from mismatch.report.words import (
    clean,
    count,
    interval,
    number,
    sample_size,
    why_no_interval,
    with_interval,
)

#: What k1 and k3 are on these tokens; only tokens the infer side sampled make them KL estimates.
SAMPLED_BY = {
    "infer": "infer sampled these tokens: k1 and k3 estimate KL(infer‖train)",
    "other": "something else sampled these tokens: k1 and k3 are distances on them, not KL",
    "reshaped": "infer sampled these tokens, but not from the model's own distribution "
    "(temperature, cut support or penalty): k1 and k3 are distances on them, not KL",
    "another kind": "k1 and k3 are distances between the two sides here, not KL(infer‖train)",
    "unknown": "who sampled these tokens is not known: k1 and k3 are distances on them, not KL",
}


def who_sampled(pairs: Sequence[Pair]) -> list[str]:
    """One sentence for each kind of sampler, naming its pairs where there is more than one kind."""
    kinds: dict[str, list[Pair]] = {}
    for pair in (p for p in pairs if p.tokens):
        kinds.setdefault(_kind(pair), []).append(pair)
    return [
        (f"{_named(alike, pairs)}: " if len(kinds) > 1 else "")
        + SAMPLED_BY.get(who, SAMPLED_BY["unknown"])
        + "."
        for who, alike in kinds.items()
    ]


def _kind(pair: Pair) -> str:
    return pair.sampled_by if pair.is_train_infer else "another kind"


def _named(alike: Sequence[Pair], pairs: Sequence[Pair]) -> str:
    """The paths of pairs of one kind; where another kind has the path too, whose it is: who
    sampled is a matter of the infer side's condition.
    """
    whose: dict[str, dict[str, None]] = {}
    for pair in alike:
        whose.setdefault(pair.path, {})[pair.conditions[1]] = None
    kind = _kind(alike[0])
    others = {p.path for p in pairs if p.tokens and _kind(p) != kind}
    return "; ".join(
        f"{path} of {', '.join(who)}" if path in others else path for path, who in whose.items()
    )


def emulations(pairs: Sequence[Pair]) -> list[str]:
    """One sentence for each thing that was emulated, naming the conditions that did."""
    found: dict[str, dict[str, None]] = {}
    for condition, words in (e for p in pairs for e in p.emulated):
        found.setdefault(words, {})[condition] = None
    return [f"{', '.join(who)}: quantisation {words}." for words, who in found.items()]


def replays(pairs: Sequence[Pair]) -> list[str]:
    """One sentence for each condition that did not choose its experts itself."""
    found = dict.fromkeys(told for p in pairs for told in p.replayed)
    return [f"{condition}: routes replayed: {words}." for condition, words in found]


def notices(pairs: Sequence[Pair]) -> list[str]:
    """What must be known of how the numbers came about, wherever they stand."""
    return [*who_sampled(pairs), *emulations(pairs), *replays(pairs), *untrusted(pairs)]


def untrusted(pairs: Sequence[Pair]) -> list[str]:
    """One sentence that names the pairs with such an interval, and why; none where all hold."""
    named = [p.id for p in pairs if p.has_untrusted]
    return [f"{where(named, pairs)}: {NOT_TRUSTED}: {WHY_NOT_TRUSTED}."] if named else []


def finding(summary: Mapping[str, Any]) -> list[str]:
    """Exactly three lines: the gap, the noise, and the largest other thing worth knowing."""
    pairs = pairs_of(summary)
    first = lead(pairs)
    if first is None:
        lines = ["Gap: no evidence, no token was compared.", "Noise: no evidence."]
    else:
        lines = [_gap(first), _noise(first)]
    return [clean(line) for line in [*lines, _other(pairs, first)]]


def _gap(pair: Pair) -> str:
    k3, mean = pair.metric("k3"), pair.metric("abs_logprob_diff_mean")
    size = sample_size(pair.tokens, pair.sequences)
    said = f"k3 = {_in_nats(k3)}{'' if k3.trusted else ','} and mean |d| = {_in_nats(mean)}"
    if not (k3.has_interval or mean.has_interval):
        said += f", {why_no_interval(pair.sequences)}"
    return f"Gap: {said} on {pair.path} ({pair.setup}; {size})."


def _in_nats(found: Estimate) -> str:
    said = interval(found, unit="nats") if found.has_interval else "nats"
    return f"{number(found.value)} {said}"


def _noise(pair: Pair) -> str:
    found = noise(pair)
    return f"Noise: {found.verdict}. {found.reason}" + _second_opinion(pair, found.verdict)


def _second_opinion(pair: Pair, verdict: str) -> str:
    """k3 leans on the tail and k2 does not: where they disagree on the verdict, say so."""
    k2 = pair.excess("k2")
    if verdict not in _SIGN or not k2.trusted or compared_floor(pair) is None:
        return ""
    if k2.low is None or k2.high is None:
        return ""
    sign = 1 if k2.low > 0 else -1 if k2.high < 0 else 0
    if sign == _SIGN[verdict]:
        return ""
    return f" Excess k2 = {with_interval(k2, pair.sequences)} says otherwise."


_SIGN = {"more than noise": 1, "not resolved": 0, "not more than noise": -1}


def _other(pairs: Sequence[Pair], first: Pair | None) -> str:
    """The first of these that has something to say, in order of what must not be missed."""
    rest = [p for p in pairs if first is None or p.id != first.id]
    views: tuple[Callable[[Sequence[Pair], Sequence[Pair]], str], ...] = (
        _failures,
        _not_finite,
        _failed_checks,
        _inside_one_engine,
        _largest,
    )
    said = (view(pairs, rest) for view in views)
    return "Also: " + next((line for line in said if line), "nothing else was compared.")


def _failures(pairs: Sequence[Pair], rest: Sequence[Pair]) -> str:
    empty = [p for p in pairs if not p.tokens]
    if not empty:
        return ""
    reason = (empty[0].failure or noise(empty[0]).reason).rstrip(".")
    verb = "has" if len(empty) == 1 else "have"
    share = f"{len(empty)} of {count(len(pairs), 'pair')}"
    return f"{share} {verb} no evidence; {empty[0].id}: {reason}."


def _not_finite(pairs: Sequence[Pair], rest: Sequence[Pair]) -> str:
    bad = [p for p in rest if p.nan_tokens or p.inf_tokens]
    if not bad:
        return ""
    each = (f"{p.id}: {p.nan_tokens:,} NaN, {p.inf_tokens:,} infinite tokens" for p in bad)
    return "; ".join(each) + ". They are in no metric."


def _failed_checks(pairs: Sequence[Pair], rest: Sequence[Pair]) -> str:
    for pair in rest:
        for check in pair.failed_checks:
            said = f"the check '{check.rung}' failed on {_how_many(pairs)}{pair.id}: "
            return f"{said}{check.evidence.rstrip('.')}. {check.todo}".rstrip()
    return ""


def _how_many(pairs: Sequence[Pair]) -> str:
    """Before the first pair that failed a check, where it is not alone."""
    failed = sum(bool(p.failed_checks) for p in pairs)
    return f"{failed} of {len(pairs)} pairs, among them " if failed > 1 else ""


def _inside_one_engine(pairs: Sequence[Pair], rest: Sequence[Pair]) -> str:
    """rollout..decode, prefill..decode: what one engine does with the same ids on two paths."""
    inner = [p for p in rest if not p.is_train_infer]
    return "; ".join(_one_against_other(p) for p in inner[:2]) + "." if inner else ""


def _one_against_other(pair: Pair) -> str:
    one, _, other = pair.path.partition("..")
    name = f"{one} and {other}" if other else pair.path
    where = f" of {pair.conditions[0]}" if len(set(pair.conditions)) == 1 else ""
    if pair.metric("exact_fraction").value == 1.0:
        return f"{name}{where} are bit-equal on {count(pair.tokens, 'token')}"
    mean = with_interval(pair.metric("abs_logprob_diff_mean"), pair.sequences)
    k3 = number(pair.metric("k3").value)
    return f"{name}{where} differ by mean |d| = {mean} (k3 {k3}, {count(pair.tokens, 'token')})"


def _largest(pairs: Sequence[Pair], rest: Sequence[Pair]) -> str:
    known = [p for p in rest if p.metric("k3").value is not None]
    if not known:
        return ""
    most = max(known, key=lambda p: p.metric("k3").value or 0.0)
    k3 = with_interval(most.metric("k3"), most.sequences, "nats")
    return f"{most.id} has k3 = {k3} ({sample_size(most.tokens, most.sequences)})."
