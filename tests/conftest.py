"""Fixtures that every folder of tests may use."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import known

# A machine that is shared is slow at times: that says nothing of what a test holds.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# make fuzz: so many inputs for each test of tests/fuzz.
INPUTS = int(os.environ.get("INPUTS", "10000"))
settings.register_profile("fuzz", settings.get_profile("shared"), max_examples=INPUTS)
settings.load_profile("shared")


def pytest_configure() -> None:
    """Of several workers each keeps to its share of the cores, and so does every engine it starts:
    two engines with threads on every core spin on each other's.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")  # gw0, gw1
    if worker:
        cores = sorted(os.sched_getaffinity(0))
        share = cores[int(worker[2:]) :: int(os.environ["PYTEST_XDIST_WORKER_COUNT"])]
        os.sched_setaffinity(0, share or cores)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """How many inputs the fuzz tests tried, by kind."""
    tried: Counter[str] = Counter()
    reports = [r for found in terminalreporter.stats.values() for r in found]
    for report in (r for r in reports if getattr(r, "when", None) == "call"):
        for kind, count in (value for name, value in report.user_properties if name == "tried"):
            tried[kind] += count
    if tried:
        terminalreporter.section("inputs tried")
        for kind, count in sorted(tried.items()):
            terminalreporter.line(f"{count:>8,} {kind}")


@pytest.fixture(scope="session")
def bigram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that is a bigram table in closed form."""
    return known.write_checkpoint(tmp_path_factory.mktemp("known") / "bigram", attention=False)


@pytest.fixture(scope="session")
def attention(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with one attention head that matters."""
    return known.write_checkpoint(tmp_path_factory.mktemp("known") / "attention", attention=True)
