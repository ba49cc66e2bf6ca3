"""Which experts a model's routers choose, and the same experts put in their place.

Read and replaced where the model itself hands them on: a router (transformers' `...TopKRouter`)
returns (logits, weights, indices) of all tokens of a pass, flattened, and the experts are called
with what it returned. A replay is R3's (arXiv 2510.11370): the experts are the rollout's, the
weights are this model's own probabilities at those experts, normalised as the model does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from mismatch import wire
from mismatch.engines.hf.rows import Layout


class Routes:
    """The routers of a model while one capture looks at them.

    wanted: whether the routes are captured. chosen: (rows, columns, L, K) of the pass that is under
    way, -1 where a column was not fed; given: the same of routes to put in, None without a replay.
    tokens, replayed: how many were routed, and how many of them as they were told.
    """

    def __init__(self, model: Any, wanted: bool) -> None:
        self.routers = routers_of(model)
        self.wanted = wanted
        self.tokens = self.replayed = 0
        self.chosen: torch.Tensor | None = None
        self.given: torch.Tensor | None = None
        self._shape: tuple[int, ...] | None = None  # of the pass under way; None between two
        self._column = [0] * len(self.routers)
        self._normed: dict[int, bool] = {}
        self._hooks = [
            router.register_forward_hook(partial(self._saw, layer))
            for layer, router in enumerate(self.routers)
        ]

    def remove(self) -> None:
        """The model is as it was."""
        for hook in self._hooks:
            hook.remove()

    def begin(self, layout: Layout, given: Sequence[np.ndarray] | None) -> None:
        """Before a pass over these rows. given: (n, L, K) routes to replay, by sequence."""
        self._column = [0] * len(self.routers)
        self._shape = tuple(layout.ids.shape)
        self.chosen, self.given = None, None
        if given is None:
            return
        self.given = self._blank(given[0].shape[2])
        for (row, start), routes in zip(layout.places, given, strict=True):
            if routes.shape[1] != len(self.routers):
                raise ValueError(
                    f"replay_routes: routes of {routes.shape[1]} layers were given, and this model "
                    f"has {len(self.routers)} routers"
                )
            own = torch.from_numpy(np.ascontiguousarray(routes))
            self.given[row, start : start + len(routes)] = own

    def fill(self, values: Sequence[wire.Values], layout: Layout) -> list[wire.Values]:
        """The values with the routes of the pass that has ended."""
        self._shape = None
        if not self.wanted:
            return list(values)
        if self.chosen is None:
            raise ValueError("routes: no router ran")
        chosen = self.chosen.numpy()
        return [
            replace(one, routes=chosen[row, start : start + n].copy())
            for one, (row, start), n in zip(values, layout.places, layout.lengths, strict=True)
        ]

    def _blank(self, experts: int) -> torch.Tensor:
        assert self._shape is not None
        return torch.full((*self._shape, len(self.routers), experts), -1, dtype=torch.int16)

    def _saw(self, layer: int, router: Any, _: Any, output: Any) -> Any:
        """A router's answer is noted; where routes are replayed, it is answered in its place."""
        if self._shape is None:
            return None  # a probe of the model, no pass of the capture
        logits, weights, chosen = _answer(router, output)
        rows = self._shape[0]
        width = len(chosen) // rows
        columns = slice(self._column[layer], self._column[layer] + width)
        self._column[layer] = columns.stop
        if self.given is not None:
            told = self.given[:, columns, layer].reshape(len(chosen), -1).to(chosen)
            if told.shape != chosen.shape:
                raise ValueError(
                    f"replay_routes: {told.shape[1]} experts a token were given, and this model "
                    f"sends one to {chosen.shape[1]}"
                )
            if int(told.max()) >= logits.shape[-1]:
                raise ValueError(
                    f"replay_routes: expert {int(told.max())} was given, and this model has "
                    f"{logits.shape[-1]}"
                )
            weights, chosen = self._replayed(layer, router, logits, weights, chosen, told)
        if self.chosen is None:
            self.chosen = self._blank(chosen.shape[1])
        self.chosen[:, columns, layer] = chosen.reshape(rows, width, -1).to("cpu", torch.int16)
        if layer == 0:
            self.tokens += len(chosen)
        return (logits, weights, chosen) if self.given is not None else None

    def _replayed(
        self, layer: int, router: Any, logits: Any, weights: Any, chosen: Any, told: Any
    ) -> tuple[Any, Any]:
        """The experts that were told, where they were, with this router's weights for them."""
        if layer not in self._normed:
            self._normed[layer] = _normalises(router, logits, weights, chosen)
        there = (told >= 0).all(-1, keepdim=True)
        experts = torch.where(there, told, chosen)
        own = weights_at(logits, experts, self._normed[layer]).to(weights.dtype)
        if layer == 0:
            self.replayed += int(there.sum())
        return torch.where(there, own, weights), experts

    # ------------------------------------------------------------ facts

    def observed(self) -> dict[str, bool]:
        """The options, as far as tokens went that way."""
        return {
            "routes": self.wanted and self.tokens > 0,
            "replay_routes": self.replayed > 0,
        }

    def facts(self) -> dict[str, Any]:
        """How many tokens were routed, and how many of them replayed."""
        seen = {"layers": len(self.routers), "tokens": self.tokens, "replayed": self.replayed}
        if not self.replayed:
            return seen
        words = (
            f"{self.replayed} tokens went to the experts of the rollout, weighted by this model's "
            "own probabilities of them"
        )
        return {**seen, "replay": words}


def routers_of(model: Any) -> list[Any]:
    """The modules that choose experts, in the order of the layers."""
    found = [m for m in model.modules() if type(m).__name__.lower().endswith("topkrouter")]
    if not found:
        raise ValueError(
            f"routes: {type(model).__name__} has no router that this program can read (a module "
            "named ...TopKRouter)"
        )
    return found


def weights_at(logits: torch.Tensor, experts: torch.Tensor, normed: bool) -> torch.Tensor:
    """(n, E) router logits -> (n, K) weights of those experts: softmax over all E in float32, and
    where `normed`, divided by their sum.
    """
    own = torch.softmax(logits, dim=-1, dtype=torch.float).gather(-1, experts.long())
    return own / own.sum(-1, keepdim=True) if normed else own


def _answer(router: Any, output: Any) -> tuple[Any, Any, Any]:
    """(logits, weights, indices), or a sentence where a router answers otherwise."""
    if isinstance(output, tuple) and len(output) == 3:
        chosen = output[2]
        if chosen.ndim == 2 and not chosen.is_floating_point():
            return output
    raise ValueError(f"routes: {type(router).__name__} does not return the experts it chose")


def _normalises(router: Any, logits: Any, weights: Any, chosen: Any) -> bool:
    """Which rule makes the router's own weights, bit for bit; a sentence where neither does."""
    for normed in (True, False):
        if torch.equal(weights_at(logits, chosen, normed).to(weights.dtype), weights):
            return normed
    raise ValueError(
        f"replay_routes: {type(router).__name__} weighs its experts by another rule than their "
        "probabilities, normalised or not"
    )
