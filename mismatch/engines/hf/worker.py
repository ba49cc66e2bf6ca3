"""Guest half of hf: score given ids with one forward pass, as a trainer does.

Eval mode, no KV cache, whole logits upcast to float32 before log-softmax.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from mismatch import wire
from mismatch.engines import observe

DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class Worker:
    """See mismatch.engines.guest for the contract."""

    def __init__(self, job: wire.Job, events: wire.Events) -> None:
        self.job, self.events = job, events
        self.options = job.options
        self.request: dict[str, Any] = {}
        self._rows_seen: set[int] = set()
        self._padding_seen: set[str] = set()
        self._logits_dtype: str | None = None
        self._kernels: list[str] | None = None

    def load(self) -> None:
        import torch
        import transformers

        self.torch = torch
        transformers.utils.logging.disable_progress_bar()
        wanted: dict[str, Any] = dict(self.job.extra)
        if "dtype" in self.options:
            wanted["dtype"] = getattr(torch, DTYPES[self.options["dtype"]])
        if "attention" in self.options:
            wanted["attn_implementation"] = self.options["attention"]
        self.model = transformers.AutoModelForCausalLM.from_pretrained(
            self.job.model,
            local_files_only=True,
            trust_remote_code=self.job.trust_remote_code,
            **wanted,
        )
        device = self.options.get("device") or ("cuda" if torch.cuda.is_available() else "cpu")
        self.model.to(device).eval()

    def configure(self, options: dict[str, Any]) -> None:
        self.request = options

    def encode(self, prompts: list[dict[str, Any]]) -> Any:
        raise NotImplementedError("the train side scores ids; the rollout engine encodes prompts")

    sample = encode

    def texts(self, ids: list[int]) -> list[str] | None:
        return None  # the rollout engine's tokenizer names the tokens

    def score(self, path: str, sequences: list[np.ndarray], first: list[int]) -> list[wire.Values]:
        torch = self.torch
        ids, mask, positions, starts = self._padded(sequences)
        self._rows_seen.add(len(sequences))
        more = {} if mask is None else {"attention_mask": mask, "position_ids": positions}
        with torch.no_grad():
            logits = self.model(input_ids=ids, use_cache=False, **more).logits
        self._logits_dtype = str(logits.dtype)
        logits = logits.float()  # whole, and the engine's own copy is let go
        values = []
        for row, (sequence, start) in enumerate(zip(sequences, starts, strict=True)):
            whole = logits[row, start : start + len(sequence)]
            values.append(self._logprobs(whole, ids[row, start : start + len(sequence)]))
        return values

    def _logprobs(self, logits: Any, ids: Any) -> wire.Values:
        """(n, vocabulary) logits -> (n,): at t the value of token t given those before it."""
        torch = self.torch
        table = torch.log_softmax(logits[:-1], dim=-1)
        values = wire.blank(len(ids))
        values.logprobs[1:] = table.gather(1, ids[1:, None])[:, 0].cpu().numpy()
        return values

    def _padded(self, sequences: list[np.ndarray]) -> tuple[Any, Any, Any, list[int]]:
        """ids (rows, longest), mask and positions (None for one row), each row's first column."""
        torch = self.torch
        if len(sequences) == 1:
            alone = torch.as_tensor(sequences[0], dtype=torch.long, device=self.model.device)
            return alone[None], None, None, [0]
        longest = max(len(s) for s in sequences)
        left = self.request.get("padding") == "left"
        starts = [longest - len(s) if left else 0 for s in sequences]
        ids = torch.zeros((len(sequences), longest), dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, (sequence, start) in enumerate(zip(sequences, starts, strict=True)):
            ids[row, start : start + len(sequence)] = torch.as_tensor(sequence, dtype=torch.long)
            mask[row, start : start + len(sequence)] = 1
        device = self.model.device
        self._padding_seen.add("left" if left else "right")
        positions = (mask.cumsum(1) - 1).clamp(min=0)
        return ids.to(device), mask.to(device), positions.to(device), starts

    def facts(self) -> dict[str, Any]:
        torch, model = self.torch, self.model
        dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()})
        short = {v: k for k, v in DTYPES.items()}
        facts = {
            "observed": {
                "dtype": "+".join(short.get(d, d) for d in dtypes),
                "attention": model.config._attn_implementation,
                "device": model.device.type,
                **({"padding": "+".join(sorted(self._padding_seen))} if self._padding_seen else {}),
            },
            "attention_kernels": self._attention_kernels(),
            "logits_dtype": (self._logits_dtype or "").removeprefix("torch."),
            "logprob_space": "log_softmax over float32 logits, not temperature-scaled",
            "rows_per_forward": sorted(self._rows_seen),
            "device": _device_name(torch, model.device),
            "torch_threads": torch.get_num_threads(),
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
            "tf32": torch.backends.cuda.matmul.allow_tf32,
            "world_size": 1,
            "model_class": type(model).__name__,
            "versions": observe.versions(("torch", "transformers", "tokenizers", "accelerate")),
            "env": observe.switches(),
        }
        self._rows_seen, self._padding_seen = set(), set()
        return facts

    def _attention_kernels(self) -> list[str]:
        """The attention operators of one profiled four-token forward, taken after the capture."""
        if self._kernels is None:
            torch = self.torch
            ids = torch.zeros((1, 4), dtype=torch.long, device=self.model.device)
            with torch.no_grad(), torch.profiler.profile() as profile:
                self.model(input_ids=ids, use_cache=False)
            names = {event.key for event in profile.key_averages()}
            marks = ("attention", "flash", "fmha", "softmax")
            self._kernels = sorted(n for n in names if any(m in n.lower() for m in marks))
        return self._kernels

    def close(self) -> None:
        self.model = None


def _device_name(torch: Any, device: Any) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else observe.processor()
