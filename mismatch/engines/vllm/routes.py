"""Which experts each token of each request was sent to; runs in a rank of vllm.

vllm's routers hand the experts that they chose to a function, where one is set
(`set_capture_fn`), in the order of the step's flat tokens. The batch says whose they are.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from vllm.model_executor.layers.fused_moe.router.base_router import (  # type: ignore[import-not-found]
    BaseRouter,
)


class RouteTap:
    """One process's record of a capture.

    shape: (L, K) of the routers. requests: id -> (n, L, K) int16 of its positions so far, in
    pieces. tokens: of the whole capture.
    """

    def __init__(self, runner: Any) -> None:
        self.runner, self.routers = runner, routers_of(runner.get_model())
        self.shape = (len(self.routers), _experts_per_token(runner))
        self.tokens = 0
        self.forget()
        for layer, router in enumerate(self.routers):
            router.set_capture_fn(partial(self.saw, layer))

    def remove(self) -> None:
        """The routers are as they were."""
        for router in self.routers:
            router.set_capture_fn(None)

    def forget(self) -> None:
        """Before an engine call, which starts from an empty prefix cache."""
        self.requests: dict[str, list[np.ndarray]] = {}
        self._stops: dict[str, int] = {}  # where each request's routes end so far
        self._owners: dict[int, str] = {}  # KV block -> a request that filled it
        self._step: list[np.ndarray] = []

    def saw(self, layer: int, experts: Any) -> None:
        """(tokens of the step or more, K) expert ids that one layer's router chose."""
        if layer == 0:
            self._step = []
        self._step.append(experts.detach().cpu().numpy().astype(np.int16))
        if layer == len(self.routers) - 1:
            self._keep(np.stack(self._step, axis=1))

    def _keep(self, routes: np.ndarray) -> None:
        """(T, L, K) of one step, to the requests it was made of."""
        batch = self.runner.input_batch
        ends = self.runner.query_start_loc.np[: len(batch.req_ids) + 1].tolist()
        if len(routes) < ends[-1]:
            raise RuntimeError(f"{len(routes)} routes of the {ends[-1]} tokens of a step were seen")
        self.tokens += ends[-1]
        starts = batch.num_computed_tokens_cpu[: len(batch.req_ids)].tolist()
        # A request may find a block that another fills in this step: that one starts before it.
        for row in sorted(range(len(starts)), key=starts.__getitem__):
            name, start = batch.req_ids[row], int(starts[row])
            blocks = batch.block_table[0]
            if name not in self.requests:
                self.requests[name] = self._cached(blocks, row, start)
                self._stops[name] = start
            if self._stops[name] != start:
                raise RuntimeError(f"routes of positions before {start} were not seen")
            self.requests[name].append(routes[ends[row] : ends[row + 1]])
            stop = self._stops[name] = start + ends[row + 1] - ends[row]
            table = blocks.get_numpy_array()[row]
            for at in range(start // blocks.block_size, -(-stop // blocks.block_size)):
                self._owners[int(table[at])] = name

    def _cached(self, blocks: Any, row: int, start: int) -> list[np.ndarray]:
        """Of positions that a request found in the prefix cache, the routes of who computed them:
        a shared block stands at one place in every sequence that has it.
        """
        table, size, pieces = blocks.get_numpy_array()[row], blocks.block_size, []
        for first in range(0, start, size):
            owner = self._owners.get(int(table[first // size]))
            if owner is None:
                raise RuntimeError("a cached prefix was used whose routes were not seen")
            self.requests[owner] = [np.concatenate(self.requests[owner])]
            pieces.append(self.requests[owner][0][first : min(first + size, start)])
        return pieces


def routers_of(model: Any) -> list[BaseRouter]:
    """The modules that choose experts, in the order of the layers."""
    layers = [m for m in model.modules() if isinstance(getattr(m, "router", None), BaseRouter)]
    if not layers:
        raise ValueError(f"routes: {type(model).__name__} has no router that vllm shows")
    if any(layer.routed_experts.quant_method.is_monolithic for layer in layers):
        raise ValueError("routes: the kernel of this model's experts chooses them by itself")
    return [layer.router for layer in sorted(layers, key=lambda layer: int(layer.layer_id))]


def _experts_per_token(runner: Any) -> int:
    return int(runner.model_config.get_num_experts_per_tok())


# ---------------------------------------------------------------- called in every rank's process


def watch(worker: Any, wanted: bool) -> tuple[int, int] | None:
    """Before a capture: (L, K) of the routers that are read from now on; None where none is. All
    ranks of tp choose alike, and the first tells.
    """
    runner = worker.model_runner
    tap = getattr(runner, "mismatch_routes", None)
    if tap is not None:
        tap.remove()
    runner.mismatch_routes = RouteTap(runner) if wanted and worker.rank == 0 else None
    return runner.mismatch_routes.shape if runner.mismatch_routes else None


def forget(worker: Any) -> None:
    """Before an engine call."""
    if worker.model_runner.mismatch_routes:
        worker.model_runner.mismatch_routes.forget()


def taken(worker: Any) -> dict[str, np.ndarray]:
    """After an engine call: request id -> (n, L, K) of the positions that were run."""
    tap = worker.model_runner.mismatch_routes
    return {name: np.concatenate(pieces) for name, pieces in tap.requests.items()} if tap else {}


def noted(worker: Any) -> dict[str, int]:
    """After a capture: what was read of which routers."""
    tap = worker.model_runner.mismatch_routes
    return {"layers": tap.shape[0], "tokens": tap.tokens} if tap else {}
