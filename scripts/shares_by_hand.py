"""Shares of an attribution computed again from its traces alone, over every order of the knobs.

    .venv/bin/python scripts/shares_by_hand.py OUT

Shares nothing with mismatch.compare.attribute: no weights, no binary lattice. Prints each share
beside the one in summary.json.
"""

from __future__ import annotations

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq


def values(root: Path, trace: str) -> np.ndarray:
    """The log-probabilities of a trace, NaN where a token is not scored."""
    column = pq.read_table(root / "traces" / trace / "tokens.parquet")["logprob"]
    return np.array([np.nan if v is None else v for v in column.to_pylist()], np.float64)


def shares(root: Path, attribution: dict, knobs: list[str]) -> dict[str, float]:
    """knob -> <its step averaged over all orders, d> / <d, d>. knobs: in the order of the bits."""
    corner = {b: values(root, t) for b, t in attribution["corners"].items()}
    finite = np.isfinite(np.array(list(corner.values()))).all(axis=0)
    corner = {b: v[finite] for b, v in corner.items()}
    n = len(next(iter(corner)))
    d = corner["0" * n] - corner["1" * n]
    orders = list(itertools.permutations(range(n)))
    found = np.zeros(n)
    for order in orders:
        at = ["0"] * n
        for knob in order:
            before = corner["".join(at)]
            at[knob] = "1"
            found[knob] += np.dot(before - corner["".join(at)], d)
    found /= len(orders) * np.dot(d, d)
    return dict(zip(knobs, found.tolist(), strict=True))


def main(root: Path) -> None:
    run, summary = (json.loads((root / f).read_text()) for f in ("run.json", "summary.json"))
    bits = {asked["id"]: asked["knobs"] for asked in run["attributions"]}
    for attribution in summary["attributions"]:
        told = {k["knob"]: k["share"]["value"] for k in attribution["knobs"]}
        again = shares(root, attribution, bits[attribution["id"]])
        print(attribution["id"], again, "sum", sum(again.values()))
        off = max(abs(again[knob] - told[knob]) for knob in again)
        print("  largest difference from summary.json:", off)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
