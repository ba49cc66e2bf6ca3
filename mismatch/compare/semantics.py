"""Do two traces give log-probabilities of the same distribution, and of the kernels they name?

A sampler's temperature, cut or penalty that is in the values of one side alone makes a gap that no
kernel made. What an engine put into its values is the fact `scored_as`, read from the live engine.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mismatch import wire


def sampling_check(left: Mapping[str, Any], right: Mapping[str, Any]) -> dict[str, str] | None:
    """The preflight row of two traces' provenance where they differ; None where they agree, or
    where a side (a recorded dump) does not say.
    """
    said = [(side.get("facts") or {}).get("scored_as") for side in (left, right)]
    if None in said:
        return None
    one, other = map(_settings, said)
    differ = [name for name in wire.NEUTRAL if one[name] != other[name]]
    if not differ:
        return None
    shown = "; ".join(f"{name} {one[name]:g} against {other[name]:g}" for name in differ)
    return {
        "rung": "sampling",
        "verdict": "fail",
        "evidence": f"the values are of two distributions: {shown}",
        "todo": "Score both sides alike (hf: the sampler's options; vllm: logprobs_mode), or read "
        "the gap as what these options do.",
    }


def emulation(provenance: Mapping[str, Any]) -> str | None:
    """What a trace's engine did in place of quantised kernels; None where nothing was emulated."""
    facts = provenance.get("facts") or {}
    said = (str(facts.get(name, "")) for name in ("emulation", "quantization"))
    return next((words for words in said if words.startswith("emulated")), None)


def _settings(said: Any) -> dict[str, float]:
    """Every setting; vllm writes top_k = -1, too, for all tokens."""
    found = {name: float(said.get(name, neutral)) for name, neutral in wire.NEUTRAL.items()}
    return {**found, "top_k": max(found["top_k"], 0.0)}
