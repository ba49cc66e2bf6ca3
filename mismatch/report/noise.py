"""Is a gap more than noise? One verdict per pair, from the excess over the floors.

The verdict is a sentence about evidence, not a pass: no floor, no interval and NaN tokens each have
their own verdict, and none of them reads as good news.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mismatch.glossary import NOT_TRUSTED, WHY_NOT_TRUSTED
from mismatch.report.pairs import SLOTS, Estimate, Pair
from mismatch.report.words import count, interval, number, sample_size, why_no_interval

#: How a verdict is coloured: a resolved gap, nothing beyond noise, unknown, or not to be believed.
Tone = Literal["gap", "calm", "unknown", "broken"]


@dataclass(frozen=True, slots=True)
class Noise:
    """verdict: two to four words. reason: one sentence with the numbers behind it."""

    verdict: str
    tone: Tone
    reason: str


def noise(pair: Pair) -> Noise:
    """The verdict of one pair; doubts about the numbers come before the numbers."""
    return _unbelievable(pair) or _exact(pair) or _unknown(pair) or _resolved(pair)


def _unbelievable(pair: Pair) -> Noise | None:
    if pair.failure is not None:
        if pair.unsupported:
            return Noise("unsupported", "broken", f"This machine cannot run it: {pair.failure}")
        return Noise("failed", "broken", f"The capture failed: {pair.failure}")
    if pair.nan_tokens or pair.inf_tokens:
        return Noise("no evidence", "broken", _not_finite(pair))
    if not pair.tokens:
        return Noise("no evidence", "broken", "No token was compared.")
    if pair.failed_checks:
        first = pair.failed_checks[0]
        reason = f"The check '{first.rung}' failed, so this gap may not be numerics: "
        return Noise("check failed", "broken", reason + first.evidence)
    return None


def _not_finite(pair: Pair) -> str:
    return (
        f"{count(pair.nan_tokens, 'token')} NaN and {pair.inf_tokens:,} infinite: "
        "they are outside every number here."
    )


def _exact(pair: Pair) -> Noise | None:
    if pair.metric("exact_fraction").value != 1.0:
        return None
    return Noise("bit-equal", "calm", f"d = 0 on {sample_size(pair.tokens, pair.sequences)}.")


def _unknown(pair: Pair) -> Noise | None:
    name = compared_floor(pair)
    if name is None:
        return Noise("no floor", "unknown", _missing_floor(pair))
    if _is_no_noise(pair, name):
        return Noise("no floor", "unknown", _only_deterministic(pair))
    excess = pair.excess("k3")
    if excess.value is None:
        return Noise("no evidence", "unknown", "The excess of k3 is not finite.")
    if not excess.has_interval:
        why = why_no_interval(pair.sequences)
        reason = f"{_floors(pair, name)}; excess k3 = {number(excess.value)}, {why}."
        return Noise("no interval", "unknown", reason)
    if not excess.trusted:
        said = f"excess k3 = {number(excess.value)} {interval(excess)}"
        return Noise(NOT_TRUSTED, "unknown", f"{_floors(pair, name)}; {said}: {WHY_NOT_TRUSTED}.")
    return None


def _resolved(pair: Pair) -> Noise:
    excess = pair.excess("k3")
    assert excess.low is not None
    assert excess.high is not None
    head = f"{_floors(pair, compared_floor(pair) or '')}; excess k3 = {number(excess.value)}"
    head += f" {interval(excess)}"
    if excess.low > 0:
        return Noise("more than noise", "gap", f"{head} lies above 0.")
    if excess.high < 0:
        return Noise("not more than noise", "calm", f"{head} lies below 0.")
    return Noise("not resolved", "unknown", f"{head} includes 0: more sequences would tell.")


def compared_floor(pair: Pair) -> str | None:
    """The floor the excess is over: batch where both sides have it, else repeat, else none."""
    for name in ("batch", "repeat"):
        if all(pair.floor(name, slot, "k3") is not None for slot in SLOTS):
            return name
    return None


def is_deterministic(pair: Pair, slot: str) -> bool:
    """The repeat floor of this side is exactly 0: a fact about the engine, never the noise."""
    found = pair.floor("repeat", slot, "k2") or pair.floor("repeat", slot, "k3")
    return found is not None and found.value == 0


def _is_no_noise(pair: Pair, floor: str) -> bool:
    return floor == "repeat" and any(is_deterministic(pair, slot) for slot in SLOTS)


def floor_mean(pair: Pair, key: str) -> float | None:
    """(floor_train + floor_infer) / 2: what noise alone would show.

    None where a side is missing, and where a side is only known to repeat itself exactly.
    """
    name = compared_floor(pair)
    if name is None or _is_no_noise(pair, name):
        return None
    values = [pair.floor(name, slot, key) for slot in SLOTS]
    known = [v.value for v in values if v is not None and v.value is not None]
    return sum(known) / 2 if len(known) == 2 else None


def _missing_floor(pair: Pair) -> str:
    missing = [
        side
        for side, slot in zip(pair.sides, SLOTS, strict=True)
        if all(pair.floor(name, slot, "k3") is None for name in ("batch", "repeat"))
    ]
    which = " and ".join(missing) or "one kind on both sides"
    return f"No floor was captured ({which}): whether this is more than noise is not known."


def _only_deterministic(pair: Pair) -> str:
    quiet = [s for s, t in zip(pair.sides, SLOTS, strict=True) if is_deterministic(pair, t)]
    verb = "repeats itself" if len(quiet) == 1 else "repeat themselves"
    return (
        f"Only the repeat floor was captured and {' and '.join(quiet)} {verb} bit for bit: "
        "that is not the noise. Capture the batch floor (--floor batch)."
    )


def _floors(pair: Pair, name: str) -> str:
    left, right = (_value(pair.floor(name, slot, "k3")) for slot in SLOTS)
    one, other = pair.sides
    return f"The {name} floors are k3 = {left} ({one}) and {right} ({other})"


def _value(found: Estimate | None) -> str:
    return number(None if found is None else found.value)
