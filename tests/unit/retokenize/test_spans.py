"""Differences of two lists of ids, and which new ids a trainer trains on."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mismatch.retokenize.spans import Span, across, differences, never_sampled, trained

IDS = st.lists(st.integers(0, 5), max_size=12)
SPECIAL = {9}


@given(IDS, IDS)
def test_replacing_every_span_gives_the_new_ids(old: list[int], new: list[int]) -> None:
    """Between the spans the lists are equal, so that the spans are the whole difference."""
    spans, made, end = differences(old, new), [], 0
    for span in spans:
        made += old[end : span.a] + new[span.c : span.d]
        end = span.b
    assert made + old[end:] == new
    assert all(old[s.a : s.b] != new[s.c : s.d] for s in spans)


@given(IDS, IDS)
def test_a_boundary_between_equal_ids_keeps_its_neighbour(old: list[int], new: list[int]) -> None:
    """An old id outside of every span is found at its new place."""
    spans = differences(old, new)
    for at, token in enumerate(old):
        if not any(s.a <= at < s.b for s in spans):
            assert new[across(spans, at, after=True)] == token


def test_a_boundary_inside_a_span_goes_to_its_start_or_end() -> None:
    """The block that a span touches is compared whole."""
    spans = [Span(2, 4, 2, 7)]
    assert [across(spans, 3, after=side) for side in (False, True)] == [2, 7]


def _masks(old: list[int], sampled: list[int], new: list[int]) -> tuple[list[int], list[int]]:
    spans, mask = differences(old, new), np.array(sampled, bool)
    inserted = never_sampled(spans, mask, old, new, SPECIAL)
    kept = trained(spans, mask, inserted)
    return inserted.astype(int).tolist(), kept.astype(int).tolist()


def test_what_replaces_a_sampled_id_is_trained_on_and_inserted() -> None:
    assert _masks([1, 2, 3], [0, 1, 1], [1, 5, 6, 3]) == ([0, 1, 1, 0], [0, 1, 1, 1])


def test_what_replaces_an_id_of_the_prompt_is_neither() -> None:
    assert _masks([1, 2, 3], [0, 0, 1], [1, 5, 3]) == ([0, 0, 0], [0, 0, 1])


def test_an_insertion_before_a_sampled_id_is_trained_on() -> None:
    """A template that opens the turn with more than the policy drew."""
    assert _masks([1, 2], [0, 1], [1, 7, 2]) == ([0, 1, 0], [0, 1, 1])


def test_behind_a_finished_turn_nothing_is_inserted() -> None:
    """The line break after the end of turn belongs to the template, not to the policy."""
    assert _masks([1, 9], [0, 1], [1, 9, 4]) == ([0, 0, 0], [0, 1, 0])


def test_behind_a_cut_turn_its_end_alone_is_inserted() -> None:
    assert _masks([1, 2], [0, 1], [1, 2, 9, 4]) == ([0, 0, 1, 0], [0, 1, 1, 0])


def test_a_sampled_id_that_is_gone_is_not_trained_on() -> None:
    """Stripped reasoning inserts nothing."""
    assert _masks([1, 2, 3, 4], [0, 1, 1, 1], [1, 4]) == ([0, 0], [0, 1])
