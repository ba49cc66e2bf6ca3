"""The cells of the study, one file each: trials of `measure` and of the gate against the truth."""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.coverage.draws import SETTINGS, TAILS, gap_and_floors, truth
from mismatch import gate
from mismatch.compare import metrics, stats, trust

ROOT = Path(__file__).parents[2]
TRIALS, SEQUENCES = 2000, (8, 20, 50, 200)
PROCESSES = 2
ASKED = ("k1", "k2", "k3", "abs_logprob_diff_mean")
KEYS = (*ASKED, "excess.k2", "excess.k3")


@dataclass(frozen=True, slots=True)
class Cell:
    """One set of trials, with every number in it reproducible from these fields."""

    setting: str
    tail: str
    sequences: int
    trials: int = TRIALS

    @property
    def name(self) -> str:
        return f"{self.setting.replace(' ', '-')}-{self.tail}-{self.sequences}"


def cells() -> list[Cell]:
    """What is promised first. Heavy sequences of a normal tail are the strong setting: left out."""
    order = ("strong", "weak", "sizes", "heavy sequences", "sparse floors")
    return [
        Cell(setting, tail, sequences)
        for setting, tail, sequences in itertools.product(order, TAILS, SEQUENCES)
        if not (SETTINGS[setting].heavy and tail == "normal")
    ]


# ---------------------------------------------------------------- one trial


def trial(cell: Cell, true: Mapping[str, float], number: int) -> Counter[str]:
    """What happened, as counts of 1: `k3 above` is the interval above the truth."""
    kinds = (list(SETTINGS).index(cell.setting), TAILS.index(cell.tail))
    rng = np.random.default_rng([*kinds, cell.sequences, number])
    gap, floors = gap_and_floors(cell.tail, SETTINGS[cell.setting], cell.sequences, rng)
    found = metrics.measure(gap, floors, seed=number, keys=ASKED)
    entries = {**found.metrics, **{f"excess.{k}": e for k, e in (found.excess or {}).items()}}
    counts: Counter[str] = Counter()
    for key in KEYS:
        counts.update(f"{key} {event}" for event in _events(entries[key], true[key]))
    counts.update(f"{r['key']} {r['verdict']}" for r in _judged(found, true))
    return counts


def _events(entry: Mapping[str, Any], true: float) -> list[str]:
    """An open end misses nothing."""
    low, high = entry["low"], entry["high"]
    above = low is not None and low > true
    below = high is not None and high < true
    said = ["above"] * above + ["below"] * below
    if entry.get("trusted") is False:
        return [*said, "marked", *(f"marked {s}" for s in said)]
    return said


def _judged(found: metrics.Measured, true: Mapping[str, float]) -> list[dict[str, Any]]:
    """The gate's own verdicts, each limit exactly at the truth."""
    pair = {"id": "trial", "kind": "train-infer", "preflight": []}
    pair |= {f.name: getattr(found, f.name) for f in fields(found)}
    rules = [
        gate.Rule(key.removeprefix("excess."), "max", abs(true[key]), key.startswith("excess."))
        for key in KEYS
    ]
    judged: list[dict[str, Any]] = gate.judge({"pairs": [pair]}, rules)["rules"]
    return judged


# ---------------------------------------------------------------- one cell


def run_cell(cell: Cell, pool: Any) -> dict[str, Any]:
    """The cell's counts over all trials; equal for any number of processes."""
    true = truth(cell.tail, SETTINGS[cell.setting])
    counts: Counter[str] = Counter()
    for one in pool.imap_unordered(partial(trial, cell, true), range(cell.trials), chunksize=20):
        counts += one
    return {
        "cell": asdict(cell),
        "code": code(),
        "truth": true,
        "counts": {key: counts[key] for key in sorted(counts)},
    }


def code() -> str:
    """sha256 of the files whose change makes a kept cell another study's."""
    files = [Path(m.__file__) for m in (stats, trust)] + [
        Path(__file__),
        Path(__file__).with_name("draws.py"),
    ]
    return hashlib.sha256(b"".join(f.read_bytes() for f in files)).hexdigest()


def kept(cell: Cell, folder: Path) -> dict[str, Any] | None:
    """The cell's result of an earlier run of the same code."""
    path = folder / f"{cell.name}.json"
    found = json.loads(path.read_text()) if path.is_file() else {}
    same = found.get("cell") == asdict(cell) and found.get("code") == code()
    return found if same else None


def run(folder: Path) -> list[dict[str, Any]]:
    """All cells; those that are in `folder` already are not taken again."""
    folder.mkdir(parents=True, exist_ok=True)
    with multiprocessing.Pool(PROCESSES, initializer=os.nice, initargs=(2,)) as pool:
        return [_taken(cell, folder, pool) for cell in cells()]


def _taken(cell: Cell, folder: Path, pool: Any) -> dict[str, Any]:
    found = kept(cell, folder)
    if found is None:
        found = run_cell(cell, pool)
        (folder / f"{cell.name}.json").write_text(json.dumps(found, indent=1) + "\n")
        print(f"coverage: {cell.name}", flush=True)
    return found
