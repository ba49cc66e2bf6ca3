"""One run folder with a bit of everything: gaps, a failed capture, pairs inside one engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from mismatch import store
from tests.unit.report.runs import HOSTILE, failed_pair, inner_pair, pair, write_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """decode and prefill against train, a failed cell, rollout..decode bit-equal."""
    root = write_run(
        tmp_path / "run", pair("decode"), pair("prefill", 2e-3), failed_pair(HOSTILE), inner_pair()
    )
    named = {"condition": "sglang", "capture": "decode-1"}
    error = {**named, "boundary": "load", "type": "ImportError", "message": HOSTILE}
    store.write_text(root / "failed" / "sglang" / "decode-1" / "error.json", store.dump_json(error))
    return root
