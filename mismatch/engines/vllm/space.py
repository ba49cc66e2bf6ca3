"""What a vllm's log-probabilities are of, offline or behind a server. Runs in the guest."""

from __future__ import annotations

from collections.abc import Mapping

from mismatch import wire

RAW = "raw log-probabilities of the model, not temperature-scaled"


def in_words(path: str, mode: str, settings: Mapping[str, float]) -> str:
    """mode: vllm's logprobs_mode. settings: the sampler's, as the request had them."""
    moved = [
        f"{n}={settings[n]:g}"
        for n, neutral in wire.NEUTRAL.items()
        if settings.get(n, neutral) != neutral
    ]
    if not moved:
        return RAW
    if path == "prefill":
        return f"{RAW}: vllm never scales those of a prompt (asked: {', '.join(moved)})"
    if mode == "processed_logprobs":
        return f"log-probabilities of the distribution drawn from: {', '.join(moved)}"
    return f"{RAW} (drawn with {', '.join(moved)})"


def scaled(path: str, mode: str) -> bool:
    """Whether the sampler's settings are in the values."""
    return path != "prefill" and mode == "processed_logprobs"
