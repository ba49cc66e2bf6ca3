"""Breaks a loaded model on purpose, and mends it again: what the self-test must find.

No run has this unless a condition says `damage=`. Each is one that the field has met.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

#: A training step of an RL run is smaller; four of these move the log-probabilities visibly.
STEPS, RATE = 4, 1e-4

Undo = Callable[[], None]


def break_model(model: Any, kind: str) -> Undo:
    """Damage the model; returns what takes it back."""
    return KINDS[kind](model)


def _restoring(model: Any) -> Undo:
    """Writes the weights back as they are now."""
    kept = [p.detach().clone() for p in model.parameters()]

    def undo() -> None:
        with torch.no_grad():
            for parameter, old in zip(model.parameters(), kept, strict=True):
                parameter.copy_(old)

    return undo


def _steps(model: Any) -> Undo:
    """A few optimiser steps that the rollout engine never heard of: stale weights there."""
    undo = _restoring(model)
    vocabulary = model.config.get_text_config().vocab_size
    ids = torch.randint(vocabulary, (4, 64), generator=torch.Generator().manual_seed(0))
    ids = ids.to(model.device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=RATE)
    with torch.enable_grad():
        for _ in range(STEPS):
            optimiser.zero_grad()
            model(input_ids=ids, labels=ids).loss.backward()
            optimiser.step()
    optimiser.zero_grad()
    return undo


def _other(model: Any) -> Undo:
    """Another checkpoint of the same shape: the layers' weights in reverse order."""
    undo = _restoring(model)
    layers = model.get_decoder().layers
    states = [{n: t.clone() for n, t in layer.state_dict().items()} for layer in layers]
    for layer, state in zip(layers, reversed(states), strict=True):
        layer.load_state_dict(state)
    return undo


def _embedding(model: Any) -> Undo:
    """An update that moves the embedding (and the head that is tied to it) by a tenth."""
    undo = _restoring(model)
    weight = model.get_input_embeddings().weight
    with torch.no_grad():
        weight.copy_((weight.float() * 1.1).to(weight.dtype))
    return undo


def _rope(model: Any) -> Undo:
    """A rope base that is off by a factor of four: positions turn at other speeds."""
    rotary = model.get_decoder().rotary_emb
    kept = rotary.inv_freq.clone()
    size = 2 * len(kept)
    scale = 4.0 ** (-torch.arange(0, size, 2, device=kept.device) / size)
    rotary.inv_freq.mul_(scale)
    return lambda: rotary.inv_freq.copy_(kept)


def _logits(model: Any) -> Undo:
    """Logits kept in bf16 on their way to log-softmax."""
    head = model.get_output_embeddings()
    hook = head.register_forward_hook(lambda _, __, out: out.bfloat16().to(out.dtype))
    return hook.remove  # type: ignore[no-any-return]


# ---------------------------------------------------------------- the cascade-attention bug


def _lse(model: Any) -> Undo:
    """One layer merges attention over two halves of the keys with log-sum-exps laid out wrongly:
    (heads, tokens) memory read as (tokens, heads).
    """
    from transformers.modeling_utils import (  # type: ignore[import-not-found]
        ALL_ATTENTION_FUNCTIONS,
    )

    ALL_ATTENTION_FUNCTIONS.register("mismatch_lse", _merged_wrongly)
    layers = model.get_decoder().layers
    attention = layers[len(layers) // 2].self_attn
    kept = attention.config
    attention.config = copy.copy(kept)
    attention.config._attn_implementation_internal = "mismatch_lse"

    def undo() -> None:
        attention.config = kept

    return undo


def _merged_wrongly(
    module: Any, q: Any, k: Any, v: Any, mask: Any, scaling: float, **_: Any
) -> tuple[Any, None]:
    """q: (batch, heads, n, size); k and v with fewer heads. Returns (batch, n, heads, size)."""
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    scores = (q @ k.transpose(-1, -2)).float() * scaling
    n = scores.shape[-1]
    causal = torch.ones(n, n, dtype=torch.bool, device=q.device).tril()
    scores = scores.masked_fill(~causal, -torch.inf)
    parts = (slice(None, n // 2), slice(n // 2, None))
    lses = [scores[..., at].logsumexp(-1) for at in parts]
    outs = [scores[..., at].softmax(-1).nan_to_num() @ v[:, :, at].float() for at in parts]
    batch, heads, _ = lses[0].shape
    lses[0] = lses[0].reshape(batch, n, heads).transpose(1, 2)
    weight = torch.stack(lses).softmax(0).nan_to_num()[..., None]
    merged = weight[0] * outs[0] + weight[1] * outs[1]
    return merged.to(q.dtype).transpose(1, 2).contiguous(), None


KINDS: dict[str, Callable[[Any], Undo]] = {
    "steps": _steps,
    "other": _other,
    "embedding": _embedding,
    "rope": _rope,
    "logits": _logits,
    "lse": _lse,
}
