"""The gap by what a token is and where it stands: each bin measured as a pair of its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from mismatch.compare.metrics import Aligned, measure
from mismatch.compare.stats import begins
from mismatch.kinds import KINDS, kind_of

PROB_EDGES = tuple(float(np.float32(math.log(p))) for p in (0.01, 0.1, 0.5, 0.9, 0.99))
PROB_BINS = ("[0, 0.01)", "[0.01, 0.1)", "[0.1, 0.5)", "[0.5, 0.9)", "[0.9, 0.99)", "[0.99, 1]")
TOKEN_EDGES = (16, 64, 256, 1024, 4096)
TOKEN_BINS = ("1-15", "16-63", "64-255", "256-1023", "1024-4095", "4096+")
POSITION_BINS = ("0-15", *TOKEN_BINS[1:])
ENTROPY_EDGES = (0.01, 0.1, 0.5, 1.0, 2.0)
ENTROPY_BINS = ("[0, 0.01)", "[0.01, 0.1)", "[0.1, 0.5)", "[0.5, 1)", "[1, 2)", "2+")
#: Turns of a sequence that have a bin of their own.
TURNS = 8
KEYS = ("abs_logprob_diff_mean", "logprob_diff_mean", "k3", "abs_logprob_diff_max")

#: Bin of each token, -1 for none, and the bins' names.
Cut = tuple[np.ndarray, tuple[str, ...]]


def breakdowns(
    gap: Aligned,
    *,
    entropy: np.ndarray | None = None,
    kinds: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> dict[str, list[dict[str, Any]]]:
    """by -> rows {bin, tokens, metrics} of the bins that have tokens.

    infer_prob: of the token. position: counted from its sequence's first scored token. length:
    scored tokens of its sequence. entropy: (n,) nats, NaN where unknown. token_type: kinds, (n,)
    indices into KINDS. turn: contiguous scored stretches, where a sequence has several. Intervals
    are over the sequences that have a token in the bin.
    """
    finite = np.isfinite(gap.lp_train) & np.isfinite(gap.lp_infer)
    rows: dict[str, list[dict[str, Any]]] = {}
    for by, (bins, names) in _cuts(gap, entropy, kinds):
        present = np.unique(bins[finite & (bins >= 0)])
        rows[by] = [_row(gap, names[k], finite & (bins == k), seed, resamples) for k in present]
    return rows


def _cuts(
    gap: Aligned, entropy: np.ndarray | None, kinds: np.ndarray | None
) -> Iterator[tuple[str, Cut]]:
    starts = begins(gap.sequence)
    lengths = np.diff(starts, append=len(gap.sequence))
    first = np.repeat(gap.position[starts], lengths)
    yield "infer_prob", _binned(gap.lp_infer, PROB_EDGES, PROB_BINS)
    yield "position", _binned(gap.position - first, TOKEN_EDGES, POSITION_BINS)
    yield "length", _binned(np.repeat(lengths, lengths), TOKEN_EDGES, TOKEN_BINS)
    if entropy is not None:
        bins, names = _binned(entropy, ENTROPY_EDGES, ENTROPY_BINS)
        yield "entropy", (np.where(np.isfinite(entropy), bins, -1), names)
    if kinds is not None:
        yield "token_type", (kinds, KINDS)
    turns = _turns(gap, starts, lengths)
    if np.any(turns > 0):
        names = (*(str(k + 1) for k in range(TURNS)), f"{TURNS + 1}+")
        yield "turn", (np.minimum(turns, TURNS), names)


def _binned(x: np.ndarray, edges: tuple[float, ...], names: tuple[str, ...]) -> Cut:
    return np.searchsorted(edges, x, side="right"), names


def _turns(gap: Aligned, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """(n,) 0 in a sequence's first contiguous scored stretch, 1 in its second."""
    breaks = np.diff(gap.position, prepend=gap.position[:1] - 1) != 1
    breaks[starts] = False
    so_far = np.cumsum(breaks)
    return np.asarray(so_far - np.repeat(so_far[starts], lengths))


def _row(gap: Aligned, name: str, at: np.ndarray, seed: int, resamples: int) -> dict[str, Any]:
    part = Aligned(gap.sequence[at], gap.position[at], gap.lp_train[at], gap.lp_infer[at])
    found = measure(part, {}, seed=seed, resamples=resamples, keys=KEYS)
    return {"bin": name, "tokens": found.tokens, "metrics": found.metrics}


def kinds_of(token_id: np.ndarray, texts: Mapping[str, str]) -> np.ndarray:
    """(n,) ids -> indices into KINDS, -1 where the text is not known."""
    ids, at = np.unique(token_id, return_inverse=True)
    known = [kind_of(texts[str(k)]) if str(k) in texts else -1 for k in ids.tolist()]
    return np.array(known, int)[at]
