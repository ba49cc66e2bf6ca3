"""From two end conditions to the knobs in which they differ, and the corners between them.

A knob is an option that both ends accept, or `engine`, which carries every option that only one of
the engines has, and those in which the ends differ that were left out of the knobs. A corner is a
condition in which each knob stands at its left or at its right value; it is written as bits, one a
knob, "0" for left. With up to SHAPLEY_KNOBS knobs all corners are replayed; beyond that, one path
from the left end to the right one, and each knob toggled alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mismatch.engines import find
from mismatch.engines.base import DISTRIBUTION, Engine
from mismatch.model import TRAIN_PATH, Condition, Option, OptionValue

SHAPLEY_KNOBS = 4
ENGINE = "engine"


@dataclass(frozen=True, slots=True)
class End:
    """An end of an attribution: a condition and the path it is taken on."""

    condition: Condition
    path: str

    @property
    def engine(self) -> Engine:
        return find(self.condition.engine)


def knobs_of(left: End, right: End) -> list[str]:
    """The knobs in which two ends differ, `engine` first, then by name."""
    differ = [n for n in _shared(left, right) if _value(left, n) != _value(right, n)]
    other = _place(left) != _place(right)
    return [*([ENGINE] if other else []), *differ]


def _place(end: End) -> tuple[str, bool]:
    """Which engine, and on which side it stands."""
    return end.condition.engine, end.path == TRAIN_PATH


def _shared(left: End, right: End) -> list[str]:
    """Options given at an end that both engines accept, with the same values to choose from
    (attention has other names in each). arg.NAME belongs to one engine only, and what is captured
    beside the token's own value (top-k, entropy) moves nothing.
    """
    given = {*left.condition.options, *right.condition.options} - {"python", *DISTRIBUTION}
    if left.condition.engine == right.condition.engine:
        return sorted(given)
    return sorted(n for n in given if _same(left.engine.option(n), right.engine.option(n)))


def _same(one: Option | None, other: Option | None) -> bool:
    if one is None or other is None:
        return False
    return (one.kind, one.choices, one.scope) == (other.kind, other.choices, other.scope)


def _value(end: End, name: str) -> OptionValue | None:
    return end.condition.options.get(name)


def bits(knobs: Sequence[str]) -> list[str]:
    """All corners, or a path and single toggles where there are too many knobs for all."""
    n = len(knobs)
    if n <= SHAPLEY_KNOBS:
        return ["".join(corner) for corner in itertools.product("01", repeat=n)]
    path = ["1" * k + "0" * (n - k) for k in range(n + 1)]
    alone = ["0" * k + "1" + "0" * (n - k - 1) for k in range(n)]
    return list(dict.fromkeys([*path, *alone]))


def corners(left: End, right: End, knobs: Sequence[str]) -> Mapping[str, End]:
    """Bits -> the end at that corner. "00.." is left and "11.." is right, as they stand."""
    found = {b: _corner(left, right, dict(zip(knobs, b, strict=True))) for b in bits(knobs)}
    found["0" * len(knobs)], found["1" * len(knobs)] = left, right
    return found


def _corner(left: End, right: End, at: Mapping[str, str]) -> End:
    """The engine's own options, and those that are no knob, come from the end that has the engine;
    a knob's from where it stands."""
    base = right if at.get(ENGINE, "0") == "1" else left
    shared = _shared(left, right)
    options = {n: v for n, v in base.condition.options.items() if n not in shared and n not in at}
    for name in (n for n in [*shared, *at] if n != ENGINE):
        stands = {"0": left, "1": right}.get(at.get(name, ""), base)
        value = _value(stands, name)
        known = name in shared or stands.condition.engine == base.condition.engine
        if value is not None and known:
            options[name] = value
    return End(Condition(base.condition.engine, options), base.path)
