"""What is done inside vllm's sampler, in whichever process it runs: ids forced, entropy added.

vllm draws as it always does; of a forced request the drawn id is replaced by the wanted one before
log-probabilities are gathered. So the value at a forced id is read from the very table that a
rollout's value is read from, raw or processed, and an id outside what top-k or top-p keep says
-inf. (Masking all but the wanted id would make every processed value 0.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from vllm.v1.sample.logits_processor import (  # type: ignore[import-not-found]
    LogitsProcessor,
    MinPLogitsProcessor,
)
from vllm.v1.sample.logits_processor.builtin import (  # type: ignore[import-not-found]
    process_dict_updates,
)
from vllm.v1.sample.sampler import Sampler  # type: ignore[import-not-found]

from mismatch import wire
from mismatch.engines.vllm.requests import ENTROPY_ID

FORCE = "mismatch_forced_ids"

#: The ids to force, and the request's growing list of emitted ids.
Forced = tuple[list[int], list[int]]


class ForceIds(LogitsProcessor):  # type: ignore[misc]
    """Knows which row of the batch must emit what; it leaves the logits alone."""

    def __init__(self, *_: Any) -> None:
        self.forced: dict[int, Forced] = {}
        self.settings: dict[str, float] = {}

    def is_argmax_invariant(self) -> bool:
        return False

    def update_state(self, batch_update: Any) -> None:
        process_dict_updates(self.forced, batch_update, self._added)

    def _added(self, params: Any, _: Any, output_ids: list[int]) -> Forced | None:
        self.settings = {name: getattr(params, name) for name in wire.NEUTRAL}
        wanted = (params.extra_args or {}).get(FORCE)
        return None if wanted is None else (wanted, output_ids)

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        return logits


def wanted_ids(forced: dict[int, Forced]) -> tuple[list[int], list[int]]:
    """Rows of the batch and the id each must emit now.

    The list of emitted ids grows by one entry a token (-1 placeholders under async scheduling): its
    length is the index of the token now wanted. Async scheduling may ask once past the end; that
    token is never kept.
    """
    ids = [wanted[min(len(out), len(wanted) - 1)] for wanted, out in forced.values()]
    return list(forced), ids


class Tap:
    """One process's sampler, with its `sample` and `gather_logprobs` wrapped.

    watched: settings whose values, as the sampler has them, are noted in `seen`. gathered: how many
    of the likeliest tokens it gave at a position; entropies: whether it gave the entropy.
    """

    def __init__(self, sampler: Any) -> None:
        self._sample, self._gather = sampler.sample, sampler.gather_logprobs
        self.entropy, self.watched = False, tuple[str, ...]()
        self.seen: dict[str, set[float]] = {}
        self.gathered: set[int] = set()
        self.entropies = False
        self.settings: dict[str, float] = {}
        self._metadata: Any = None
        sampler.sample, sampler.gather_logprobs = self.sample, self.gather

    def watch(self, names: tuple[str, ...], entropy: bool) -> None:
        self.watched, self.entropy = names, entropy
        self.seen = {name: set() for name in names}
        self.gathered, self.entropies, self._metadata = set(), False, None

    def sample(self, logits: torch.Tensor, metadata: Any, *more: Any, **named: Any) -> Any:
        sampled, processed = self._sample(logits, metadata, *more, **named)
        forcing = _one(metadata.logitsprocs.non_argmax_invariant, ForceIds)
        if forcing.forced:
            rows, ids = wanted_ids(forcing.forced)
            sampled[rows] = torch.tensor(ids, dtype=sampled.dtype, device=sampled.device)
        if metadata is not self._metadata:  # vllm makes another when the batch changes
            self._metadata, self.settings = metadata, forcing.settings
            for name in self.watched:
                self.seen[name] |= settings_of(metadata, name)
        return sampled, processed

    def gather(self, logprobs: torch.Tensor, count: int, *more: Any, **named: Any) -> Any:
        """vllm's own answer; where the entropy was asked, as its last column under ENTROPY_ID."""
        with_entropy = self.entropy and count > 0
        self.gathered.add(count - with_entropy)
        answer = self._gather(logprobs, count - with_entropy, *more, **named)
        if not with_entropy:
            return answer
        self.entropies = True
        ids, values = answer.logprob_token_ids, answer.logprobs
        mark = torch.full_like(ids[:, :1], ENTROPY_ID)
        return answer._replace(
            logprob_token_ids=torch.cat((ids, mark), 1),
            logprobs=torch.cat((values, entropy(logprobs)[:, None].to(values.dtype)), 1),
        )


def entropy(logprobs: torch.Tensor) -> torch.Tensor:
    """(n, vocabulary) log-probabilities -> (n,) nats; a token of probability 0 adds nothing."""
    return -(logprobs.exp() * logprobs.masked_fill(logprobs.isneginf(), 0.0)).sum(-1)


def settings_of(metadata: Any, name: str) -> set[float]:
    """The values of a setting over the rows of a batch, from the tensors the sampler works with."""
    if name == "min_p":
        cut = _one(metadata.logitsprocs.argmax_invariant, MinPLogitsProcessor)
        rows = cut.min_p if cut.min_p_count else None
    elif name == "repetition_penalty":
        rows = None if metadata.no_penalties else metadata.repetition_penalties
    else:
        rows = getattr(metadata, name)
    if rows is None:  # vllm leaves out a step that changes nothing
        return {wire.NEUTRAL[name]}
    return {shortest(value) for value in rows.flatten().unique().cpu().numpy()}


def shortest(value: Any) -> float:
    """A number of the sampler in its shortest decimals: float32(0.7) -> 0.7, int32(5) -> 5."""
    return int(value) if np.issubdtype(value.dtype, np.integer) else float(str(value))


def _one(processors: Any, kind: type) -> Any:
    return next(p for p in processors if isinstance(p, kind))


# ---------------------------------------------------------------- called in every rank's process


def install(worker: Any) -> None:
    sampler = getattr(worker.model_runner, "sampler", None)
    if not isinstance(sampler, Sampler):
        raise RuntimeError(
            "ids can be forced in vllm's V1 model runner alone: set VLLM_USE_V2_MODEL_RUNNER=0"
        )
    worker.model_runner.mismatch = Tap(sampler)


def configure(worker: Any, watched: tuple[str, ...], with_entropy: bool) -> None:
    """Before a capture: what to note and whether to add the entropy."""
    worker.model_runner.mismatch.watch(watched, with_entropy)


def seed(worker: Any, value: int) -> None:
    torch.manual_seed(value)


def noted(worker: Any) -> dict[str, Any]:
    """After a capture: settings as the sampler had them, and those of the last request."""
    tap = worker.model_runner.mismatch
    return {
        "seen": {name: sorted(values) for name, values in tap.seen.items()},
        "topk": max(tap.gathered, default=0),
        "entropy": tap.entropies,
        "settings": tap.settings,
    }
