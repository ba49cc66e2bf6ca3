"""What hf's ranks pass to torch on a GPU, where no test of this repository runs them.

torch is a stand-in that notes its calls: these tests need no engine, and start no process.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

OURS = ("hf.distributed", "dtypes", "hf.rows")
TORCH = (
    "torch",
    "torch.distributed",
    "torch.distributed.fsdp",
    "torch.distributed.tensor",
    "torch.distributed.tensor.experimental",
    "torch.distributed.tensor.experimental._attention",
)


@pytest.fixture
def torch(monkeypatch: pytest.MonkeyPatch) -> MagicMock:
    """A torch of which every attribute is noted."""
    root = MagicMock()
    for name in TORCH:
        found = root
        for part in name.split(".")[1:]:
            found = getattr(found, part)
        monkeypatch.setitem(sys.modules, name, found)
    return root


@pytest.fixture
def distributed(torch: MagicMock) -> Iterator[ModuleType]:
    """hf's distributed.py over that torch; forgotten afterwards, so that nobody else meets it."""
    names = [f"mismatch.engines.{name}" for name in OURS]
    kept = {name: sys.modules.pop(name, None) for name in names}
    yield importlib.import_module(names[0])
    for name, module in kept.items():
        del sys.modules[name]
        package, _, own = name.rpartition(".")
        delattr(importlib.import_module(package), own)
        if module is not None:
            sys.modules[name] = module


@pytest.mark.parametrize(("kind", "backend"), [("cuda", "nccl"), ("cpu", "gloo")])
def test_ranks_meet_over_what_their_device_has(
    torch: MagicMock, distributed: ModuleType, kind: str, backend: str
) -> None:
    """nccl on GPUs, of which each rank takes its own first; gloo on a CPU; one mesh over all."""
    torch.distributed.get_world_size.return_value = 4
    device = SimpleNamespace(type=kind)
    mesh = distributed.join(device)
    torch.distributed.init_process_group.assert_called_once_with(backend)
    torch.distributed.device_mesh.init_device_mesh.assert_called_once_with(kind, (4,))
    assert mesh is torch.distributed.device_mesh.init_device_mesh.return_value
    chosen = [((device,), {})] if kind == "cuda" else []
    assert torch.cuda.set_device.call_args_list == chosen


@pytest.mark.parametrize(
    ("options", "gpu", "asked"),
    [
        ({}, True, ("cuda", 3)),
        ({"device": "cuda"}, True, ("cuda", 3)),
        ({"device": "cpu"}, True, ("cpu",)),
        ({}, False, ("cpu",)),
    ],
)
def test_each_rank_has_a_gpu_of_its_own(
    torch: MagicMock,
    distributed: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    gpu: bool,
    asked: tuple[object, ...],
) -> None:
    """By the number that torchrun gave it; a CPU has no numbers."""
    monkeypatch.setenv("LOCAL_RANK", "3")
    torch.cuda.is_available.return_value = gpu
    distributed.device_of(options)
    torch.device.assert_called_once_with(*asked)


@pytest.mark.parametrize(("columns", "ranks", "more"), [(5, 2, 3), (8, 2, 0), (9, 4, 7)])
def test_context_parallelism_splits_ids_and_positions_alike(
    torch: MagicMock, distributed: ModuleType, columns: int, ranks: int, more: int
) -> None:
    """Both are spread along their columns, filled up to twice the ranks, and handed to the model
    as they are then; the logits come back whole, without what was added."""
    experimental = sys.modules["torch.distributed.tensor.experimental"]
    attention = sys.modules["torch.distributed.tensor.experimental._attention"]
    mesh, run, whole = MagicMock(), MagicMock(), MagicMock()
    mesh.size.return_value = ranks
    attention.context_parallel_unshard.return_value = (whole,)
    ids = MagicMock(shape=(1, columns))
    found = distributed.ring(run, mesh, SimpleNamespace(ids=ids))
    torch.nn.functional.pad.assert_called_once_with(ids, (0, more))
    torch.arange.assert_called_once_with(columns + more, device=torch.nn.functional.pad().device)
    padded, positions = run.call_args.args[0], run.call_args.kwargs["position_ids"]
    experimental.context_parallel.assert_called_once_with(
        mesh,
        buffers=[padded, positions],
        buffer_seq_dims=[1, 1],
        no_restore_buffers={padded, positions},
    )
    attention.context_parallel_unshard.assert_called_once_with(mesh, [run.return_value.logits], [1])
    whole.__getitem__.assert_called_once_with((slice(None), slice(columns)))
    assert found is whole.__getitem__.return_value


def test_ring_attention_is_told_no_mask(distributed: ModuleType) -> None:
    """Every attention layer is causal by itself: what the model built for it is dropped."""
    layer, other = MagicMock(), MagicMock()
    model = MagicMock(supports_context_parallel=True)
    model.named_modules.return_value = [("layers.0.self_attn", layer), ("layers.0.mlp", other)]
    distributed.without_masks(model)
    (drop,) = layer.register_forward_pre_hook.call_args.args
    assert layer.register_forward_pre_hook.call_args.kwargs == {"with_kwargs": True}
    other.register_forward_pre_hook.assert_not_called()
    given = {"attention_mask": "built", "position_ids": "kept"}
    assert drop(layer, ("x",), given) == (
        ("x",),
        {"attention_mask": None, "is_causal": True, "position_ids": "kept"},
    )


def test_a_model_that_ring_attention_cannot_express_is_refused(distributed: ModuleType) -> None:
    """A sliding window or a mask of its own would be lost in silence."""
    with pytest.raises(ValueError, match="ring attention cannot express"):
        distributed.without_masks(MagicMock(supports_context_parallel=False))
