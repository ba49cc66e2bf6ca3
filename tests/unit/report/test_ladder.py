"""The self-test's table on a terminal."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from mismatch.report import ladder


@pytest.mark.parametrize("said", ["[/x] is closed", "of [model.embed] and [bold]b[/bold]"])
def test_what_was_reported_is_text_and_no_markup(said: str) -> None:
    """Brackets in a reason are shown as they are, and break nothing."""
    out = io.StringIO()
    row = {"fault": "NaN", "must": "flagged", "verdict": "missed", "said": said}
    ladder.selftest({"passed": False, "results": [row]}, Console(file=out, width=120))
    assert said in out.getvalue()
