"""What the vllm worker hands to the engine, and how it reads the answer. No vllm is imported."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mismatch import wire
from mismatch.engines.vllm import worker as module

Worker = module.Worker


def _worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Any:
    monkeypatch.setattr(module, "forcing_processor", lambda: "FORCER")
    job = wire.Job("vllm", "ckpt", options, [], extra={"max_model_len": 512})
    return Worker(job, wire.Events(tmp_path / "events"))


def test_an_option_that_was_not_given_is_not_passed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine keeps its own defaults; remote code stays off."""
    given = _worker(tmp_path, monkeypatch).arguments()
    assert given == {
        "max_model_len": 512,
        "trust_remote_code": False,
        "logits_processors": ["FORCER"],
    }


def test_options_reach_the_constructor_by_vllms_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dtype, eager and attention become dtype, enforce_eager and attention_backend."""
    given = _worker(tmp_path, monkeypatch, dtype="fp16", eager=False, attention="FLASH_ATTN")
    arguments = given.arguments()
    assert arguments["dtype"] == "float16" and arguments["enforce_eager"] is False
    assert arguments["attention_backend"] == "FLASH_ATTN"


def test_flat_logprobs_are_read_at_the_ids_own_entry() -> None:
    """A position may carry other ranks too; the wanted id's value is taken, NaN if it is absent."""
    flat = SimpleNamespace(
        start_indices=[0, 1, 3],
        end_indices=[1, 3, 4],
        token_ids=[5, 9, 6, 7],
        logprobs=[-0.5, -1.0, -2.0, -3.0],
    )
    values = module._flat(flat, [5, 6, 8])
    assert values[:2].tolist() == [-0.5, -2.0] and np.isnan(values[2])


def test_the_forced_id_is_that_of_the_tokens_emitted_so_far() -> None:
    """Each row has its own list; placeholders count; past the end the last id is asked again."""
    forced = {3: ([4, 2], []), 0: ([4, 2], [-1]), 5: ([7], [7]), 1: ([8, 9], [8])}
    assert module.wanted_ids(forced) == ([3, 0, 5, 1], [4, 2, 7, 9])


class _Tokenizer:
    def encode(self, text: str, add_special_tokens: bool) -> list[int]:
        assert add_special_tokens
        return [1, 2]

    def apply_chat_template(self, messages: Any, **flags: Any) -> dict[str, list[int]]:
        assert flags["add_generation_prompt"] and flags["tokenize"]
        return {"input_ids": [7]}


def test_prompts_are_encoded_by_their_kind() -> None:
    """Text gets no template, messages get it, ids pass through."""
    kinds = [{"prompt": "x"}, {"messages": [{"role": "user", "content": "x"}]}, {"token_ids": [3]}]
    assert [module._encode_one(_Tokenizer(), k) for k in kinds] == [[1, 2], [7], [3]]
