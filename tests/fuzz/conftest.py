"""Fuzz tests start no process either, and say how many inputs they tried."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fuzz.fence import TRIED
from tests.unit.conftest import forbid_processes_and_network

__all__ = ["forbid_processes_and_network"]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """What a test tried travels with its report, from whichever worker ran it."""
    TRIED.clear()
    try:
        return (yield)
    finally:
        item.user_properties += [("tried", [kind, n]) for kind, n in TRIED.items()]
