"""L2: are the values log-probabilities of one distribution, the one the tokens were drawn from?"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from mismatch import wire
from mismatch.compare.preflight.evidence import Evidence, Row, failed, passed, unchecked
from mismatch.compare.preflight.scale import divided_by, temperature
from mismatch.compare.semantics import sampling_check

RUNG = "L2 sampling"
#: Standard errors that a mean must be off: one clean pair in 16 000.
ERRORS = 4.0
#: Tokens that share a side's lowest value, which the other side's go below.
CLAMPED = 3


def calm(e: Evidence) -> Row:
    words = f"no clamp, no constant, no temperature in the values; {_ratio_in_words(e)}"
    if any(side.is_dump or side.facts.get("scored_as") is None for side in e.sides):
        twice = "; all values are equal to the last bit: is one column there twice?"
        same = twice if e.left.is_dump and e.finite.any() and not e.d.any() else ""
        return unchecked(RUNG, f"{words}; a side does not say how it sampled{same}")
    return passed(RUNG, f"both sides say the same sampling; {words}")


# ---------------------------------------------------------------- what the engines say


def stated(e: Evidence) -> Iterator[Row]:
    differ = sampling_check(e.left.provenance, e.right.provenance)
    if differ:
        yield failed(RUNG, "sampling", differ["evidence"], differ["todo"])


def leaked(e: Evidence) -> Iterator[Row]:
    """Sampling settings that moved the rollout and that no condition asks for."""
    for side in e.sides:
        used = side.facts.get("sampling")
        if not isinstance(used, dict) or side.provenance.get("path") != "rollout":
            continue
        known = {n: v for n, v in used.items() if n in wire.NEUTRAL and isinstance(v, int | float)}
        if side.asked.get("generation_config") == "auto":
            continue
        moved = {n: v for n, v in wire.moved(known).items() if (n, v) != TOP_K}
        leaks = {n: v for n, v in moved.items() if n not in side.asked}
        if leaks:
            words = ", ".join(f"{name}={value:g}" for name, value in leaks.items())
            yield failed(
                RUNG,
                "leak",
                f"{side.name} drew with {words}, which nobody asked for",
                "State the sampler's options, or keep the checkpoint's generation_config out.",
            )


#: vllm and sglang write "all tokens" so.
TOP_K = ("top_k", -1)


# ---------------------------------------------------------------- the values themselves


def constant(e: Evidence) -> Iterator[Row]:
    for side in e.sides:
        values = side.logprob[np.isfinite(side.logprob)]
        if len(values) >= 8 and np.ptp(values) == 0:
            alone = (side.facts.get("scored_as") or {}).get("top_k") == 1
            yield failed(
                RUNG,
                "constant",
                f"all {len(values)} values of {side.name} are {values[0]:g}"
                + (", as top_k=1 leaves one token to draw" if alone else ""),
                "Score what the model says before that cut (vllm: logprobs_mode=raw_logprobs)."
                if alone
                else "These are no log-probabilities: find out where the column was filled.",
            )


def clamped(e: Evidence) -> Iterator[Row]:
    for side, other in (e.sides, e.sides[::-1]):
        values = side.logprob[e.finite]
        if not len(values) or np.ptp(values) == 0:
            continue
        low = values.min()
        at = e.finite & (side.logprob == low)
        beyond = other.logprob[at] < low - 0.05 * abs(low)
        if low < -0.5 and at.sum() >= CLAMPED and beyond.mean() > 0.5:
            yield failed(
                RUNG,
                "clamped",
                f"values of {side.name} are clamped at {low:g}: {int(at.sum())} tokens have exactly"
                f" that, and {other.name} goes on to {other.logprob[at].min():.3g} there",
                "Record log-probabilities before they are clamped.",
            )


def rescaled(e: Evidence) -> Iterator[Row]:
    """One side's values are the other's divided, or its distribution at another temperature."""
    by = divided_by(e)
    if by is not None:
        yield failed(
            RUNG,
            "divided",
            f"log-probabilities divided by T: those of {e.right.name} are those of {e.left.name} "
            f"divided by {by:.3g}, which is no distribution",
            "Divide logits by the temperature and normalise again, or divide nothing.",
        )
        return
    heat = temperature(e)
    if heat is not None:
        hot, how = heat
        yield failed(
            RUNG,
            "temperature",
            f"wrong temperature: {e.right.name} looks like {e.left.name} at temperature {hot:.3g} "
            f"({how})",
            "Score both sides at one temperature (vllm: logprobs_mode; hf: temperature).",
        )


# ---------------------------------------------------------------- who drew the tokens


def surprise(e: Evidence) -> Iterator[Row]:
    """On its own draws the mean of -lp is the mean entropy: E[-ln p(x)] = H for x drawn from p."""
    entropy = e.right.entropy
    if e.sampled_by != "infer" or entropy is None or e.right.provenance.get("path") != "rollout":
        return
    keep = np.isfinite(e.right.logprob) & np.isfinite(entropy)
    off = -e.right.logprob[keep].astype(np.float64) - entropy[keep]
    if len(off) < 100:
        return
    error = float(np.std(off, ddof=1) / np.sqrt(len(off)))  # draws are a martingale: no clusters
    mean = float(np.mean(off))
    if abs(mean) > ERRORS * error and abs(mean) > 0.01 * float(np.mean(entropy[keep])):
        yield failed(
            RUNG,
            "draws",
            f"the tokens were not drawn from the recorded distribution: their mean -lp is "
            f"{mean:+.3g} nats from its entropy, {abs(mean) / error:.1f} standard errors "
            f"({len(off)} tokens)",
            "A temperature, cut or penalty acts after the values are taken: record what is drawn "
            "from.",
        )


def mean_ratio(e: Evidence) -> Iterator[Row]:
    """On tokens that infer drew the mean of r is 1, so that k1 and k3 agree."""
    found = e.estimate("ratio_mean")
    value, low, high = (found.get(k) for k in ("value", "low", "high"))
    if e.sampled_by != "infer" or value is None or low is None or high is None:
        return
    # Twice the 95% interval is four standard errors. Tokens drawn on one path and scored on another
    # move the mean by the size of k3, without anything being wrong.
    k3 = e.estimate("k3").get("value") or 0.0
    if value + 2 * (low - value) <= 1 <= value + 2 * (high - value) or abs(value - 1) <= k3:
        return
    yield failed(
        RUNG,
        "ratio",
        f"the mean of r is {value:.5g} [{low:.5g}, {high:.5g}], far from 1: k1 and k3 disagree, "
        f"and {e.right.name} did not draw these tokens from the values it recorded",
        "Check whose rollout this is, and the order of the two columns.",
    )


def _ratio_in_words(e: Evidence) -> str:
    found = e.estimate("ratio_mean")
    value, low, high = (found.get(k) for k in ("value", "low", "high"))
    if e.sampled_by != "infer":
        if e.sampled_by == "unknown":
            return "mean ratio not judged, as nothing says who drew these tokens"
        return "mean ratio not judged, as infer did not draw these tokens at T = 1 without a cut"
    if value is None or low is None or high is None:
        return "mean ratio without an interval"
    return f"mean ratio {value:.5g} [{low:.5g}, {high:.5g}] fits 1"
