"""Axes: from a value to a place in percent or pixels, and the ticks a person would choose.

Figures are fluid: x is in percent of the width, so that text keeps its size on a narrow screen.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Tick:
    """A place on an axis (0..1) and what is written there."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class LogAxis:
    """Decades from 10^first to 10^last; a slot of its own at the left for exactly 0."""

    first: int
    last: int

    #: Share of the width that belongs to 0 (and to bounds at or below it).
    ZERO = 0.14

    def at(self, value: float) -> float:
        """0..1; what is at or below 0 sits in the zero slot, what is too small at its edge."""
        if value <= 0:
            return self.ZERO / 3
        share = (math.log10(value) - self.first) / (self.last - self.first)
        return self.ZERO + (1 - self.ZERO) * min(max(share, 0.0), 1.0)

    @property
    def ticks(self) -> list[Tick]:
        span = self.last - self.first
        step = max(1, math.ceil(span / 4))
        decades = range(self.first, self.last + 1, step)
        return [Tick(self.at(0.0), "0"), *(Tick(self.at(10.0**e), f"1e{e}") for e in decades)]


def log_axis(values: Sequence[float | None]) -> LogAxis:
    """Covers every positive value, at most 9 decades down from the largest."""
    positive = [v for v in values if v is not None and v > 0]
    if not positive:
        return LogAxis(-6, 0)
    last = math.ceil(math.log10(max(positive)) + 0.05)
    first = math.floor(math.log10(min(positive)) - 0.05)
    return LogAxis(max(min(first, last - 1), last - 9), last)


@dataclass(frozen=True, slots=True)
class LinearAxis:
    """low..high with round steps."""

    low: float
    high: float
    step: float

    def at(self, value: float) -> float:
        return (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> list[Tick]:
        first, last = round(self.low / self.step), round(self.high / self.step)
        return [
            Tick(self.at(k * self.step), f"{k * self.step:.6g}") for k in range(first, last + 1)
        ]


def linear_axis(values: Sequence[float]) -> LinearAxis:
    """0 is always on it: a gap that looks large only because the axis was cut is a lie."""
    low, high = min([0.0, *values]), max([0.0, *values])
    span = (high - low) or 1.0
    rough = span / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
    bottom, top = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return LinearAxis(bottom * step, max(top, bottom + 1) * step, step)


@dataclass(frozen=True, slots=True)
class SignedAxis:
    """asinh(d / scale): linear within ±scale, logarithmic beyond, symmetric about 0."""

    scale: float
    reach: float

    def at(self, value: float) -> float:
        edge = math.asinh(self.reach / self.scale)
        return 0.5 + 0.5 * math.asinh(value / self.scale) / edge

    @property
    def ticks(self) -> list[Tick]:
        """0, and ± the decades from the largest inwards, as far as they stand apart."""
        chosen = [Tick(0.5, "0")]
        last = 0.98
        for exponent in range(math.floor(math.log10(self.reach)), -12, -1):
            at = self.at(10.0**exponent)
            if at < 0.58:
                break
            if at <= last:
                label = f"{10.0**exponent:g}"
                chosen += [Tick(at, label), Tick(1 - at, "-" + label)]
                last = at - 0.08
        return sorted(chosen, key=lambda t: t.at)


def signed_axis(largest: float, scale: float) -> SignedAxis:
    """An axis that holds ±largest; scale is where it turns logarithmic."""
    return SignedAxis(scale, max(largest * 1.05, scale * 1.05))


@dataclass(frozen=True, slots=True)
class Decades:
    """A log axis between two values above 0, without a place for 0."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """0..1; what lies outside sits at the edge."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return min(max(share, 0.0), 1.0)

    @property
    def ticks(self) -> list[Tick]:
        """Whole decades, at most five of them."""
        first, last = math.ceil(math.log10(self.low)), math.floor(math.log10(self.high))
        step = max(1, math.ceil((last - first) / 4))
        return [
            Tick(self.at(10.0**e), f"1e{e}" if e else "1") for e in range(first, last + 1, step)
        ]


def decades(values: Sequence[float]) -> Decades:
    """Whole decades around positive values."""
    low, high = (math.log10(edge(values)) for edge in (min, max))
    first = math.floor(low + 1e-9)
    return Decades(10.0**first, 10.0 ** max(math.ceil(high - 1e-9), first + 1))
