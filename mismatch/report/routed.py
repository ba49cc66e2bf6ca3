"""What is told of a pair's routes, where both sides captured them: one list for every report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mismatch.glossary import ROUTES
from mismatch.report.pairs import Estimate, Pair, estimate


@dataclass(frozen=True, slots=True)
class Told:
    """One row: what it is, of how many tokens, its value; more: what stands beside a layer's."""

    what: str
    tokens: int
    value: Estimate
    more: str = ""


def rates(pair: Pair) -> list[Told]:
    """How often the experts differ, by each way of counting."""
    tokens, found = pair.routes["tokens"], pair.routes["metrics"]
    return [Told(key, tokens, estimate(found.get(key))) for key in ROUTES if key in found]


def layers(pair: Pair) -> list[Told]:
    """How often they differ in each layer."""
    return [
        Told(
            f"router_flip_rate, layer {row['layer']}",
            pair.routes["tokens"],
            estimate(row["router_flip_rate"]),
            "" if row["beyond_chance"] is None else f"{row['beyond_chance']:.3f} beyond chance",
        )
        for row in pair.routes["by_layer"]
    ]


def groups(pair: Pair) -> list[Told]:
    """The gap of the tokens whose routes agree in every layer, and of the others."""
    return [
        Told(f"{key}, routes {row['routes']}", row["tokens"], estimate(found))
        for row in pair.routes["by_agreement"]
        for key, found in row["metrics"].items()
        if row["tokens"]
    ]


def everything(pair: Pair) -> Sequence[Told]:
    """Rates, layers, groups."""
    return [*rates(pair), *layers(pair), *groups(pair)] if pair.routes else []


def in_short(pair: Pair) -> Sequence[Told]:
    """The same with the one layer that differs most."""
    if not pair.routes:
        return []
    worst = sorted(layers(pair), key=lambda told: -(told.value.value or 0.0))[:1]
    return [*rates(pair), *worst, *groups(pair)]
