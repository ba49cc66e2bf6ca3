"""A token as a box on a page, with the words of its tooltip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from mismatch.report.words import number


@dataclass(frozen=True, slots=True)
class Token:
    """One box: what is written, its CSS class, and the words of its tooltip."""

    text: str
    shade: str
    about: Markup
    breaks: bool


def lines(said: list[str]) -> Markup:
    """Line breaks that survive an attribute; escapes each line."""
    return Markup("&#10;").join(said)


def probability(lp: float) -> str:
    """A log-probability in nats, and what it is the log of."""
    if not np.isfinite(lp):
        return f"ln p = {lp}"
    return f"p = {number(float(np.exp(lp)))} (ln p = {lp + 0.0:.4g})"
