"""What the self-test takes for a finding, and what it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mismatch.errors import MismatchError
from mismatch.selftest import exhibit, run
from mismatch.selftest.captures import Setup
from mismatch.selftest.exhibit import Exhibit, shown


def _pair(left_ids: tuple[np.ndarray, ...] | None) -> Exhibit:
    ids = tuple(np.arange(k, k + 9, dtype=np.int32) for k in range(4))
    scored = tuple(np.arange(9) > 2 for _ in ids)
    values = tuple(np.full(9, -1.0, np.float32) for _ in ids)
    about: dict[str, Any] = {"condition": "toy", "path": "score", "capture": "score-1", "facts": {}}
    right = {**about, "path": "prefill", "capture": "prefill-1"}
    return Exhibit(ids, scored, values, values, about, right, {"sampled_by": None}, left_ids, None)


def test_only_pairs_that_are_not_comparable_are_a_finding_in_the_place_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another id in the prompt is `template`; a file that broke under `shown/template` is no
    finding, and must not be read as one.
    """
    other = tuple(np.append(ids[:1] + 1, ids[1:]).astype(np.int32) for ids in _pair(None).ids)
    (row,) = shown(_pair(other), tmp_path / "shown" / "template")["preflight"]
    assert row["fault"] == "template"

    def broken(root: Path) -> Any:
        raise MismatchError("artifact-changed", file=root / "summary.json", reason="test")

    monkeypatch.setattr(exhibit, "compare", broken)
    with pytest.raises(MismatchError, match="was changed"):
        shown(_pair(other), tmp_path / "shown" / "template")


def test_one_rollout_is_too_few_and_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sequences cannot change places where there is one."""
    monkeypatch.setattr(run, "take", lambda *_: None)
    monkeypatch.setattr(run, "exhibit", lambda *_: _pair(None).only([0]))
    setup = Setup(tmp_path, tmp_path, "hf", "vllm", 1, True)
    with pytest.raises(MismatchError, match="two rollouts"):
        run.run(setup, tmp_path, lambda event: None)
