"""The model's forward pass as a request asks for it, and what was seen of it while it ran."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from mismatch.engines.dtypes import DTYPES, short
from mismatch.engines.hf import decode, distributed
from mismatch.engines.hf.rows import Layout

KERNELS = {
    "math": SDPBackend.MATH,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
}


@dataclass
class Seen:
    """What the passes of one capture showed."""

    rows: set[int] = field(default_factory=set)
    per_row: set[int] = field(default_factory=set)  # most sequences in one row
    resets: bool = True  # positions start again at each packed sequence
    packed: set[bool] = field(default_factory=set)
    padding: set[str] = field(default_factory=set)
    widths: set[int] = field(default_factory=set)  # positions that one call of the head made
    step: int | None = None  # the chunk that the loop over the head used
    logits: set[torch.dtype] = field(default_factory=set)  # their dtypes
    caches: set[str] = field(default_factory=set)


class Forward:
    """One capture's way through the model.

    A piece is (column, logits): logits (rows, width, vocabulary) of the columns from `column` on,
    each predicting the token in the column after it.
    """

    def __init__(self, model: Any, options: Mapping[str, Any]) -> None:
        self.model, self.options, self.seen = model, options, Seen()
        self.mesh: Any = None  # of context parallelism
        self.shape = (1, 4)  # of the last call's ids

    def pieces(self, layout: Layout, first: int) -> Iterator[tuple[int, torch.Tensor]]:
        """first: the column of the first scored token, where a decode starts."""
        self._note_layout(layout)
        step = _chunk(self.options.get("logits", "whole"))
        if self.options.get("cache", "none") != "none":
            return decode.steps(self, layout, first, self.options["cache"])
        if self.mesh is not None:
            whole = distributed.ring(self.run, self.mesh, layout)
            return iter([(0, whole)])
        if step is None:
            return iter([(0, self.run(layout.ids, **layout.inputs).logits)])
        return self._chunks(layout, step)

    def run(self, ids: torch.Tensor, **more: Any) -> Any:
        """One call of the model under the request's modes."""
        with torch.no_grad(), self.modes():
            out = self.model(input_ids=ids, **{"use_cache": False, **more})
        self.shape = tuple(ids.shape)
        self.seen.logits.add(out.logits.dtype)
        self.seen.widths.add(out.logits.shape[1])
        self.seen.caches.add(decode.kind(out.past_key_values))
        return out

    @contextlib.contextmanager
    def modes(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            if "autocast" in self.options:
                dtype = DTYPES[self.options["autocast"]]
                stack.enter_context(torch.autocast(self.model.device.type, dtype=dtype))
            if "sdpa_kernel" in self.options:
                stack.enter_context(sdpa_kernel(KERNELS[self.options["sdpa_kernel"]]))
            yield

    def _chunks(self, layout: Layout, step: int) -> Iterator[tuple[int, torch.Tensor]]:
        """The body once, then the model's own head over `step` columns at a time."""
        columns = layout.ids.shape[1] - 1  # the last one predicts nothing
        self.seen.step = step
        with _body_once(self.model.base_model):
            for start in range(0, columns, step):
                wanted = torch.arange(start, min(start + step, columns), device=layout.ids.device)
                logits = self.run(layout.ids, logits_to_keep=wanted, **layout.inputs).logits
                if logits.shape[1] != len(wanted):
                    raise ValueError(
                        f"logits=chunked: {type(self.model).__name__} made {logits.shape[1]} "
                        f"positions where {len(wanted)} were asked (it ignores logits_to_keep)"
                    )
                yield start, logits

    def _note_layout(self, layout: Layout) -> None:
        seen, rows = self.seen, [row for row, _ in layout.places]
        seen.rows.add(layout.ids.shape[0])
        seen.per_row.add(max(rows.count(row) for row in set(rows)))
        seen.packed.add(layout.packed)
        if layout.packed:
            assert layout.positions is not None
            seen.resets &= int((layout.positions == 0).sum()) == len(layout.places)
        if layout.padding:
            seen.padding.add(layout.padding)

    def observed(self) -> dict[str, Any]:
        """What the passes were, by option; what no pass showed is not named."""
        seen = self.seen
        found: dict[str, Any] = {"cache": "+".join(sorted(seen.caches)), "logits": self._head()}
        if seen.padding:
            found["padding"] = "+".join(sorted(seen.padding))
        if seen.packed:
            found["packing"] = seen.packed == {True} and seen.rows == {1} and seen.resets
        if "autocast" in self.options and self.computed != distributed.weight_dtype(self.model):
            found["autocast"] = self.computed
        return found

    @property
    def computed(self) -> str:
        """The dtype in which the passes made their logits."""
        return "+".join(sorted(map(short, self.seen.logits)))

    def _head(self) -> str:
        """`chunked:N` when the loop ran and no call of the head made more than N positions."""
        step = self.seen.step
        fits = step is not None and max(self.seen.widths) <= step
        return f"chunked:{step}" if fits else "whole"


def _chunk(logits: str) -> int | None:
    return None if logits == "whole" else int(logits.removeprefix("chunked:"))


@contextlib.contextmanager
def _body_once(body: Any) -> Iterator[None]:
    """While it lasts, the body runs on its first call and hands out that answer on later ones.

    So the model's own head (its scaling and soft caps included) runs over parts of one pass.
    """
    own, original = body.__dict__.get("forward"), body.forward
    kept: list[Any] = []

    def once(*args: Any, **kwargs: Any) -> Any:
        if not kept:
            kept.append(original(*args, **kwargs))
        return kept[0]

    body.forward = once
    try:
        yield
    finally:
        if own is None:
            del body.forward
        else:
            body.forward = own


def packing_leaks(forward: Forward) -> bool:
    """Whether the second of two packed sequences hears of the first: its logits must not change
    when the first one's ids do.
    """
    device = forward.model.device
    positions = torch.arange(4, device=device).repeat(2)[None]
    answers = []
    for other in (1, 2):
        ids = torch.tensor([[other] * 4 + [3, 1, 2, 3]], device=device)
        with torch.no_grad(), forward.modes():
            out = forward.model(input_ids=ids, position_ids=positions, use_cache=False)
        answers.append(out.logits[0, 4:].float())
    return not torch.allclose(*answers, rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------- kernels


def attention_ops(forward: Forward, ids: torch.Tensor) -> list[str]:
    """The attention operators of one profiled forward pass under the request's modes."""
    with torch.no_grad(), torch.profiler.profile() as profile, forward.modes():
        forward.model(input_ids=ids, use_cache=False)
    names = {event.key for event in profile.key_averages()}
    marks = ("attention", "flash", "fmha", "softmax")
    return sorted(n for n in names if any(m in n.lower() for m in marks))


def sdpa_backend(ops: list[str]) -> str:
    """The option's names of the kernels that sdpa called, joined by +; empty where it called none.

    A CPU's flash kernel is named ..._flash_attention_for_cpu.
    """
    marks = {
        "math": "aten::_scaled_dot_product_attention_math",
        "flash": "aten::_scaled_dot_product_flash_attention",
        "efficient": "aten::_scaled_dot_product_efficient_attention",
        "cudnn": "aten::_scaled_dot_product_cudnn_attention",
    }
    return "+".join(name for name, mark in marks.items() if any(o.startswith(mark) for o in ops))
