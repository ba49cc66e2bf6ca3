"""How the vllm worker encodes prompts, and what a rollout is told to do. No vllm is imported."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mismatch import wire
from mismatch.engines.vllm import requests
from mismatch.engines.vllm import worker as module


class _Engine:
    """Answers every request with forced or made-up ids, and keeps what it was asked."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.sent: list[tuple[Any, tuple[Any, ...]]] = []

    def reset_prefix_cache(self) -> bool:
        return True

    def collective_rpc(self, function: Any, args: tuple[Any, ...] = ()) -> list[None]:
        self.sent.append((function, args))
        return [None]

    def generate(self, rows: list[Any], params: list[Any], use_tqdm: Any) -> list[Any]:
        self.asked += params
        return [
            self._answer(row["prompt_token_ids"], p) for row, p in zip(rows, params, strict=True)
        ]

    def _answer(self, prompt: list[int], params: Any) -> Any:
        ids = params.extra_args["forced"] if hasattr(params, "extra_args") else [4, 5]
        flat = SimpleNamespace(
            start_indices=list(range(len(ids))),
            end_indices=list(range(1, len(ids) + 1)),
            token_ids=ids,
            logprobs=[-0.5] * len(ids),
        )
        return SimpleNamespace(outputs=[SimpleNamespace(token_ids=ids, logprobs=flat)])


def _worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: dict[str, Any], **options: Any
) -> Any:
    monkeypatch.setattr(module, "_progress", lambda events: None)
    job = wire.Job("vllm", "ckpt", options, [], sampling={"max_tokens": 9})
    worker = module.Worker(job, wire.Events(tmp_path / "events"))
    worker.llm = _Engine()
    worker.vllm = SimpleNamespace(SamplingParams=lambda **given: SimpleNamespace(**given))
    worker.forcing = SimpleNamespace(FORCE="forced", seed="SEED")
    worker.request, worker.want = request, requests.asked(request, 64)
    return worker


def test_a_plain_rollout_draws_at_temperature_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without options a request has T = 1, the whole support and no further log-probabilities."""
    worker = _worker(tmp_path, monkeypatch, {})
    drawn = worker.sample([np.array([1, 2])], [11])
    asked = worker.llm.asked[0]
    assert vars(asked) == {
        "temperature": 1.0, "max_tokens": 9, "logprobs": 0,
        "flat_logprobs": True, "detokenize": False,
    }  # fmt: skip
    assert worker.llm.sent == [("SEED", (11,))]  # every rank draws from the call's one seed
    assert drawn[0][0].tolist() == [4, 5] and drawn[0][1].logprobs.tolist() == [-0.5, -0.5]


def test_forced_decode_asks_what_the_rollout_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sampler's settings go with forced ids too, from the first scored position on."""
    worker = _worker(tmp_path, monkeypatch, {"temperature": 0.7, "top_k": 5})
    values = worker.score("decode", [np.array([1, 2, 3, 8])], [2])
    asked = worker.llm.asked[0]
    assert (asked.temperature, asked.top_k, asked.max_tokens) == (0.7, 5, 2)
    assert asked.ignore_eos and asked.extra_args == {"forced": [3, 8]}
    assert np.isnan(values[0].logprobs[:2]).all() and values[0].logprobs[2:].tolist() == [-0.5] * 2


def test_a_sequence_with_nothing_scored_is_not_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its values are all missing, and the engine sees only the others."""
    worker = _worker(tmp_path, monkeypatch, {"topk": 3})
    values = worker.score("decode", [np.array([1, 2])], [2])
    assert not worker.llm.asked and np.isnan(values[0].logprobs).all()
    assert (values[0].top_ids == -1).all()
