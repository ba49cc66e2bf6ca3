"""Report stage: tables on a terminal, report.md and report.html from a run folder, junit.xml."""

from mismatch.report.html import build
from mismatch.report.junit import UNFINISHED, junit_xml
from mismatch.report.retokenize import build_retokenize

__all__ = ["UNFINISHED", "build", "build_retokenize", "junit_xml"]
