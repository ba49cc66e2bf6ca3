"""What every verb ends with: traces in a folder -> comparisons, summary and report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mismatch import report
from mismatch.compare.compare import compare


def conclude(
    root: Path, notify: Callable[[dict[str, Any]], None] = lambda event: None
) -> dict[str, Any]:
    """Measure every pair of a run folder and write the report; returns the summary."""
    summary = compare(root, notify)
    notify({"stage": "report"})
    report.build(root)
    return summary
