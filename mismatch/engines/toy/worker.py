"""Guest half of toy: a dense Llama in float64 numpy, with faults that tests can ask for.

MISMATCH_TOY_FAULT=WHERE:KIND[@CALL]. WHERE: load, rollout, decode, prefill or score. KIND: die,
sigkill, hang, nan or positive. CALL counts the calls of that path from 1 (default 1).
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import wire
from mismatch.engines import observe

DTYPES: dict[str, type[np.floating[Any]]] = {
    "fp16": np.float16,
    "fp32": np.float32,
    "fp64": np.float64,
}


class Worker:
    """See mismatch.engines.guest for the contract."""

    def __init__(self, job: wire.Job, events: wire.Events) -> None:
        self.job, self.events = job, events
        self.options: dict[str, Any] = {}
        self.calls: dict[str, int] = {}

    def load(self) -> None:
        self._fault("load")
        dtype = DTYPES[self.job.options.get("dtype", "fp64")]
        self.model = Llama(Path(self.job.model), dtype)

    def configure(self, options: dict[str, Any]) -> None:
        self.options = options

    def encode(self, prompts: list[dict[str, Any]]) -> tuple[list[list[int]], dict[str, Any]]:
        """Bytes modulo the vocabulary: enough to exercise the road."""
        return [self._ids(p) for p in prompts], {"class": "bytes", "template_sha256": None}

    def _ids(self, prompt: dict[str, Any]) -> list[int]:
        if "token_ids" in prompt:
            return list(prompt["token_ids"])
        text = prompt.get("prompt") or "".join(str(m["content"]) for m in prompt["messages"])
        return [b % self.model.vocabulary for b in text.encode()]

    def texts(self, ids: list[int]) -> list[str]:
        return [f"<{i}>" for i in ids]

    def sample(
        self, prompts: list[np.ndarray], seeds: list[int]
    ) -> list[tuple[np.ndarray, wire.Values]]:
        kind = self._fault("rollout")
        return [self._draw(p, s, len(prompts), kind) for p, s in zip(prompts, seeds, strict=True)]

    def _draw(
        self, prompt: np.ndarray, seed: int, rows: int, kind: str | None
    ) -> tuple[np.ndarray, wire.Values]:
        assert self.job.sampling is not None
        rng, ids = np.random.default_rng(seed), prompt
        for _ in range(self.job.sampling["max_tokens"]):
            probabilities = np.exp(self._table(ids)[-1])
            token = rng.choice(len(probabilities), p=probabilities / probabilities.sum())
            ids = np.append(ids, np.int32(token))
        # Sampling is decoding: the same noise as a forced decode of the same ids.
        values = self._values("decode", ids, rows, kind, np.zeros((len(ids), 0), np.int32))
        return ids[len(prompt) :], values.tail(len(prompt))

    def score(
        self,
        path: str,
        sequences: list[np.ndarray],
        first: list[int],
        asked: list[np.ndarray],
    ) -> list[wire.Values]:
        kind, rows = self._fault(path), len(sequences)
        return [
            self._values(path, ids, rows, kind, more)
            for ids, more in zip(sequences, asked, strict=True)
        ]

    def _table(self, ids: np.ndarray) -> np.ndarray:
        """(n,) ids -> (n, vocabulary) float64 log-probabilities of the next token at T."""
        table = self.model.logprobs(ids).astype(np.float64) / self.options.get("temperature", 1.0)
        return np.asarray(table - np.logaddexp.reduce(table, -1, keepdims=True))

    def _values(
        self, path: str, ids: np.ndarray, rows: int, kind: str | None, asked: np.ndarray
    ) -> wire.Values:
        topk, entropy = self.options.get("topk", 0), self.options.get("entropy", False)
        values = wire.blank(len(ids), topk + asked.shape[1] if topk else 0, entropy)
        table = self._table(ids)[:-1]
        values.logprobs[1:] = table[np.arange(len(ids) - 1), ids[1:]]
        if values.entropy is not None:
            values.entropy[1:] = -(np.exp(table) * table).sum(-1)
        if values.top_ids is not None and values.top_logprobs is not None:
            best = np.argsort(-table, axis=-1, kind="stable")[:, :topk]
            top = np.concatenate([best, wire.others(asked[1:], best)], axis=1)
            values.top_ids[1:] = top
            values.top_logprobs[1:] = np.take_along_axis(table, np.maximum(top, 0), -1)
        self._disturb(values.logprobs, path, ids, rows, kind)
        return values

    def _disturb(
        self, logprobs: np.ndarray, path: str, ids: np.ndarray, rows: int, kind: str | None
    ) -> None:
        if self.options.get("noise"):
            seed = [zlib.crc32(path.encode()), rows, *ids.tolist()]
            noise = np.random.default_rng(seed).normal(0, self.options["noise"], len(ids))
            logprobs[:] = np.minimum(logprobs + noise, 0)
        if kind in ("nan", "positive"):
            logprobs[-1] = np.nan if kind == "nan" else 0.5

    def _fault(self, where: str) -> str | None:
        self.calls[where] = self.calls.get(where, 0) + 1
        target, _, rest = os.environ.get("MISMATCH_TOY_FAULT", "").partition(":")
        kind, _, call = rest.partition("@")
        if target != where or self.calls[where] != int(call or 1):
            return None
        if kind == "die":
            raise RuntimeError(f"asked to die at {where}")
        if kind == "sigkill":
            os.kill(os.getpid(), signal.SIGKILL)
        if kind == "hang":
            time.sleep(3600)
        return kind

    def facts(self) -> dict[str, Any]:
        return {
            "observed": {"dtype": _short(self.model.weights), **self.options},
            "experts": 0,
            "weights": {"tensors": _digests(self.model.weights), "unread": {}},
            "device": observe.processor(),
            "logprob_space": f"log_softmax over logits / {self.options.get('temperature', 1.0)}",
            "scored_as": {n: v for n, v in self.options.items() if n == "temperature"},
            "versions": observe.versions(("numpy",)),
            "env": observe.switches(),
        }

    def close(self) -> None: ...


def _digests(weights: dict[str, np.ndarray]) -> dict[str, dict[str, str]]:
    """name -> its dtype, and a digest in that dtype and in every narrower one."""
    found = {}
    for name, weight in weights.items():
        kinds = [n for n, k in DTYPES.items() if np.dtype(k).itemsize <= weight.itemsize]
        bits = {n: weight.astype(DTYPES[n]).tobytes() for n in kinds}
        hashes = {n: hashlib.sha256(b).hexdigest()[:16] for n, b in bits.items()}
        found[name] = {"dtype": _short({name: weight}), **hashes}
    return found


def _short(weights: dict[str, np.ndarray]) -> str:
    kinds = {w.dtype.type for w in weights.values()}
    return "+".join(sorted(name for name, kind in DTYPES.items() if kind in kinds))


class Llama:
    """A dense Llama checkpoint evaluated in numpy in one dtype, whole sequence at a time."""

    def __init__(self, folder: Path, dtype: type[np.floating[Any]]) -> None:
        self.config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        tensors = _read_safetensors(folder / "model.safetensors")
        self.weights = {name: tensor.astype(dtype) for name, tensor in tensors.items()}
        self.vocabulary = self.config["vocab_size"]

    def logprobs(self, ids: np.ndarray) -> np.ndarray:
        """(n,) ids -> (n, vocabulary) log-probabilities of the next token, nats."""
        hidden = self.weights["model.embed_tokens.weight"][ids]
        for layer in range(self.config["num_hidden_layers"]):
            hidden = hidden + self._attention(layer, self._norm(f"{layer}.input_layernorm", hidden))
            normed = self._norm(f"{layer}.post_attention_layernorm", hidden)
            hidden = hidden + self._mlp(layer, normed)
        head = self.weights.get("lm_head.weight", self.weights["model.embed_tokens.weight"])
        logits = self._rms(hidden, self.weights["model.norm.weight"]) @ head.T
        logits -= logits.max(-1, keepdims=True)
        return np.asarray(logits - np.log(np.exp(logits).sum(-1, keepdims=True)))

    def _layer(self, layer: int, name: str) -> np.ndarray:
        return self.weights[f"model.layers.{layer}.{name}.weight"]

    def _norm(self, name: str, x: np.ndarray) -> np.ndarray:
        return self._rms(x, self.weights[f"model.layers.{name}.weight"])

    def _rms(self, x: np.ndarray, weight: np.ndarray) -> np.ndarray:
        scale = np.sqrt((x * x).mean(-1, keepdims=True) + self.config["rms_norm_eps"])
        return np.asarray(x / scale * weight)

    def _mlp(self, layer: int, x: np.ndarray) -> np.ndarray:
        gate = x @ self._layer(layer, "mlp.gate_proj").T
        up = x @ self._layer(layer, "mlp.up_proj").T
        return np.asarray((gate / (1 + np.exp(-gate)) * up) @ self._layer(layer, "mlp.down_proj").T)

    def _attention(self, layer: int, x: np.ndarray) -> np.ndarray:
        heads, groups = self.config["num_attention_heads"], self.config["num_key_value_heads"]
        q = self._rope(self._split(layer, "q_proj", x))
        k = self._rope(self._split(layer, "k_proj", x)).repeat(heads // groups, 1)
        v = self._split(layer, "v_proj", x).repeat(heads // groups, 1)
        scores = np.einsum("qhd,khd->hqk", q, k) / np.sqrt(q.shape[-1])
        scores[:, np.triu(np.ones(scores.shape[1:], bool), 1)] = -np.inf
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        mixed = np.einsum("hqk,khd->qhd", scores / scores.sum(-1, keepdims=True), v)
        return np.asarray(mixed.reshape(len(x), -1) @ self._layer(layer, "self_attn.o_proj").T)

    def _split(self, layer: int, name: str, x: np.ndarray) -> np.ndarray:
        """(n, hidden) -> (n, heads, head size)."""
        size = self.config.get("head_dim") or (
            self.config["hidden_size"] // self.config["num_attention_heads"]
        )
        return np.asarray(x @ self._layer(layer, f"self_attn.{name}").T).reshape(len(x), -1, size)

    def _rope(self, x: np.ndarray) -> np.ndarray:
        half = x.shape[-1] // 2
        theta = self.config.get("rope_parameters", {}).get("rope_theta", 10000.0)
        angles = np.outer(np.arange(len(x)), theta ** (-np.arange(half) / half))[:, None]
        a, b = x[..., :half], x[..., half:]
        sin, cos = np.sin(angles), np.cos(angles)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def _read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors as float64. Format: u64 header length, JSON header, raw little-endian data."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__":
            begin, end = entry["data_offsets"]
            raw = data[start + begin : start + end]
            tensors[name] = _decode(raw, entry["dtype"]).reshape(entry["shape"])
    return tensors


def _decode(raw: bytes, dtype: str) -> np.ndarray:
    if dtype == "BF16":  # the upper half of a float32
        return (np.frombuffer(raw, "<u2").astype("<u4") << 16).view("<f4").astype(np.float64)
    return np.frombuffer(raw, {"F32": "<f4", "F16": "<f2"}[dtype]).astype(np.float64)
