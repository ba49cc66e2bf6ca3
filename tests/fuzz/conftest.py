"""Fuzz tests start no process either, and say how many inputs they tried."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from mismatch.compare import attribute, distribution, metrics
from mismatch.report import html
from tests.fuzz.fence import TRIED
from tests.unit.conftest import forbid_processes_and_network

__all__ = ["forbid_processes_and_network"]

_environment = functools.cache(html._environment)


@pytest.fixture(autouse=True)
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few resamples, and the page's template compiled once: neither is what is fuzzed, and both
    are most of an input's time.
    """
    slow_ones = (metrics.measure, metrics.breakdowns, attribute.attribute)
    for slow in (*slow_ones, distribution.measure_distribution):
        monkeypatch.setitem(slow.__kwdefaults__, "resamples", 100)
    monkeypatch.setattr(html, "_environment", _environment)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """What a test tried travels with its report, from whichever worker ran it."""
    TRIED.clear()
    try:
        return (yield)
    finally:
        item.user_properties += [("tried", [kind, n]) for kind, n in TRIED.items()]
