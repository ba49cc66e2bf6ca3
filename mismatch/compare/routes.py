"""Which experts the two sides sent the same token to, where both captured their routes.

The value of the token at t was made by the routes of the positions before it; what is compared with
it is the route at t - 1, the position whose output it is. An order of experts is no route: sets are
compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import store
from mismatch.compare.align import Tokens
from mismatch.compare.distribution import measure_distribution

#: The share of common experts by chance from which on agreement beyond it says nothing.
MOST_CHANCE = 0.9
#: What is said of the tokens whose routes all agree, and of the others.
OF_TOKENS = ("abs_logprob_diff_mean", "k3")


def read_routes(folder: Path, tokens: Tokens) -> np.ndarray | None:
    """(n, L, K) experts at the position before each of a trace's n scored tokens; None where routes
    were not captured. Position 0 is never scored, so that every scored token has one before it.
    """
    whole = store.read_routes(folder / store.ROUTES)
    return None if whole is None else whole[np.flatnonzero(tokens.scored) - 1]


def shared(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """(n, L) how many experts of (n, L, K) both sides chose; -1 where a side has no route."""
    known = (left >= 0).all(axis=2) & (right >= 0).all(axis=2)
    both = (left[..., :, None] == right[..., None, :]).any(axis=3).sum(axis=2)
    return np.where(known, both, -1)


def beyond_chance(left: np.ndarray, right: np.ndarray, experts: int) -> float:
    """How much more two sides share, of one layer's (n, K) routes, than sides that choose as often
    but independently: 1 for equal sets, 0 for chance. NaN where chance itself shares MOST_CHANCE
    or more: there a few tokens move it from one end to the other.

    Cohen's kappa ("A coefficient of agreement for nominal scales", 1960) with the share of common
    experts in the place of the share of equal labels.
    """
    n, k = left.shape
    use = [np.bincount(side.ravel(), minlength=experts)[:experts] / n for side in (left, right)]
    chance = float((use[0] * use[1]).sum() / k)
    seen = float(shared(left[:, None], right[:, None]).mean() / k)
    return (seen - chance) / (1 - chance) if chance < MOST_CHANCE else float("nan")


def measure_routes(
    sequence: np.ndarray,
    d: np.ndarray,
    left: np.ndarray | None,
    right: np.ndarray | None,
    *,
    seed: int,
) -> dict[str, Any]:
    """The element `routes` of a pair; nothing where a side captured none, or of another shape.

    sequence, d: (n,) of the scored tokens, d in nats. left, right: (n, L, K) of the same tokens.
    """
    if left is None or right is None or left.shape != right.shape:
        return {}
    _, layers, k = left.shape
    common = shared(left, right)
    known = np.all(common >= 0, axis=1)
    if not known.any():
        return {}
    flips = np.where(known[:, None], common < k, np.nan)
    agree = np.all(common == k, axis=1)
    finite = np.isfinite(d)
    groups = {"agree": known & finite & agree, "differ": known & finite & ~agree}
    experts = int(max(left.max(), right.max())) + 1
    found = {
        "router_flip_rate": flips.mean(axis=1),
        "token_flip_rate": np.where(known, ~agree, np.nan),
        "expert_miss_rate": np.where(known, 1 - common.mean(axis=1) / k, np.nan),
        **{f"layer {layer}": flips[:, layer] for layer in range(layers)},
        **_of_tokens("agree", groups["agree"], d),
        **_of_tokens("differ", groups["differ"], d),
    }
    shares = [key for key in found if not key.endswith(OF_TOKENS)]
    measured = measure_distribution(sequence, found, seed=seed, events=shares)
    return {
        "tokens": int(known.sum()),
        "layers": layers,
        "experts_per_token": k,
        "metrics": {key: measured[key] for key in list(found)[:3]},
        "by_layer": [
            {
                "layer": layer,
                "router_flip_rate": measured[f"layer {layer}"],
                "beyond_chance": _finite(
                    beyond_chance(left[known, layer], right[known, layer], experts)
                ),
            }
            for layer in range(layers)
        ],
        "by_agreement": [
            {
                "routes": name,
                "tokens": int(group.sum()),
                "metrics": {key: measured.get(f"{name} {key}") for key in OF_TOKENS},
            }
            for name, group in groups.items()
        ],
    }


def _of_tokens(name: str, group: np.ndarray, d: np.ndarray) -> Mapping[str, np.ndarray]:
    """|d| and k3 of a group's tokens, NaN at the others'."""
    own = np.where(group, d, np.nan)
    with np.errstate(over="ignore"):  # a mean that overflows is null
        k3 = np.expm1(own) - own
    return {f"{name} {OF_TOKENS[0]}": np.abs(own), f"{name} {OF_TOKENS[1]}": k3}


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def replays(provenance: Mapping[str, Any]) -> str | None:
    """What a side that replayed the other's routes says of it; None where it chose by itself."""
    words = ((provenance.get("facts") or {}).get("routes") or {}).get("replay")
    return str(words) if words else None
