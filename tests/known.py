"""Checkpoints whose log-probabilities are known at every position, written with numpy alone.

`bigram`: o_proj and down_proj are zero, so nothing is added to the residual stream and the next
token depends on the current one only: logits = lm_head @ (rms_norm(embedding) * weight).

`attention`: one layer with one attention head that does contribute (its MLP stays zero), so that a
wrong position, a wrong mask or a stale cache entry shows.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

VOCABULARY, HIDDEN, HEAD, EPS, THETA = 64, 64, 32, 1e-5, 10000.0
SHIPPED = Path(__file__).parent.parent / "mismatch" / "shipped" / "llama-gsm-0.8m"


def write_checkpoint(folder: Path, attention: bool, heads: int = 1) -> Path:
    """A one-layer Llama checkpoint, fp32, that hf, vllm and toy all load."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": HEAD,
        "hidden_act": "silu",
        "max_position_embeddings": 256,
        "rms_norm_eps": EPS,
        "rope_parameters": {"rope_theta": THETA, "rope_type": "default"},
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))
    save_file(_weights(attention, heads), folder / "model.safetensors", metadata={"format": "pt"})
    _write_tokenizer(folder)
    return folder


def _weights(attention: bool, heads: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(7)

    def normal(rows: int, columns: int, scale: float) -> np.ndarray:
        return rng.normal(0, scale, (rows, columns)).astype(np.float32)

    layer = "model.layers.0."
    size = HEAD * heads
    one = np.ones(HIDDEN, np.float32)
    return {
        "model.embed_tokens.weight": normal(VOCABULARY, HIDDEN, 1.0),
        "lm_head.weight": normal(VOCABULARY, HIDDEN, 0.3),
        "model.norm.weight": one * np.float32(1.25),
        layer + "input_layernorm.weight": one.copy(),
        layer + "post_attention_layernorm.weight": one.copy(),
        layer + "self_attn.q_proj.weight": normal(size, HIDDEN, 0.2),
        layer + "self_attn.k_proj.weight": normal(size, HIDDEN, 0.2),
        layer + "self_attn.v_proj.weight": normal(size, HIDDEN, 0.2),
        layer + "self_attn.o_proj.weight": normal(HIDDEN, size, 0.3 if attention else 0.0),
        layer + "mlp.gate_proj.weight": normal(64, HIDDEN, 0.1),
        layer + "mlp.up_proj.weight": normal(64, HIDDEN, 0.1),
        layer + "mlp.down_proj.weight": np.zeros((HIDDEN, 64), np.float32),
    }


def _write_tokenizer(folder: Path) -> None:
    """A word-level tokenizer of the ids themselves: engines want one, these models need none."""
    vocabulary = {f"t{i}": i for i in range(VOCABULARY)}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "t1"},
    }
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    about = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "t0",
        "unk_token": "t1",
        "model_max_length": 256,  # without it sglang 0.5.15's server cannot tokenise
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    template = "{% for m in messages %}{{ m.content }} {% endfor %}t9"
    (folder / "chat_template.jinja").write_text(template)


def expected(folder: Path, ids: list[int]) -> np.ndarray:
    """(n,) log-probabilities of ids[t] given ids[:t], nan at 0. Position by position."""
    weights = _read(folder)
    values = [_next(weights, ids[:t])[ids[t]] for t in range(1, len(ids))]
    return np.array([np.nan, *values])


def next_logprobs(folder: Path, context: list[int]) -> np.ndarray:
    """(vocabulary,) log-probabilities of the token after `context`."""
    return _next(_read(folder), context)


def _read(folder: Path) -> dict[str, np.ndarray]:
    return {k: v.astype(np.float64) for k, v in load_file(folder / "model.safetensors").items()}


def _next(weights: dict[str, np.ndarray], context: list[int]) -> np.ndarray:
    hidden = _norm(_last_hidden(weights, context)) * weights["model.norm.weight"]
    logits = weights["lm_head.weight"] @ hidden
    return logits - _logsumexp(logits)


def _last_hidden(w: dict[str, np.ndarray], context: list[int]) -> np.ndarray:
    """The residual stream at the last position: embedding plus the heads' output."""
    embedded = w["model.embed_tokens.weight"][context]
    query, layer = len(context) - 1, "model.layers.0.self_attn."
    added = np.zeros(HIDDEN)
    for head in range(len(w[layer + "q_proj.weight"]) // HEAD):
        rows = slice(head * HEAD, (head + 1) * HEAD)
        q = _rotate(w[layer + "q_proj.weight"][rows] @ _norm(embedded[query]), query)
        scores, seen = [], []
        for position, vector in enumerate(embedded):
            k = _rotate(w[layer + "k_proj.weight"][rows] @ _norm(vector), position)
            scores.append(float(q @ k) / np.sqrt(HEAD))
            seen.append(w[layer + "v_proj.weight"][rows] @ _norm(vector))
        share = np.exp(np.array(scores) - _logsumexp(np.array(scores)))
        added += w[layer + "o_proj.weight"][:, rows] @ (share @ np.array(seen))
    return embedded[query] + added


def _norm(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x) + EPS)


def _logsumexp(x: np.ndarray) -> float:
    return float(x.max() + np.log(np.exp(x - x.max()).sum()))


def _rotate(x: np.ndarray, position: int) -> np.ndarray:
    """Rotary embedding, halves convention: pair (i, i + HEAD/2) turns by position * theta_i."""
    half = HEAD // 2
    out = np.empty_like(x)
    for i in range(half):
        angle = position * THETA ** (-2 * i / HEAD)
        out[i] = x[i] * np.cos(angle) - x[i + half] * np.sin(angle)
        out[i + half] = x[i + half] * np.cos(angle) + x[i] * np.sin(angle)
    return out


def sequences(count: int = 4, length: int = 40, seed: int = 3) -> list[list[int]]:
    """Random ids (never the end token) of different lengths."""
    rng = np.random.default_rng(seed)
    return [rng.integers(2, VOCABULARY, length + 5 * k).tolist() for k in range(count)]
