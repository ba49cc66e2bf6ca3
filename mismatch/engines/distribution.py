"""From logits to the values of the wire: cast, reshape as a sampler does, log-softmax, read.

The order is a sampler's (vllm's): repetition penalty, temperature, min-p, top-k, top-p. A token
outside what is kept has probability 0, hence -inf. All natural logarithms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from mismatch import wire
from mismatch.engines.dtypes import DTYPES, plain, short

CUTS = ("min_p", "top_k", "top_p")
RESHAPING = ("repetition_penalty", "temperature", *CUTS)

#: Tables up to this size are kept for the next call: the C library gives a freed table back to the
#: system and faults it in again, a tenth of the time of a small model.
KEPT_BYTES = 64 << 20


class Scratch:
    """Two tables that calls share while they are small."""

    def __init__(self) -> None:
        self._flat: dict[str, torch.Tensor] = {}

    def like(self, name: str, shape: torch.Size, dtype: torch.dtype, device: Any) -> torch.Tensor:
        """An uninitialised table; the same memory as the last one of that name where it fits."""
        count = shape.numel()
        if count * dtype.itemsize * 2 > KEPT_BYTES:
            return torch.empty(shape, dtype=dtype, device=device)
        flat = self._flat.get(name)
        if flat is None or flat.dtype != dtype or len(flat) < count:
            self._flat[name] = flat = torch.empty(count, dtype=dtype, device=device)
        return flat[:count].view(shape)


class Distribution:
    """Reads what a request asks off logits. `applied` names what was done, where it was done."""

    def __init__(self, options: Mapping[str, Any], scratch: Scratch) -> None:
        self.options, self.scratch = options, scratch
        dtype = options.get("logprob_dtype", "fp32")
        self.cast = None if dtype == "model" else DTYPES[dtype]
        self.topk = int(options.get("topk", 0))
        self.entropy = bool(options.get("entropy", False))
        self.cuts = any(name in options for name in CUTS)
        self.reshapes = any(name in options for name in RESHAPING)
        self.applied: dict[str, Any] = {}
        self.table_dtype = ""
        self.asked = 0

    def blank(self, n: int, asked: int) -> wire.Values:
        """Values of n positions, for the likeliest tokens and `asked` more at each of them."""
        more = asked if self.topk else 0
        return wire.blank(n, self.topk + more, self.entropy, self.cuts)

    def settings(self) -> dict[str, Any]:
        """The sampler's options that are in the values."""
        return {name: self.applied[name] for name in RESHAPING if name in self.applied}

    def space(self) -> str:
        """What the log-probabilities are of, in words."""
        steps = [f"{name}={value:g}" for name, value in self.settings().items()]
        if "temperature" not in self.applied:
            steps.append("not temperature-scaled")
        return ", ".join([f"log_softmax over {self.table_dtype} logits", *steps])

    def fill(
        self, values: wire.Values, logits: torch.Tensor, ids: torch.Tensor, at: int, asked: Any
    ) -> None:
        """(n, vocabulary) logits of the positions at..at+n-1 of a sequence -> its values there.

        ids: the whole sequence. asked: (length, M) ids of it to score beside the likeliest.
        """
        rows = slice(at, at + len(logits))
        own = self._reshaped(logits, ids, at)
        if self.cuts:
            assert values.kept_mass is not None
            values.kept_mass[rows] = _numpy(self._cut(own))
        table = self._log_softmax(own)
        native = self.cast is None and table.dtype == logits.dtype
        self.applied["logprob_dtype"] = "model" if native else short(table.dtype)
        self.table_dtype = plain(table.dtype)
        values.logprobs[rows] = _numpy(table.gather(1, ids[rows, None])[:, 0])
        if self.topk:
            self._fill_top(values, table, rows, asked[rows])
        self.applied["entropy"] = self.entropy
        if self.entropy:
            assert values.entropy is not None
            values.entropy[rows] = _numpy(entropy(table))

    def _fill_top(
        self, values: wire.Values, table: torch.Tensor, rows: slice, asked: np.ndarray
    ) -> None:
        """The K likeliest, then the others that were asked for; a token that cannot be drawn is
        none (id -1)."""
        assert values.top_ids is not None and values.top_logprobs is not None
        best = table.topk(min(self.topk, table.shape[1]), dim=-1).indices
        own = np.full((len(table), self.topk), -1, np.int32)
        own[:, : best.shape[1]] = best.cpu().numpy()
        ids = np.concatenate([own, wire.others(asked, own)], axis=1)
        there = torch.from_numpy(np.maximum(ids, 0)).to(table.device).long()
        logprobs = _numpy(table.gather(1, there))
        none = (ids < 0) | np.isneginf(logprobs)
        values.top_ids[rows] = np.where(none, -1, ids)
        values.top_logprobs[rows] = np.where(none, np.nan, logprobs)
        self.applied["topk"], self.asked = self.topk, asked.shape[1]

    def _log_softmax(self, logits: torch.Tensor) -> torch.Tensor:
        table = self.scratch.like("table", logits.shape, logits.dtype, logits.device)
        return torch.log_softmax(logits, dim=-1, out=table)

    def _reshaped(self, logits: torch.Tensor, ids: torch.Tensor, at: int) -> torch.Tensor:
        """Cast to the dtype of the log-softmax, then what a sampler does before it cuts."""
        dtype = self.cast or logits.dtype
        if dtype == logits.dtype and not self.reshapes:
            return logits
        own = self.scratch.like("logits", logits.shape, dtype, logits.device).copy_(logits)
        if not self.reshapes:
            return own
        self._penalise(own, ids, at)
        if "temperature" in self.options:
            own /= self.options["temperature"]
            self.applied["temperature"] = self.options["temperature"]
        return own

    def _penalise(self, logits: torch.Tensor, ids: torch.Tensor, at: int) -> None:
        penalty = self.options.get("repetition_penalty")
        if penalty is None:
            return
        seen = seen_before(ids, at, logits)
        weaker = torch.where(logits > 0, logits / penalty, logits * penalty)
        logits.copy_(torch.where(seen, weaker, logits))
        self.applied["repetition_penalty"] = penalty

    def _cut(self, logits: torch.Tensor) -> torch.Tensor:
        """In place; returns (n,) the mass that stays."""
        before = logits.logsumexp(-1)
        for name, cut in (("min_p", cut_min_p), ("top_k", cut_top_k), ("top_p", cut_top_p)):
            if name in self.options:
                cut(logits, self.options[name])
                self.applied[name] = self.options[name]
        return (logits.logsumexp(-1) - before).exp()


