"""Guest half of a running sglang server: it is asked over HTTP, and left as it was found."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import numpy as np

from mismatch import wire
from mismatch.engines import observe
from mismatch.engines.client import MOVED, PROBES, Client
from mismatch.engines.http import ServerError, need
from mismatch.engines.sglang import answers, arguments, facts

#: What of /server_info is kept: it has everything the server was started with, its keys too.
TOLD = (
    "attention_backend", "chunked_prefill_size", "context_length", "device",
    "disable_cuda_graph", "disable_radix_cache", "dp_size", "dtype",
    "enable_deterministic_inference", "enable_fp32_lm_head", "enable_torch_compile", "ep_size",
    "kv_cache_dtype", "max_running_requests", "max_total_num_tokens", "page_size", "pp_size",
    "quantization", "rl_on_policy_target", "sampling_backend", "tp_size", "version",
)  # fmt: skip
#: What of /model_info.
ABOUT = ("architectures", "is_generation", "model_path", "model_type", "weight_version")
#: A defect of sglang 0.5.15: it answers with the tokenizer's own limit, too large a number for its
#: JSON where there is none.
ENDLESS = (
    "; sglang 0.5.15 cannot tokenise where tokenizer_config.json has no model_max_length: add one, "
    "or give the prompts as token_ids"
)


class Worker(Client):
    """See mismatch.engines.guest for the contract."""

    def load(self) -> None:
        self._ask_what_runs()
        self._check_model(self.served)
        self.scaled = self._is_scaled()
        self.calls = set()

    def _ask_what_runs(self) -> None:
        """Both addresses have an older name each, which servers of 2025 know alone."""
        about = self._either("/model_info", "/get_model_info")
        self.about = {name: about[name] for name in ABOUT if name in about}
        info = self._either("/server_info", "/get_server_info")
        self.told = {name: info[name] for name in TOLD if name in info}
        self.served = str(info.get("served_model_name") or need(self.about, "model_path"))

    def _either(self, now: str, before: str) -> Any:
        return self.server.get_if_there(now) or self.server.get(before)

    def _check_model(self, served: str) -> None:
        wanted = self.job.options.get("served_model")
        if wanted not in (None, served):
            raise ServerError(
                f"{self.server.url} serves {served}, and no {wanted}: mend served_model"
            )
        root = need(self.about, "model_path")
        if wanted is None and not self.is_checkpoint(served, root):
            raise self.another(served)
        self.check_weights(root)

    def identity(self) -> dict[str, Any]:
        """What it was started with, and which weights it was last given."""
        return {**self.about, "served": self.served, **self.told}

    def _is_scaled(self) -> bool:
        """Whether the temperature is in the values, seen by its effect (the server's environment
        decides it).
        """
        body = {"max_new_tokens": 1, "top_k": -1}
        plain, hot = (
            self._generate(PROBES, {**body, "temperature": t}, topk=1) for t in (1.0, 2.0)
        )
        pairs = zip(plain, hot, strict=True)
        return any(abs(answers.highest(a) - answers.highest(b)) > MOVED for a, b in pairs)

    # ------------------------------------------------------------ tokens

    def encode(self, prompts: list[dict[str, Any]]) -> tuple[list[list[int]], dict[str, Any]]:
        """Text without a template, messages with it and its generation prompt, ids as they are; by
        the server's own tokenizer and template.
        """
        ids = [self._encode_one(prompt) for prompt in prompts]
        if self.told.get("context_length"):
            self.check_room(ids, int(self.told["context_length"]))
        return ids, {"class": "the server's", "add_special_tokens": {"prompt": True}}

    def _encode_one(self, prompt: dict[str, Any]) -> list[int]:
        if "token_ids" in prompt:
            return list(prompt["token_ids"])
        kind = "prompt" if "prompt" in prompt else "messages"
        try:
            answer = self.server.post("/tokenize", {kind: prompt[kind]})
        except ServerError as reason:
            raise ServerError(f"{reason}{ENDLESS if '(500)' in str(reason) else ''}") from None
        return list(need(answer, "tokens"))

    def texts(self, ids: list[int]) -> list[str]:
        return list(map(str, need(self.server.post("/detokenize", {"tokens": [[i] for i in ids]}),
                                  "text")))  # fmt: skip

    # ------------------------------------------------------------ the two paths

    def sample(
        self, prompts: list[np.ndarray], seeds: list[int]
    ) -> list[tuple[np.ndarray, wire.Values]]:
        """Values are taken while sampling. No seed is sent: the server honours one in its
        deterministic mode alone. What it drew is the corpus.
        """
        assert self.job.sampling is not None
        self.path = "rollout"
        more = {"max_new_tokens": self.job.sampling["max_tokens"]}
        said = self._generate([p.tolist() for p in prompts], {**self._settings(), **more})
        drawn = [answers.drawn(answer, self.topk) for answer in said]
        for ids, _ in drawn:
            self.check_drawn(ids)
        self.took([values for _, values in drawn])
        return drawn

    def score(
        self, path: str, sequences: list[np.ndarray], first: list[int], asked: list[np.ndarray]
    ) -> list[wire.Values]:
        """The whole sequence as an input, and nothing generated."""
        self.path = path
        more = asked[0].shape[1] if self.topk else 0
        values = [wire.blank(len(ids), self.topk + more) for ids in sequences]
        busy = [k for k, ids in enumerate(sequences) if first[k] < len(ids)]
        rows = [sequences[k].tolist() for k in busy]
        wanted = [asked[k] if more else None for k in busy]
        said = self._generate(rows, {**self._settings(), "max_new_tokens": 0}, wanted)
        for k, ids, answer, top in zip(busy, rows, said, wanted, strict=True):
            values[k] = answers.prompted(answer, ids, self.vocabulary, self.topk, top)
        self.took([values[k] for k in busy])
        return values

    def _settings(self) -> dict[str, float]:
        return arguments.sampling(self.request)

    def _generate(
        self,
        rows: Sequence[list[int]],
        settings: dict[str, Any],
        asked: Sequence[np.ndarray | None] | None = None,
        topk: int | None = None,
    ) -> list[Any]:
        """One call. A key of its own: no prefix of an earlier call is found in the radix cache."""
        self.check_ids(rows)
        shared = {
            "sampling_params": settings, "return_logprob": True, "logprob_start_len": 0,
            "top_logprobs_num": self.topk if topk is None else topk,
            "extra_key": uuid.uuid4().hex,
        }  # fmt: skip
        bodies: list[dict[str, Any]] = [{"input_ids": ids, **shared} for ids in rows]
        for body, top in zip(bodies, asked or [None] * len(bodies), strict=True):
            if top is not None:
                body["token_ids_logprob"] = answers.given(top)
        said = self.ask_all("/generate", bodies)
        known = str(self.about.get("weight_version"))
        for answer in said:
            version = need(answer, "meta_info").get("weight_version")
            if version is not None and str(version) != known:
                raise ServerError(
                    f"the server was handed other weights ({version}, first {known}) in the middle "
                    "of this capture: run it again in a new folder"
                )
        return said

    # ------------------------------------------------------------ facts

    def facts(self) -> dict[str, Any]:
        calls, self.calls = sorted(self.calls), set()
        self._check_it_is_the_same()
        settings = {n: self.request.get(n, neutral) for n, neutral in wire.NEUTRAL.items()}
        return {
            "observed": {
                "url": self.job.options["url"],
                "served_model": self.served,
                "topk": self.given_topk(),
            },
            **facts.space(self.path, settings, self.scaled),
            "requests_per_call": calls,
            "device": str(self.told.get("device") or "the server's; it does not say"),
            "compute_dtype": self.told.get("dtype"),
            "server": {**self.told, **self.about, "fingerprints": [str(self.identity())]},
            "versions": {
                **observe.versions(("httpx",)),
                "sglang": str(self.told.get("version") or "not told"),
            },
        }

    def _check_it_is_the_same(self) -> None:
        """A trainer may hand a running server new weights, and a server may be restarted."""
        then = self.identity()
        self._ask_what_runs()
        if self.identity() != then:
            raise ServerError(
                f"the server changed in the middle of this capture (first {then}, now "
                f"{self.identity()}): run it again in a new folder"
            )
