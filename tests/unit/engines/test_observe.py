"""Facts about a guest's process."""

from __future__ import annotations

import pytest

from mismatch.engines import observe
from mismatch.engines.base import visible_gpus


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


@pytest.mark.parametrize(
    ("named", "usable"),
    [(None, 8), ("", 0), ("-1", 0), ("2,5", 2), ("0, 1,2", 3), ("1,9,2", 1), ("GPU-8f", 1)],
)
def test_gpus_that_are_hidden_are_not_counted(
    monkeypatch: pytest.MonkeyPatch, named: str | None, usable: int
) -> None:
    """CUDA_VISIBLE_DEVICES decides, up to its first device that does not exist."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if named is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", named)
    assert visible_gpus(8) == usable
