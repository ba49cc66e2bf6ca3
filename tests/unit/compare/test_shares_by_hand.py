"""The script that checks an attribution holds each knob's share against that knob's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mismatch.compare.compare import compare
from mismatch.model import make_corpus
from tests.unit.compare.folders import load_script, run_folder

CORPUS = make_corpus([(np.arange(30), None) for _ in range(3)])


@pytest.fixture
def script() -> Any:
    return load_script("shares_by_hand")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An attribution of two knobs, measured by the package on traces drawn at random."""
    corners = {bits: f"c{bits}/score-1" for bits in ("00", "01", "10", "11")}
    run_folder(tmp_path, CORPUS, {trace: {} for trace in corners.values()}, [])
    run = json.loads((tmp_path / "run.json").read_text())
    one = {"id": "why", "knobs": ["dtype", "batch"], "left": "c00", "right": "c11"}
    run["attributions"] = [{**one, "corners": corners}]
    (tmp_path / "run.json").write_text(json.dumps(run))
    compare(tmp_path)
    return tmp_path


def test_both_computations_agree_on_every_knob(script: Any, root: Path) -> None:
    """Over all orders by hand, and by the package's weights: one share a knob."""
    found = script.compared(root)["why"]
    assert set(found) == {"dtype", "batch"} and found["dtype"] != found["batch"]
    for again, said in found.values():
        assert again == pytest.approx(said, abs=1e-9)


def test_two_swapped_knobs_do_not_agree(script: Any, root: Path) -> None:
    """The same shares under each other's names are no agreement."""
    summary = json.loads((root / "summary.json").read_text())
    one, other = summary["attributions"][0]["knobs"]
    one["knob"], other["knob"] = other["knob"], one["knob"]
    (root / "summary.json").write_text(json.dumps(summary))
    for again, said in script.compared(root)["why"].values():
        assert again != pytest.approx(said, abs=1e-3)
