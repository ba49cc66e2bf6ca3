"""Facts about a guest's process."""

from __future__ import annotations

import pytest

from mismatch.engines import observe


def test_switches_are_read_and_secrets_and_places_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """What steers kernels is a fact; a key, a token or a cache's path is not."""
    for name in ("VLLM_API_KEY", "VLLM_AUTH_TOKEN", "TORCHINDUCTOR_CACHE_DIR", "HOME"):
        monkeypatch.setenv(name, "hidden")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    found = observe.read_switches()
    assert found["OMP_NUM_THREADS"] == "2" and "hidden" not in found.values()


def test_versions_of_what_is_absent_are_left_out() -> None:
    """Python is always there; a distribution that is not installed has no version."""
    found = observe.versions(("numpy", "no-such-distribution"))
    assert set(found) == {"python", "numpy"}
