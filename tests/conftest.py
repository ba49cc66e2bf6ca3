"""Fixtures that every folder of tests may use."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import known

# A machine that is shared is slow at times: that says nothing of what a test holds.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")


@pytest.fixture(scope="session")
def bigram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that is a bigram table in closed form."""
    return known.write_checkpoint(tmp_path_factory.mktemp("known") / "bigram", attention=False)


@pytest.fixture(scope="session")
def attention(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with one attention head that matters."""
    return known.write_checkpoint(tmp_path_factory.mktemp("known") / "attention", attention=True)
