"""L5: what differs between the sides in batch and parallel shape. It explains; it never fails."""

from __future__ import annotations

from typing import Any

from mismatch.compare.preflight.evidence import Evidence, Row, Side, passed, unchecked

RUNG = "L5 shape"
#: Facts under `observed` that say over how many ranks a model is spread, and what one rank says.
PARALLEL = {"tp": 1, "pp": 1, "dp": 1, "ep": 0, "sp": 0, "cp": 1, "fsdp": 1}
#: And who shares a step.
BATCH = ("padding", "packing", "max_num_seqs", "max_num_batched_tokens", "chunked_prefill",
         "prefix_caching", "radix_cache", "chunked_prefill_size")  # fmt: skip


def calm(e: Evidence) -> Row:
    if any(side.is_dump for side in e.sides):
        return unchecked(RUNG, "a side is a dump: how it was batched is not recorded")
    one, other = map(_shape, e.sides)
    shared = [name for name in one if name in other]  # what one engine alone has is no difference
    words = [f"{n} {one[n]} / {other[n]}" for n in shared if one[n] != other[n]]
    if not words:
        return passed(RUNG, "batch and parallel shape are alike")
    names = f"{e.left.name} / {e.right.name}"
    return passed(
        RUNG, f"differs ({names}): {', '.join(words)} (a batch floor shows how much that moves)"
    )


def _shape(side: Side) -> dict[str, Any]:
    seen = {name: int(side.observed.get(name, alone)) for name, alone in PARALLEL.items()}
    batch = {name: side.observed[name] for name in BATCH if name in side.observed}
    return {**{n: side.provenance.get(n) for n in ("path", "batch")}, **seen, **batch}
