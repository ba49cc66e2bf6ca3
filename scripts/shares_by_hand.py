"""Shares of an attribution computed again from its traces alone, over every order of the knobs.

    .venv/bin/python scripts/shares_by_hand.py OUT

Shares nothing with mismatch.compare.attribute: no weights, no binary lattice. Prints each knob's
share beside the one in summary.json.
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


def shares(root: Path, asked: dict) -> dict[str, float]:
    """knob -> <its step averaged over all orders, d> / <d, d>.

    asked: the attribution in run.json; bit k of a corner's name is the k-th of its knobs.
    """
    corner = {b: values(root, t) for b, t in asked["corners"].items()}
    finite = np.isfinite(np.array(list(corner.values()))).all(axis=0)
    corner = {b: v[finite] for b, v in corner.items()}
    n = len(asked["knobs"])
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
    return {knob: float(x) for knob, x in zip(asked["knobs"], found, strict=True)}


def compared(root: Path) -> dict[str, dict[str, tuple[float, float]]]:
    """Attribution -> knob -> (its share by hand, its share in summary.json)."""
    read = [json.loads((root / name).read_text()) for name in ("run.json", "summary.json")]
    asked, told = ({a["id"]: a for a in each["attributions"]} for each in read)
    found = {}
    for name, one in told.items():
        if one["missing"]:
            continue
        again = shares(root, asked[name])
        said = {k["knob"]: k["share"]["value"] for k in one["knobs"]}
        if set(said) != set(again):
            raise SystemExit(f"{name}: summary.json names the knobs {sorted(said)}")
        found[name] = {knob: (again[knob], said[knob]) for knob in again}
    return found


def main(root: Path) -> None:
    for name, knobs in compared(root).items():
        print(name, "sum", sum(again for again, _ in knobs.values()))
        for knob, (again, said) in knobs.items():
            print(f"  {knob}: {again:.6f} by hand, {said:.6f} in summary.json")
        off = max(abs(again - said) for again, said in knobs.values())
        print("  largest difference from summary.json:", off)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
