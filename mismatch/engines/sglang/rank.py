"""What is done and read inside sglang's scheduler process; there is one for each rank.

The guest's Engine starts these processes with `run` in place of sglang's own function, which `run`
then calls. Afterwards the guest asks through sglang's own rpc (`Engine.collective_rpc`), which
answers with success alone: what a rank has to tell it leaves in a file.

sglang draws as it always does; of a forced request the drawn id is replaced by the wanted one
before log-probabilities are gathered, so that the value at a forced id is read from the very table
that a rollout's value is read from. (A logit processor that masks all but the wanted id, sglang's
own way to force one, makes that value 0.)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from sglang.srt.layers import sampler as sampling  # type: ignore[import-not-found]
from sglang.srt.managers.scheduler import (  # type: ignore[import-not-found]
    Scheduler,
    run_scheduler_process,
)
from sglang.srt.sampling.custom_logit_processor import (  # type: ignore[import-not-found]
    CustomLogitProcessor,
)
from sglang.srt.server_args import get_global_server_args  # type: ignore[import-not-found]

from mismatch import wire
from mismatch.engines import observe
from mismatch.engines.sglang import weights
from mismatch.engines.sglang.forcing import wanted_ids

#: The sampler's settings, and where a batch's values of each are.
SETTINGS = {"temperature": "temperatures", "top_p": "top_ps", "top_k": "top_ks", "min_p": "min_ps"}
#: sglang's names of its attention backends, by the class that runs.
BACKENDS = {
    "TorchNativeAttnBackend": "torch_native",
    "TorchFlexAttnBackend": "flex_attention",
    "FlashInferAttnBackend": "flashinfer",
    "TritonAttnBackend": "triton",
    "TRTLLMHAAttnBackend": "trtllm_mha",
    "IntelAMXAttnBackend": "intel_amx",
}


class ForceIds(CustomLogitProcessor):  # type: ignore[misc]
    """Parameters of a request reach the sampler only beside a processor; it leaves logits alone."""

    def __call__(self, logits: torch.Tensor, custom_param_list: Any = None) -> torch.Tensor:
        return logits


def run(*given: Any, **named: Any) -> None:
    """A rank's process: sglang's own, with one more method that its rpc can call."""
    Scheduler.mismatch = _called
    run_scheduler_process(*given, **named)


def _called(scheduler: Any, verb: str, **given: Any) -> None:
    if verb == "install":
        scheduler.mismatch_tap = Tap(scheduler)
    else:
        getattr(scheduler.mismatch_tap, verb)(**given)


class Tap:
    """One rank's sampler, with its `forward` and the step that gathers log-probabilities wrapped.

    seen: the values of each setting, as the sampler had them. rows: sequences in one step.
    """

    def __init__(self, scheduler: Any) -> None:
        self.scheduler, self.runner = scheduler, scheduler.tp_worker.model_runner
        self.sampler = self.runner.sampler
        self._forward, self._attach = self.sampler.forward, self.sampler._attach_logprobs_to_output
        self._positions: list[int] = []
        self._digests: dict[str, Any] | None = None
        self.watch()
        self.sampler.forward, self.sampler._attach_logprobs_to_output = self.forward, self.attach

    def watch(self) -> None:
        """A capture begins."""
        self.seen: dict[str, set[float]] = {name: set() for name in SETTINGS}
        self.rows: set[int] = set()

    def seed(self, value: int) -> None:
        torch.manual_seed(value)

    def forward(
        self, logits: Any, info: Any, wanted: Any, top: Any, ids: Any, positions: torch.Tensor
    ) -> torch.Tensor:
        """positions: (rows,) of the token that each row's logits come after."""
        self._positions = positions.tolist()
        self.rows.add(len(self._positions))
        for name, held in SETTINGS.items():
            values = getattr(info, held).flatten().unique().cpu().numpy()
            self.seen[name] |= {float(str(value)) for value in values}
        return self._forward(logits, info, wanted, top, ids, positions)

    def attach(
        self, output: Any, logprobs: Any, top: Any, ids: Any, info: Any, drawn: torch.Tensor
    ) -> None:
        rows, wanted = wanted_ids(info.custom_params or (), self._positions)
        if rows:
            drawn[rows] = torch.tensor(wanted, dtype=drawn.dtype, device=drawn.device)
        self._attach(output, logprobs, top, ids, info, drawn)

    def _weights(self, ranks: int) -> dict[str, Any]:
        """Once a load: every byte is read."""
        if self._digests is None:
            self._digests = weights.read(self.runner.model, ranks)
        return self._digests

    def tell(self, folder: str) -> None:
        """What was observed, in `<folder>/rank-<tp rank>.json`."""
        found = {**_about_model(self.runner), **_about_scheduler(self.scheduler)}
        found |= {
            "weights": self._weights(found["tp"]),
            "experts": observe.experts(self.runner.model_config.hf_text_config),
            "seen": {name: sorted(values) for name, values in self.seen.items()},
            "rows": sorted(self.rows),
            "deterministic": bool(self.sampler.enable_deterministic),
            "rl_on_policy_target": self.sampler.rl_on_policy_target,
            "raw": bool(sampling.SGLANG_RETURN_ORIGINAL_LOGPROB),
            "torch_threads": torch.get_num_threads(),
            "device": _device_name(),
        }
        wire.write_json(Path(folder) / f"rank-{self.runner.tp_rank}.json", found)


def _about_model(runner: Any) -> dict[str, Any]:
    model, backend = runner.model, type(runner.attn_backend).__name__
    return {
        "dtypes": sorted({_plain(p.dtype) for p in model.parameters()}),
        "model_dtype": _plain(runner.model_config.dtype),
        "model_class": type(model).__name__,
        "attention": BACKENDS.get(backend, _flash_attention(runner, backend)),
        "attention_class": backend,
        "kv_cache": _plain(runner.token_to_kv_pool.dtype),
        "lm_head": _head_dtype(model),
        "quantization": runner.model_config.quantization,
        "eager": runner.decode_cuda_graph_runner in (None, runner.eager_runner),
    }


def _flash_attention(runner: Any, backend: str) -> str:
    """fa3 and fa4 are one class."""
    version = getattr(runner.attn_backend, "fa_impl_ver", None)
    return backend if version is None else f"fa{version}"


def _about_scheduler(scheduler: Any) -> dict[str, Any]:
    from sglang.srt.distributed import get_tp_group  # type: ignore[import-not-found]

    return {
        "tp": get_tp_group().world_size,
        "max_running_requests": scheduler.max_running_requests,
        "chunked_prefill_size": scheduler.chunked_prefill_size or -1,
        "radix_cache": not scheduler.server_args.disable_radix_cache,
        "tree_cache": type(scheduler.tree_cache).__name__,
        "kv_tokens": scheduler.max_total_num_tokens,
        "overlap": bool(scheduler.enable_overlap),
    }


def _head_dtype(model: Any) -> str:
    """In which dtype the last projection runs."""
    processor, head = getattr(model, "logits_processor", None), getattr(model, "lm_head", None)
    if getattr(processor, "use_fp32_lm_head", False):
        return "float32"
    if get_global_server_args().rl_on_policy_target is not None:
        return "bfloat16"  # whatever the weight is
    return _plain(getattr(getattr(head, "weight", None), "dtype", ""))


def _plain(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _device_name() -> str:
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else observe.processor()
