"""Guest half of megatron: score given ids with one forward pass of megatron-core's GPTModel.

Eval mode, dropout 0, no gradient; a batch is padded right under causal attention, as trainers feed
megatron. Logits come split over the vocabulary (tensor parallelism), are gathered, cut to the
checkpoint's vocabulary, and go whole through log-softmax in float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from megatron.core import parallel_state, tensor_parallel  # type: ignore[import-not-found]

from mismatch import wire
from mismatch.engines import observe
from mismatch.engines.distribution import Distribution, Scratch
from mismatch.engines.dtypes import plain, short
from mismatch.engines.megatron import arguments, columns, convert, llama, model, parallel


class Worker:
    """See mismatch.engines.guest for the contract."""

    def __init__(self, job: wire.Job, events: wire.Events) -> None:
        self.job, self.options = job, job.options
        self.scratch = Scratch()

    # ------------------------------------------------------------ load

    def load(self) -> None:
        folder, options = Path(self.job.model), self.options
        self.llama = llama.read(folder)
        llama.check_split(self.llama, options.get("tp", 1), options.get("pp", 1))
        if "threads" in options:
            torch.set_num_threads(options["threads"])
        self.device = parallel.device()
        self.patches = parallel.patch(self.device)
        parallel.join(options, self.device)
        self.local = arguments.is_local(options, self.device.type == "cuda")
        self.model = model.build(self.llama, options, self.job.extra, self.device)
        place = model.place_of(self.model, self.local)
        model.fill(self.model, folder, convert.weights(self.llama, place))
        self.configure({})

    # ------------------------------------------------------------ score

    def configure(self, options: dict[str, Any]) -> None:
        self.distribution = Distribution(options, self.scratch)
        self.rows: set[int] = set()
        self.logits_dtypes: set[torch.dtype] = set()

    def encode(self, prompts: list[dict[str, Any]]) -> Any:
        raise NotImplementedError("the train side scores ids; the rollout engine encodes prompts")

    sample = encode

    def texts(self, ids: list[int]) -> list[str] | None:
        return None  # the rollout engine's tokenizer names the tokens

    def score(
        self, path: str, sequences: list[np.ndarray], first: list[int], asked: list[np.ndarray]
    ) -> list[wire.Values]:
        ids = self._padded(sequences)
        values = [self.distribution.blank(*more.shape) for more in asked]
        with torch.no_grad():
            logits = self._logits(ids)
        self.rows.add(len(ids))
        self.logits_dtypes.add(logits.dtype)
        for row, sequence in enumerate(sequences):
            n = len(sequence)
            if n > 1:
                own = logits[row, : n - 1]
                self.distribution.fill(values[row], own, ids[row, :n], 1, asked[row])
        return values

    def _padded(self, sequences: list[np.ndarray]) -> torch.Tensor:
        """(rows, columns) ids; 0 behind a sequence."""
        step = columns.multiple(self.options)
        width = -(-max(map(len, sequences)) // step) * step
        ids = torch.zeros((len(sequences), width), dtype=torch.long)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.as_tensor(sequence, dtype=torch.long)
        return ids.to(self.device)

    def _logits(self, ids: torch.Tensor) -> torch.Tensor:
        """(rows, columns, vocabulary), the same on every rank."""
        own = parallel.own_columns(ids)
        out = self._stage(own)
        if self.model.post_process:
            split = tensor_parallel.gather_from_tensor_model_parallel_region(out)
            out = parallel.all_columns(split[..., : self.llama.vocabulary].contiguous())
        else:
            parallel.send(out)
        if parallel_state.get_pipeline_model_parallel_world_size() == 1:
            return out
        shape = (*ids.shape, self.llama.vocabulary)
        mine = out if self.model.post_process else None
        return parallel.from_last_stage(mine, shape, self._dtype, self.device)

    def _stage(self, ids: torch.Tensor) -> torch.Tensor:
        """This pipeline stage's layers: hidden states, of the last one logits of a part of the
        vocabulary.
        """
        rows, width = ids.shape
        if not self.model.pre_process:
            held = width // (
                self.options.get("tp", 1) if self.model.config.sequence_parallel else 1
            )
            shape = (held, rows, self.llama.hidden)
            self.model.set_input_tensor(parallel.receive(shape, self._dtype, self.device))
        positions = torch.arange(width, device=self.device).expand(rows, -1)  # rope counts itself
        return self.model(ids, positions, self._mask(width))

    def _mask(self, width: int) -> torch.Tensor | None:
        """What must not be seen; Transformer Engine knows by itself that a mask is causal."""
        if not self.local:
            return None
        ones = torch.ones((1, 1, width, width), dtype=torch.bool, device=self.device)
        return ones.triu(1)

    @property
    def _dtype(self) -> torch.dtype:
        return self.model.config.params_dtype

    # ------------------------------------------------------------ facts

    def facts(self) -> dict[str, Any]:
        distribution = self.distribution
        return {
            "observed": {**self._load_observed(), **distribution.applied},
            "attention_classes": self._classes("core_attention"),
            "norm_classes": self._classes("layernorm"),
            "linear_classes": self._classes("linear_"),
            "logits_dtype": "+".join(sorted(map(plain, self.logits_dtypes))),
            "logprob_space": distribution.space(),
            "log_softmax": "over the whole vocabulary, gathered from the ranks",
            "scored_as": distribution.settings(),
            "rows_per_forward": sorted(self.rows),
            "padded_vocabulary": self.model.vocab_size,
            "layers_of_first_stage": len(self.model.decoder.layers),
            "topk_of_the_sampler": distribution.asked,
            "patches": self.patches,
            "device": self._device_name(),
            "torch_threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "world_size": torch.distributed.get_world_size(),
            "backend": torch.distributed.get_backend(),
            "model_class": type(self.model).__name__,
            "versions": observe.versions(("megatron-core", "torch")),
            "env": observe.switches(),
        }

    def _load_observed(self) -> dict[str, Any]:
        linear = self.model.decoder.layers[0].self_attention.linear_qkv
        return {
            **parallel.observed(),
            "dtype": "+".join(sorted({short(p.dtype) for p in self.model.parameters()})),
            "attention": self._attention(),
            "sp": bool(linear.sequence_parallel),
            "threads": torch.get_num_threads(),
        }

    def _attention(self) -> str:
        """The option's name of the attention modules; Transformer Engine picks a kernel itself."""
        if self._classes("core_attention") == ["DotProductAttention"]:
            return arguments.LOCAL
        return str(self.model.config.attention_backend.name)

    def _classes(self, part: str) -> list[str]:
        """Class names of the modules whose own name has `part` in it."""
        found = self.model.named_modules()
        return sorted({type(m).__name__ for n, m in found if part in n.rpartition(".")[2]})

    def _device_name(self) -> str:
        on_gpu = self.device.type == "cuda"
        return torch.cuda.get_device_name(self.device) if on_gpu else observe.processor()

    def close(self) -> None:
        del self.model
        parallel.leave()
