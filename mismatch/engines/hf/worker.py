"""Guest half of hf: score given ids with one forward pass, as a trainer does.

Unless the options say otherwise: eval mode, no KV cache, whole logits upcast to float32 before
log-softmax.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers

from mismatch import wire
from mismatch.engines import observe
from mismatch.engines.distribution import Distribution, Scratch
from mismatch.engines.dtypes import DTYPES, plain, short
from mismatch.engines.hf import (
    damage,
    distributed,
    forward,
    quantize,
    routes,
    rows,
    switches,
    weights,
)

MANY = ("fsdp", "cp")  # tp: transformers joins its ranks itself


class Worker:
    """See mismatch.engines.guest for the contract."""

    def __init__(self, job: wire.Job, events: wire.Events) -> None:
        self.job, self.options = job, job.options
        self.scratch = Scratch()
        self._kernels: dict[tuple[Any, ...], list[str]] = {}
        self._isolated: set[tuple[Any, ...]] = set()  # modes under which packing was probed
        self.quantized: quantize.Emulation | None = None
        self._weights: dict[str, dict[str, Any]] = {}
        self._mend: damage.Undo | None = None
        self.routes: routes.Routes | None = None

    # ------------------------------------------------------------ load

    def load(self) -> None:
        switches.turn(self.options)
        transformers.utils.logging.disable_progress_bar()
        device = distributed.device_of(self.options)
        mesh = distributed.join(device) if any(n in self.options for n in MANY) else None
        self.model = self._pretrained()
        if self.options.get("tp", 1) == 1:
            self.model.to(device)
        self.model.eval()
        self._alter(mesh)
        self.ring = mesh if "cp" in self.options else None
        self.configure({})

    def _pretrained(self) -> Any:
        wanted: dict[str, Any] = dict(self.job.extra)
        if "dtype" in self.options:
            wanted["dtype"] = DTYPES[self.options["dtype"]]
        if "attention" in self.options:
            wanted["attn_implementation"] = self.options["attention"]
        trust = self.job.trust_remote_code
        if self.options.get("tp", 1) > 1:
            config = transformers.AutoConfig.from_pretrained(
                self.job.model, local_files_only=True, trust_remote_code=trust
            )
            distributed.check_heads(config, self.options["tp"])
            wanted.update(_sharded_load(self.options["tp"]))
        return transformers.AutoModelForCausalLM.from_pretrained(
            self.job.model, local_files_only=True, trust_remote_code=trust, **wanted
        )

    def _alter(self, mesh: Any) -> None:
        """What the options change in the loaded model; sharding comes after what needs it whole."""
        if "quantization" in self.options:
            layers = distributed.layers(self.model)
            self.quantized = quantize.Emulation(self.model, layers, self.options["quantization"])
        if "lm_head" in self.options:
            _widen_head(self.model)
        if "fsdp" in self.options:
            distributed.shard(self.model, mesh, self.options.get("fsdp_mixed"))
        if "cp" in self.options:
            distributed.without_masks(self.model)
        if self.options.get("compile"):
            switches.compile_model(self.model)

    # ------------------------------------------------------------ score

    def configure(self, options: dict[str, Any]) -> None:
        self.request = options
        self._damage(options.get("damage"))
        self._watch_routers()
        self._begin()

    def _begin(self) -> None:
        """What is seen from here on belongs to one capture."""
        self.distribution = Distribution(self.request, self.scratch)
        self.forward = forward.Forward(self.model, self.request)
        self.forward.mesh = self.ring

    def _watch_routers(self) -> None:
        """Only where routes are asked is anything hooked to the model."""
        if self.routes is not None:
            self.routes.remove()
        asked = [self.request.get(name) is True for name in ("routes", "replay_routes")]
        self.routes = routes.Routes(self.model, wanted=asked[0]) if any(asked) else None

    def _damage(self, kind: str | None) -> None:
        """Whole again first."""
        if self._mend is not None:
            self._mend()
        self._mend = damage.break_model(self.model, kind) if kind else None

    @property
    def _modes(self) -> tuple[Any, ...]:
        """What chooses the attention kernels of one load."""
        return tuple(self.request.get(name) for name in ("sdpa_kernel", "autocast"))

    def encode(self, prompts: list[dict[str, Any]]) -> Any:
        raise NotImplementedError("the train side scores ids; the rollout engine encodes prompts")

    sample = encode

    def texts(self, ids: list[int]) -> list[str] | None:
        return None  # the rollout engine's tokenizer names the tokens

    def score(
        self,
        path: str,
        sequences: list[np.ndarray],
        first: list[int],
        asked: list[np.ndarray],
        routes: list[np.ndarray] | None = None,
    ) -> list[wire.Values]:
        layout = self._layout(sequences, first).on(self.model.device)
        if self.routes is not None:
            self.routes.begin(layout, routes)
        values = [self.distribution.blank(*ids.shape) for ids in asked]
        for column, logits in self.forward.pieces(layout, max(first)):
            for s, (row, start) in enumerate(layout.places):
                low, high = layout.told(s, column, logits.shape[1])
                if low < high:
                    told = logits[row, low - column : high - column]
                    ids = layout.sequence(s)
                    self.distribution.fill(values[s], told, ids, low - start + 1, asked[s])
        return values if self.routes is None else self.routes.fill(values, layout)

    def _layout(self, sequences: list[np.ndarray], first: list[int]) -> rows.Layout:
        if self.request.get("cache", "none") != "none":
            return rows.aligned(sequences, first)
        packing = bool(self.request.get("packing"))
        if packing and self._modes not in self._isolated:
            if forward.packing_leaks(self.forward):
                raise ValueError("packing: in this model a packed sequence hears of the one before")
            self._isolated.add(self._modes)
        return rows.lay_out(sequences, self.request.get("padding"), packing)

    # ------------------------------------------------------------ facts

    def facts(self) -> dict[str, Any]:
        seen, kernels = self.forward.seen, self._attention_kernels()
        distributed.reshard(self.model)
        facts = {
            "observed": {**self._load_observed(), **self._request_observed(kernels)},
            "attention_kernels": kernels,
            "logits_dtype": "+".join(sorted(map(plain, seen.logits))),
            "logprob_space": self.distribution.space(),
            "scored_as": self.distribution.settings(),
            "rows_per_forward": sorted(seen.rows),
            "sequences_per_row": sorted(seen.per_row),
            "head_positions_most": max(seen.widths, default=0),
            "topk_of_the_sampler": self.distribution.asked,
            "device": _device_name(self.model.device),
            "torch_threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "tf32": torch.backends.cuda.matmul.allow_tf32,
            "compiled": switches.compiled(),
            "world_size": distributed.world_size(),
            "model_class": type(self.model).__name__,
            "experts": observe.experts(self.model.config.get_text_config()),
            "weights": self._read_weights(),
            "versions": observe.versions(("torch", "transformers", "tokenizers", "accelerate")),
            "env": observe.switches(),
        }
        if self.quantized is not None:
            facts["quantization"] = self.quantized.about()
        if self.routes is not None:
            facts["routes"] = self.routes.facts()
        self._begin()
        return facts

    def _read_weights(self) -> dict[str, Any]:
        """Once a load (and a damage): every byte is read."""
        state = str(self.request.get("damage"))
        if state not in self._weights:
            self._weights[state] = weights.read(self.model)
        return self._weights[state]

    def _load_observed(self) -> dict[str, Any]:
        model = self.model
        found = {
            **switches.observed(model),
            **distributed.observed(model, self.ring),
            "dtype": distributed.weight_dtype(model, but_head="lm_head" in self.options),
            "attention": model.config._attn_implementation,
            "device": model.device.type,
            "lm_head": short(model.get_output_embeddings().weight.dtype),
            "quantization": "none" if self.quantized is None else self.quantized.observed(),
        }
        computed = self.forward.computed
        if "fsdp_mixed" in self.options and computed != found["dtype"]:
            found["fsdp_mixed"] = computed
        return found

    def _request_observed(self, kernels: list[str]) -> dict[str, Any]:
        backend = forward.sdpa_backend(kernels)
        named = {"sdpa_kernel": backend} if backend else {}
        off = dict.fromkeys(("routes", "replay_routes"), False)
        routed = off if self.routes is None else self.routes.observed()
        return {**self.forward.observed(), **self.distribution.applied, **named, **routed}

    def _attention_kernels(self) -> list[str]:
        """The attention operators of one short profiled pass, taken after the capture."""
        if self._modes not in self._kernels:
            # A compiled model keeps the shape it has: another one would compile it again.
            shape = self.forward.shape if self.options.get("compile") else (1, 4)
            ids = torch.zeros(shape, dtype=torch.long, device=self.model.device)
            self._kernels[self._modes] = forward.attention_ops(self.forward, ids)
        return self._kernels[self._modes]

    def close(self) -> None:
        del self.model, self.forward
        distributed.leave()


def _sharded_load(ranks: int) -> dict[str, Any]:
    """from_pretrained's arguments for the model's own tensor parallel plan."""
    return {
        "distributed_config": transformers.distributed.DistributedConfig(
            tp_size=ranks, tp_plan="auto"
        )
    }


def _widen_head(model: Any) -> None:
    """A float32 head of its own on a lower body; a tied embedding keeps its dtype and its bits."""
    head = model.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().float().clone(), requires_grad=False)
    if head.bias is not None:
        head.bias = torch.nn.Parameter(head.bias.detach().float(), requires_grad=False)
    head.register_forward_pre_hook(lambda _, args: (args[0].float(), *args[1:]))


def _device_name(device: Any) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else observe.processor()
