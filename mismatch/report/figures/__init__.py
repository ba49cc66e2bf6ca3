"""Figures for a paper, by name. Importing this imports matplotlib, which takes a second: only what
draws does it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mismatch import store
from mismatch.errors import MismatchError, suggest
from mismatch.report.figures import style, summary, tokens
from mismatch.report.figures.style import save
from mismatch.report.pairs import Pair, lead, pairs_of
from mismatch.report.sequences import read_tokens

__all__ = ["NAMES", "figure", "save"]

#: name -> what it draws.
NAMES = {
    "gap": "k3 of every pair with its interval, beside the floors",
    "hist": "histogram and tails of d",
    "scatter": "the two probabilities of every token",
    "by": "the gap by probability, position, length, entropy, token_type or turn (--by)",
    "drift": "D of every sequence against its length, with the slope",
    "ess": "effective sample size by prefix length",
    "forks": "how long the likeliest tokens of both sides agree",
    "corrections": "what each correction truncates, and the ESS it leaves",
    "waterfall": "share of the gap that each knob owns",
}
_OF_TOKENS = {"hist": tokens.hist, "scatter": tokens.scatter, "drift": tokens.drift}
_OF_A_PAIR = {"ess": summary.ess, "forks": summary.forks, "corrections": summary.corrections}


def figure(
    name: str, root: Path, found: Mapping[str, Any], pair: str | None, by: str | None
) -> Figure:
    """Draw one figure of a run folder.

    found: its checked summary. pair: id of a pair (of an attribution, for waterfall); None: the
    first that has a number. by: what `by` cuts by, default probability.
    """
    if name not in NAMES:
        known = ", ".join(NAMES)
        raise MismatchError(
            "unknown-figure", name=name, known=known, hint_extra=suggest(name, NAMES)
        )
    if by is not None and name != "by":
        raise MismatchError("usage", what=f"--by says nothing to {name}.", todo="Plot by --by KEY.")
    with style.style():
        if name == "waterfall":
            return summary.waterfall(found, pair)
        if name == "gap":
            return summary.gap(_pairs(found, pair))
        one = _one(name, found, pair)
        if name == "by":
            return summary.by(one, by or "probability")
        if name in _OF_A_PAIR:
            return _OF_A_PAIR[name](one)
        read = read_tokens(store.comparison_folder(root, one.id) / "tokens.parquet")
        assert read is not None  # `found` was checked: what it counts in tokens is here
        return _OF_TOKENS[name](one, read)


def _pairs(found: Mapping[str, Any], name: str | None) -> list[Pair]:
    pairs = pairs_of(found)
    chosen = [p for p in pairs if name in (None, p.id)]
    if name is not None and not chosen:
        known = [p.id for p in pairs]
        said = ", ".join(known) or "none"
        raise MismatchError("no-such-pair", pair=name, known=said, hint_extra=suggest(name, known))
    return chosen


def _one(figure: str, found: Mapping[str, Any], name: str | None) -> Pair:
    chosen = _pairs(found, name)
    one = chosen[0] if name is not None else lead(chosen)
    if one is None or not one.tokens:
        what = f"pair {name}" if name else "this folder"
        reason = "no token was compared"
        raise summary.nothing(figure, what, reason, "See preflight DIR for what went wrong.")
    return one
