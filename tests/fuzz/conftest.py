"""Fuzz tests start no process either, and say how many inputs they tried."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

from mismatch.capture import environment, launch, run
from mismatch.compare import attribute, breakdowns, corrections, distribution, metrics
from mismatch.report import html, retokenize
from tests.fuzz.fence import TRIED
from tests.unit.conftest import forbid_processes_and_network

__all__ = ["forbid_processes_and_network"]

_environment = functools.cache(html.environment)


@pytest.fixture(scope="module", autouse=True)
def cheap() -> Iterator[None]:
    """Few resamples, and the page's template compiled once: neither is what is fuzzed, and both
    are most of an input's time.
    """
    slow_ones = (
        metrics.measure,
        breakdowns.breakdowns,
        corrections.corrections,
        corrections.ess_by_length,
        attribute.attribute,
        distribution.measure_distribution,
    )
    with pytest.MonkeyPatch.context() as patch:
        for slow in slow_ones:
            patch.setitem(slow.__kwdefaults__, "resamples", 100)
        for page in (html, retokenize):
            patch.setattr(page, "environment", _environment)
        yield


@pytest.fixture
def no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every engine is there, and dies as soon as it is started: no process is."""
    dead = launch.Failure("launch", "Fuzz", "no engine\x1b[31m is started here")
    there = Path("/nowhere/python"), {"numpy": "2"}
    monkeypatch.setattr(environment, "interpreter", lambda engine, condition: there)
    monkeypatch.setattr(run, "_guest", lambda *given: dead)
    monkeypatch.setattr(environment, "build", lambda engine, say: there[0])
    fine = environment.Status("toy", "", True, "/nowhere/python", "named", {}, "", "")
    monkeypatch.setattr(environment, "status", lambda engine: fine)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """What a test tried travels with its report, from whichever worker ran it."""
    TRIED.clear()
    try:
        return (yield)
    finally:
        item.user_properties += [("tried", [kind, n]) for kind, n in TRIED.items()]
