"""L3: do both sides send a token to the same experts?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mismatch.compare.preflight.evidence import Evidence, Row, failed, passed, unchecked

RUNG = "L3 routing"
#: Agreement beyond chance (1: the same experts, 0: chance) below which no rounding brings a layer.
LEAST = 0.5
#: Tokens below which one near tie makes an agreement look like chance.
ENOUGH = 100


def apart(e: Evidence) -> Iterator[Row]:
    """A layer whose experts agree hardly better than by chance: another router, or experts that are
    numbered otherwise.
    """
    if e.routes is None or e.replayed or e.routes["tokens"] < ENOUGH:
        return
    layers = {r["layer"]: r["beyond_chance"] for r in e.routes["by_layer"]}
    lost = {at: value for at, value in layers.items() if value is not None and value < LEAST}
    if lost:
        worst = min(lost, key=lambda at: lost[at])
        yield failed(
            RUNG,
            "routing",
            f"in {len(lost)} of {len(layers)} routed layers both sides choose other experts than "
            f"rounding explains: layer {worst} agrees {lost[worst]:.2f} beyond chance (1: the same "
            f"experts, 0: chance)",
            "Check that both sides hold the same router weights, and number and load the experts "
            "alike (a permuted or stale router, a bias that one side leaves out).",
        )


def calm(e: Evidence) -> Row:
    if e.replayed:
        return unchecked(
            RUNG,
            f"{' and '.join(e.replayed)} was told the experts of the rollout, and its own router "
            "was not seen",
            "Take the same condition without replay_routes=true beside it.",
        )
    if e.routes is not None:
        return _told(e.routes)
    experts = [side.facts.get("experts") for side in e.sides]
    if any(experts):
        return unchecked(
            RUNG,
            f"{max(n or 0 for n in experts)} experts, and {_silent(e)}: other experts on the two "
            "sides would look like a heavy tail of d",
            "Give routes=true to both sides, where the engine shows them (hf, vllm in process).",
        )
    if None in experts:
        return unchecked(RUNG, "a side does not say whether the model has experts")
    return passed(RUNG, "the model has no experts")


def _told(routes: Mapping[str, Any]) -> Row:
    layers = [row["beyond_chance"] for row in routes["by_layer"]]
    known = [value for value in layers if value is not None]
    said = _seen(routes, known)
    if routes["tokens"] < ENOUGH:
        few = f"{routes['tokens']} tokens are too few to tell chance from agreement: "
        return unchecked(RUNG, few + said, f"Replay {ENOUGH} tokens or more.")
    if len(known) < len(layers):
        alike = f"{len(layers) - len(known)} of {len(layers)} layers send nearly all tokens alike, "
        return unchecked(RUNG, alike + f"which chance alone would share: {said}")
    return passed(RUNG, said)


def _seen(routes: Mapping[str, Any], known: Sequence[float]) -> str:
    flips, tokens = (
        routes["metrics"][key]["value"] for key in ("router_flip_rate", "token_flip_rate")
    )
    least = f"; the least of a layer agrees {min(known):.2f} beyond chance" if known else ""
    return (
        f"{flips:.2%} of (token, layer) went to other experts, {tokens:.2%} of tokens in some layer"
        f"{least}"
    )


def _silent(e: Evidence) -> str:
    """Who captured no routes."""
    without = [side.name for side in e.sides if side.observed.get("routes") is not True]
    if len(without) == 1:
        return f"{without[0]} captured no routes"
    return "no side captured its routes" if without else "the captured routes cannot be compared"
