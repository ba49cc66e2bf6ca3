"""The guest's loop, as far as no engine is needed."""

from __future__ import annotations

import pytest

from mismatch.engines.guest import _to_make


@pytest.mark.parametrize(
    ("finished", "calls"),
    [
        (set(), [0, 1, 2, 3]),
        ({0}, [1, 2, 3]),
        ({0, 1, 2}, [0, 3]),
        ({3}, [0, 1, 2, 3]),
        ({0, 1, 2, 3}, [0, 3]),
    ],
)
def test_a_resume_shows_every_shape_of_the_capture(finished: set[int], calls: list[int]) -> None:
    """Three calls of four sequences and a last one of one: facts are of what ran, so a size that
    only an earlier process ran is run once more."""
    groups = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12]]
    assert _to_make(groups, finished) == calls
