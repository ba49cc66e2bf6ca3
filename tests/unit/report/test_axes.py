"""Axes and numbers: where a value lands and how it is written."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mismatch.report.axes import linear_axis, log_axis, signed_axis
from mismatch.report.spreads import spread
from mismatch.report.words import clean, number, token_text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, "—"),
        (0.0, "0"),
        (1.35e-3, "1.35e-3"),
        (-4e-4, "-4.00e-4"),
        (0.0343, "0.0343"),
        (0.5, "0.500"),
        (12.0, "12.0"),
        (999.7, "1,000"),
        (123.4, "123"),
        (22015.0, "22,015"),
        (3e7, "3.00e7"),
    ],
)
def test_numbers_have_three_digits(value: float | None, said: str) -> None:
    """Small ones are scientific, none is blank, and no evidence is a dash."""
    assert number(value) == said


def test_zero_has_a_place_of_its_own_on_a_log_axis() -> None:
    """Exact 0 and a bound below 0 stand left of every positive value, inside the figure."""
    axis = log_axis([0.0, -1e-4, 1e-5, 1e-3, None])
    places = [axis.at(v) for v in (-1e-4, 0.0, 1e-5, 1e-4, 1e-3)]
    assert places == sorted(places)
    assert 0 < places[0] == places[1] < places[2]
    assert places[-1] <= 1


def test_a_log_axis_needs_no_positive_value() -> None:
    """All zeros, or nothing, still give an axis."""
    assert log_axis([0.0, None]).ticks
    assert log_axis([]).ticks


@pytest.mark.parametrize("values", [[0.03, 0.01], [-0.01, 0.02], [], [0.0], [5e-7]])
def test_a_linear_axis_holds_zero_and_every_value(values: list[float]) -> None:
    """0 is never cut away, and ticks stay on the axis."""
    axis = linear_axis(values)
    assert axis.low <= 0 <= axis.high
    assert all(-1e-9 <= axis.at(v) <= 1 + 1e-9 for v in values)
    assert all(-1e-9 <= t.at <= 1 + 1e-9 for t in axis.ticks)


def test_a_signed_axis_is_symmetric_and_keeps_its_ticks_apart() -> None:
    """±x mirror each other about 0, and no two labels run into each other."""
    axis = signed_axis(10.0, 0.01)
    assert axis.at(0.3) + axis.at(-0.3) == pytest.approx(1)
    places = [t.at for t in axis.ticks]
    assert min(np.diff(places)) > 0.07
    assert "0" in [t.label for t in axis.ticks]


def test_the_histogram_counts_every_finite_token() -> None:
    """Nothing falls off the ends, and what is not finite is counted apart."""
    d = np.array([-5.0, -0.01, 0.0, 0.0, 0.01, 12.0, np.nan, np.inf])
    found = spread(d)
    assert found is not None
    assert (found.counts.sum(), found.finite, found.exact, found.not_finite) == (6, 6, 2, 2)
    assert spread(np.array([math.nan])) is None


def test_foreign_text_is_shown_not_obeyed() -> None:
    """Control, bidi and surrogate characters become their code; white space becomes visible."""
    assert clean("a\x1b[0m\u202eb\nc\ud800") == "a\\x1b[0m\\u202eb c\\ud800"
    assert token_text(" a\n\tb\u200b") == "·a⏎⇥b\\u200b"
