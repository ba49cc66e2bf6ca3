"""L3: do both sides send a token to the same experts?"""

from __future__ import annotations

from mismatch.compare.preflight.evidence import Evidence, Row, passed, unchecked

RUNG = "L3 routing"


def calm(e: Evidence) -> Row:
    experts = [side.facts.get("experts") for side in e.sides]
    if any(experts):
        return unchecked(
            RUNG,
            f"{max(n or 0 for n in experts)} experts, and no side captured its routes: other "
            "experts on the two sides would look like a heavy tail of d",
        )
    if None in experts:
        return unchecked(RUNG, "a side does not say whether the model has experts")
    return passed(RUNG, "the model has no experts")
