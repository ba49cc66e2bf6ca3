"""L0: do both sides hold the same weights? Digests of the live tensors, by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from mismatch.compare.preflight.evidence import Evidence, Row, Side, failed, passed, unchecked

RUNG = "L0 weights"
#: Share of tokens with infer p >= 0.5 and d < -2 that no rounding makes. Measured on real pairs
#: here: 0 for bf16, fp16, other kernels and parallelism, below 0.001 for emulated fp8.
CONFIDENT = 0.002

TODO = (
    "A few small steps of training do not show in the values: hold the weights against each other "
    "where both engines run in process (hf, vllm, sglang)."
)

Digests = Mapping[str, Mapping[str, str]]


def differ(e: Evidence) -> Iterator[Row]:
    """Tensors of one name that are not one tensor after rounding."""
    one, other = map(_tensors, e.sides)
    verdicts = {name: same(one[name], other[name]) for name in one if name in other}
    unlike = [name for name, equal in verdicts.items() if equal is False]
    if unlike and not _quantised(e):
        yield failed(
            RUNG,
            "weights",
            f"stale or different weights: {len(unlike)} of {len(verdicts)} tensors differ after "
            f"rounding to one dtype, among them {', '.join(unlike[:3])}",
            "Push the trainer's weights to the rollout engine again, or give both sides one "
            "checkpoint; an engine may also keep a packed copy that an update misses.",
        )


def confident(e: Evidence) -> Iterator[Row]:
    """Where digests do not prove the weights equal, what stale ones leave in the values."""
    share = e.estimate("confident_disagreement").get("value")
    if share is None or share <= CONFIDENT or not _unproven(e):
        return
    yield failed(
        RUNG,
        "weights",
        f"stale or different weights, or another context: {share:.2%} of tokens have p >= 0.5 on "
        f"{e.right.name} and are more than 2 nats off, which no rounding does ({_unproven(e)})",
        "Check that both sides hold the same weights and the same prompt; then the kernels.",
    )


def calm(e: Evidence) -> Row:
    why = _unproven(e)
    if not why:
        return passed(
            RUNG, f"all {len(_tensors(e.left))} tensors equal, read from both live engines"
        )
    share = e.estimate("confident_disagreement").get("value")
    seen = "no" if not share else f"{share:.3%}"
    return unchecked(RUNG, f"{why}; {seen} confident disagreement in the values", TODO)


def _tensors(side: Side) -> Digests:
    return (side.facts.get("weights") or {}).get("tensors") or {}


def _quantised(e: Evidence) -> str:
    """Why weights that differ are as asked: one side alone rounds them."""
    kinds = {s.name: str(s.observed.get("quantization") or "none").lower() for s in e.sides}
    if len(set(kinds.values())) == 1:
        return ""
    return next(f"{name} quantises its weights ({k})" for name, k in kinds.items() if k != "none")


def _unproven(e: Evidence) -> str:
    """Why the digests do not prove all weights equal; "" where they do."""
    one, other = map(_tensors, e.sides)
    for side in e.sides:
        said = side.facts.get("weights")
        for name, why in ((said or {}).get("unread") or {}).items():
            return f"{side.name} does not show {name}: {why}"
        if not _tensors(side):
            return f"{side.name} does not show its weights"
    alone = sorted(set(one) ^ set(other))
    open_ = [n for n in one if n in other and same(one[n], other[n]) is None]
    if alone or open_:
        equal = len(set(one) & set(other)) - len(open_)
        return f"{equal} tensors equal, {len(alone) + len(open_)} not compared, such as " + (
            f"{open_[0]}, which each side rounded its own way" if open_ else alone[0]
        )
    return _quantised(e)


def same(one: Mapping[str, str], other: Mapping[str, str]) -> bool | None:
    """Whether two tensors are one after rounding; None where rounding cannot tell.

    Where neither dtype holds the other (bf16, fp16), equal digests still prove it, but unequal ones
    prove nothing: each may have been rounded from a float32 master.
    """
    ours, theirs = one["dtype"], other["dtype"]
    if ours == theirs:
        return one[ours] == other[theirs]
    if theirs in one and ours not in other:  # ours is the wider
        return one[theirs] == other[theirs]
    if ours in other and theirs not in one:
        return one[ours] == other[ours]
    shared = (one.keys() & other.keys()) - {"dtype"}
    return True if any(one[d] == other[d] for d in shared) else None
