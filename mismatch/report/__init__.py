"""Report stage: tables on a terminal, report.md and report.html from a run folder."""

from mismatch.report.html import build
from mismatch.report.retokenize import build_retokenize

__all__ = ["build", "build_retokenize"]
