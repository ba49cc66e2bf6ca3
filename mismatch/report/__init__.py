"""Report stage: tables on a terminal, report.md and report.html from a run folder."""

from mismatch.report.html import build

__all__ = ["build"]
