"""Fixtures that every folder of tests may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import known


@pytest.fixture(scope="session")
def bigram(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that is a bigram table in closed form."""
    return known.write_checkpoint(tmp_path_factory.mktemp("known") / "bigram", attention=False)


@pytest.fixture(scope="session")
def attention(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with one attention head that matters."""
    return known.write_checkpoint(tmp_path_factory.mktemp("known") / "attention", attention=True)
