"""Whether two traces are of one distribution, as their provenance tells."""

from __future__ import annotations

from typing import Any

import pytest

from mismatch.compare.semantics import sampling_check


def _trace(**scored_as: float) -> dict[str, Any]:
    return {"facts": {"scored_as": scored_as}}


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (_trace(), _trace()),
        (_trace(temperature=0.6), _trace(temperature=0.6, top_p=1.0, top_k=-1, min_p=0.0)),
        (_trace(top_k=0), _trace(top_k=-1)),
        ({"facts": {}}, _trace(temperature=0.6)),
        ({}, _trace(temperature=0.6)),
    ],
)
def test_one_distribution_or_an_unknown_one_is_no_failure(left: Any, right: Any) -> None:
    """Neutral settings may be stated or not; a dump that does not say is not accused."""
    assert sampling_check(left, right) is None


def test_values_of_two_distributions_fail_and_name_what_differs() -> None:
    """Raw against processed at T = 0.6 with a penalty: both are in the evidence."""
    found = sampling_check(_trace(), _trace(temperature=0.6, repetition_penalty=1.1, top_p=1.0))
    assert found is not None
    assert (found["rung"], found["verdict"]) == ("sampling", "fail")
    assert "temperature 1 against 0.6" in found["evidence"]
    assert "repetition_penalty 1 against 1.1" in found["evidence"]
    assert "top_p" not in found["evidence"]