def seen_before(ids: torch.Tensor, at: int, logits: torch.Tensor) -> torch.Tensor:
    """(n, vocabulary) true where the token occurs in the sequence before position at + row."""
    n, vocabulary = logits.shape
    earliest = torch.full((vocabulary,), len(ids), dtype=torch.long, device=ids.device)
    order = torch.arange(len(ids), device=ids.device)
    earliest.scatter_reduce_(0, ids, order, reduce="amin")
    return earliest[None, :] < torch.arange(at, at + n, device=ids.device)[:, None]


def cut_min_p(logits: torch.Tensor, share: float) -> None:
    """Drop tokens less likely than `share` of the likeliest one."""
    probability = logits.softmax(-1)
    logits.masked_fill_(probability < probability.amax(-1, keepdim=True) * share, -torch.inf)


def cut_top_k(logits: torch.Tensor, k: int) -> None:
    """Keep the k largest, and whatever equals the smallest of them."""
    lowest = logits.topk(min(k, logits.shape[1]), dim=-1).values[:, -1:]
    logits.masked_fill_(logits < lowest, -torch.inf)


def cut_top_p(logits: torch.Tensor, mass: float) -> None:
    """Keep the fewest likeliest tokens whose mass reaches `mass`; the likeliest always stays.

    Summed from the unlikely end, as vllm does: the other end rounds to other borders.
    """
    ordered, index = logits.sort(dim=-1)
    drop = ordered.softmax(-1).cumsum(-1) <= 1 - mass
    drop[:, -1] = False
    logits.masked_fill_(torch.zeros_like(drop).scatter_(1, index, drop), -torch.inf)


def entropy(table: torch.Tensor) -> torch.Tensor:
    """(n, vocabulary) log-probabilities -> (n,) nats; 0 ln 0 = 0."""
    return -(table.exp() * table.masked_fill(table.isneginf(), 0.0)).sum(-1)


def _numpy(values: torch.Tensor) -> Any:
    return values.to(torch.float32).cpu().numpy()
