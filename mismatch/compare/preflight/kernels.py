"""L4: did what was asked run, in the precision it names, and is the gap of that size?"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np

from mismatch.compare.preflight.evidence import Evidence, Row, Side, failed, passed, unchecked

RUNG = "L4 kernels"
#: Unit roundoff of what the weights, products or the KV cache are kept in.
ROUNDOFF = {"fp32": 2.0**-24, "fp16": 2.0**-11, "bf16": 2.0**-8,
            "int8": 2.0**-8, "fp8": 2.0**-4}  # fmt: skip
#: Mean |d| in roundoffs that kernels of one precision reach. Measured on real pairs here: bf16 2.5
#: to 11, fp16 5 to 11, fp32 10 to 110 (its products sum more roundings), fp8 about 2. For bf16 this
#: is 0.098 nats, where slime's own check of a rollout draws its line (0.1).
EXPECTED = {"fp32": 1000, "fp16": 25, "bf16": 25, "int8": 60, "fp8": 15}
COARSEST = "fp8"
#: Share of tokens that infer is sure of (p >= 0.5) and the other side more than 2 nats off: 0 on
#: every clean pair in 16 bits here. The lower end of its interval is held against this.
TAIL = 5e-4
#: Share of float32 values whose lower 16 bits are 0 by chance: 2^-16.
ON_GRID = 0.99


def calm(e: Evidence) -> Row:
    if any(side.is_dump for side in e.sides):
        return unchecked(RUNG, "a side is a dump: which kernels ran is not recorded")
    ran = " / ".join(f"{_ran(side)} ({side.name})" for side in e.sides)
    if not _coarsest(e):
        return unchecked(RUNG, f"ran: {ran}; how large a gap that makes is not known")
    return passed(RUNG, f"ran as asked: {ran}; mean |d| {_mean(e):.2g} nats is of that size")


def _ran(side: Side) -> str:
    names = ("dtype", "attention", "quantization", "kv_cache_dtype", "lm_head")
    seen = [str(side.observed[n]) for n in names[:2] if n in side.observed]
    seen += [
        f"{n}={side.observed[n]}"
        for n in names[2:]
        if side.observed.get(n) not in (None, "none", "auto", side.observed.get("dtype"))
    ]
    return " ".join(seen) or "unstated"


def _mean(e: Evidence) -> float:
    return float(np.mean(np.abs(e.d[e.finite]))) if e.finite.any() else 0.0


# ---------------------------------------------------------------- silent changes of precision


def cache(e: Evidence) -> Iterator[Row]:
    """A KV cache of fewer bits than 16 that no condition asks for."""
    for side in e.sides:
        kept = str(side.observed.get("kv_cache_dtype", "auto"))
        bits = re.search(r"\d+", kept)
        if bits and int(bits[0]) < 16 and "kv_cache_dtype" not in side.asked:
            yield failed(
                RUNG,
                "kv_cache",
                f"the KV cache of {side.name} is {kept}, which nobody asked for",
                "State kv_cache_dtype, or take the setting back.",
            )


def rounded(e: Evidence) -> Iterator[Row]:
    """Values, or the logits under them, that lie on a grid of bf16 on one side alone.

    A model that runs in bf16 has such logits and is what it says; one that says fp32 is not. One in
    fp16 has them too, as its own steps are as coarse from a logit of 16 on.
    """
    for what, grid in (("log-probabilities", _on_bf16), ("logits", _logits_on_bf16)):
        share = [grid(side) for side in e.sides]
        known = [s for s in share if s is not None]
        if len(known) == 2 and max(known) > ON_GRID and min(known) < 0.5:
            side = e.sides[int(np.argmax(known))]
            head = side.observed.get("lm_head", side.observed.get("dtype"))
            if what == "logits" and head != "fp32":
                continue
            yield failed(
                RUNG,
                "precision",
                f"the {what} of {side.name} are rounded to bf16 ({max(known):.1%} lie on its grid, "
                f"{min(known):.1%} on the other side)",
                "Take log-softmax in float32 and keep its result in float32.",
            )
            return


def _on_bf16(side: Side) -> float | None:
    """Share of values that bf16 holds exactly; zeros say nothing."""
    values = side.logprob[np.isfinite(side.logprob) & (side.logprob != 0)].astype(np.float32)
    return float(np.mean(values.view(np.uint32) & 0xFFFF == 0)) if len(values) >= 32 else None


def _logits_on_bf16(side: Side) -> float | None:
    """Share of differences of the likeliest two tokens that are multiples of a bf16 step.

    A logit of 4 to 8 has steps of 2^-5 in bf16, larger ones coarser steps; the differences of
    logits survive log-softmax, but for float32's own rounding.
    """
    if side.top is None or side.top.logprobs.shape[1] < 2:
        return None
    gap = (side.top.logprobs[:, 0] - side.top.logprobs[:, 1]).astype(np.float64)
    gap = gap[np.isfinite(gap) & (gap > 0)]
    steps = gap * 2**6
    return float(np.mean(np.abs(steps - np.round(steps)) < 1e-3)) if len(gap) >= 32 else None


# ---------------------------------------------------------------- the size of the gap


def too_far(e: Evidence) -> Iterator[Row]:
    """More than rounding of the coarsest precision on either side explains, in the mean or in the
    tail: a broken merge of attention spoils few tokens, and those wholly.
    """
    coarsest = _coarsest(e)
    if not coarsest or not e.finite.any():
        return
    found = []
    limit, mean = ROUNDOFF[coarsest] * EXPECTED[coarsest], _mean(e)
    if mean > limit:
        here = "that is known" if e.left.is_dump else "here"
        size = mean / ROUNDOFF[coarsest]
        roundoffs = f"{size:.{1 if size < 100 else 0}f} roundoffs of {coarsest}"
        found.append(
            f"mean |d| is {mean:.3g} nats, {roundoffs}, the coarsest precision {here}; kernels "
            f"reach up to {EXPECTED[coarsest]}"
        )
    sure = e.estimate("confident_disagreement")
    if coarsest not in ("int8", "fp8") and (sure.get("low") or 0) > TAIL:
        found.append(
            f"{sure['value']:.2%} of tokens (95% interval from {sure['low']:.2%} on) have p >= 0.5 "
            f"on {e.right.name} and are more than 2 nats off"
        )
    if found:
        yield failed(
            RUNG,
            "size",
            f"{'; '.join(found)}: this is no rounding",
            "With equal weights and tokens, look for another model function: rope, attention, "
            "masks, a broken kernel.",
        )


def _coarsest(e: Evidence) -> str:
    """The coarsest precision that ran; "" where neither side says, or one has no roundoff here.

    Of two dumps any may have run: they are held to the coarsest that is known here. A side that
    does not say, beside one that does, ran in bf16 or finer, as most engines do.
    """
    shown = [_roundoff(side) for side in e.sides]
    if not any(shown) and all(side.is_dump for side in e.sides):
        return COARSEST
    if None in shown or not any(shown):
        return ""
    return max((name or "bf16" for name in shown), key=lambda name: ROUNDOFF[name])


def _roundoff(side: Side) -> str | None:
    """The coarsest precision that a side shows; "" where it shows none, None where it names one
    that is not in ROUNDOFF (4 bits: awq, mxfp4).
    """
    said = [str(side.observed.get(n) or "none") for n in ("quantization", "kv_cache_dtype")]
    said += str(side.observed.get("dtype") or "none").split("+")
    texts = [text.lower().replace("bfloat", "bf").replace("float", "fp") for text in said]
    shown = [[name for name in ROUNDOFF if name in t] for t in texts if t not in SILENT]
    if not all(shown):
        return None
    computed = [str(side.observed.get(n)) for n in ("autocast", "fsdp_mixed")]
    names = [n for found in (*shown, computed) for n in found if n in ROUNDOFF]
    return max(names, key=lambda name: ROUNDOFF[name], default="")


#: What an engine says where nothing was made coarser.
SILENT = ("none", "auto", "fp64")
