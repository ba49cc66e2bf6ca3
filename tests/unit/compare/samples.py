"""Pairs made by hand, and noisy ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mismatch.compare.metrics import Aligned


def aligned(lp_train: Any, lp_infer: Any, lengths: Sequence[int], first: int = 7) -> Aligned:
    """Tokens in sequences of these lengths, with ids 3, 5, 7, ... and positions from `first`."""
    return Aligned(
        np.repeat(3 + 2 * np.arange(len(lengths)), lengths).astype(np.int32),
        np.array([first + k for n in lengths for k in range(n)], np.int32),
        np.asarray(lp_train, np.float32),
        np.asarray(lp_infer, np.float32),
    )


def of_d(d: Any, lengths: Sequence[int]) -> Aligned:
    """lp_infer -1 everywhere, and lp_train -1 + d."""
    d = np.asarray(d, np.float32)
    return aligned(d - 1, np.full(len(d), -1.0), lengths)


def noisy(seed: int, sequences: int = 30, tokens: int = 20, size: float = 0.05) -> Aligned:
    """Tokens with heavy tails that are correlated within their sequence."""
    rng = np.random.default_rng(seed)
    scale = np.repeat(size * rng.gamma(4, 0.25, sequences), tokens)
    lp_infer = -np.random.default_rng(0).exponential(size=sequences * tokens)
    d = scale * rng.standard_t(5, size=len(scale))
    return aligned(lp_infer + d, lp_infer, [tokens] * sequences)
