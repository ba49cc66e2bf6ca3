"""A trace that contradicts its condition or its corpus is never sealed."""

from __future__ import annotations

import numpy as np
import pytest

from mismatch import wire
from mismatch.capture import seal
from mismatch.engines import ENGINES, parse_condition
from mismatch.model import Capture, Task, make_corpus

CAPTURE = Capture("score-1", "score", ((0,), (1,)))
CORPUS = make_corpus([(np.array([1, 2, 3]), np.array([0, 0, 1])), (np.array([4, 5]), None)])


def _values(*logprobs: object) -> wire.Values:
    return wire.Values(np.array(logprobs, np.float32))


def _rows(**change: object) -> list[wire.Row]:
    rows = [
        wire.Row(0, np.array([1, 2, 3], np.int32), _values(np.nan, 9, -1)),
        wire.Row(1, np.array([4, 5], np.int32), _values(np.nan, -2)),
    ]
    if "ids" in change:
        rows[1] = wire.Row(1, np.array(change["ids"], np.int32), rows[1].values)
    if "last" in change:
        rows[1] = wire.Row(1, rows[1].token_ids, _values(np.nan, change["last"]))
    return rows


@pytest.mark.parametrize(
    ("spec", "observed", "says"),
    [
        ("hf:dtype=bf16", {"dtype": "fp32"}, "dtype=bf16 was asked, dtype=fp32 was used"),
        ("hf:attention=sdpa", {"attention": "eager"}, "attention=eager was used"),
        ("hf:dtype=bf16", {}, "does not show what it used"),
        ("vllm:eager=true", {"eager": False}, "eager=True was asked"),
    ],
)
def test_a_silent_fallback_is_refused(spec: str, observed: dict, says: str) -> None:
    """Observed facts must confirm every option that was given."""
    condition = parse_condition(spec)
    with pytest.raises(seal.SealRefused, match=says):
        seal.check(ENGINES[condition.engine], Task(condition, CAPTURE), {"observed": observed})


def test_an_option_that_was_not_given_may_be_anything() -> None:
    """Defaults are the engine's own; they are recorded, not judged."""
    condition = parse_condition("hf:dtype=bf16")
    facts = {"observed": {"dtype": "bf16", "attention": "anything"}}
    assert seal.check(ENGINES["hf"], Task(condition, CAPTURE), facts) is None


def test_values_land_on_their_own_tokens() -> None:
    """A row that covers the response alone is aligned to the end of its sequence."""
    rows = _rows()
    rows[0] = wire.Row(0, np.array([2, 3], np.int32), _values(-5, -1))
    got = seal.aligned(CORPUS, rows)
    assert got[0].logprobs.tolist()[1:] == [-5, -1] and np.isnan(got[0].logprobs[0])


@pytest.mark.parametrize(
    ("change", "says"),
    [({"ids": [4, 6]}, "other ids"), ({"last": 0.5}, "above 0"), ({"last": 2e-4}, "above 0")],
)
def test_wrong_ids_and_impossible_values_are_refused(change: dict, says: str) -> None:
    """Other ids than the corpus, or a log-probability above 1e-4, is no trace."""
    with pytest.raises(seal.SealRefused, match=says):
        seal.aligned(CORPUS, _rows(**change))


@pytest.mark.parametrize("last", [5e-5, float("nan"), float("-inf")])
def test_rounding_nan_and_minus_infinity_are_kept(last: float) -> None:
    """float32 rounding above 0, NaN and -inf are what the engine said: kept, and counted later."""
    assert len(seal.aligned(CORPUS, _rows(last=last))) == 2


def test_an_impossible_value_outside_the_mask_is_not_read() -> None:
    """Unscored positions are never judged (row 0 holds a 9 there)."""
    assert seal.aligned(CORPUS, _rows())[0].logprobs[1] == 9


def test_a_missing_sequence_is_refused() -> None:
    """Fewer rows than sequences is no trace."""
    with pytest.raises(seal.SealRefused, match="1 sequences came back of 2"):
        seal.aligned(CORPUS, _rows()[:1])
