"""What a request asks for where the user did not say."""

from __future__ import annotations

import pytest

from mismatch.engines import parse_condition
from mismatch.verbs.request import choose_paths

EVERY = ("rollout", "decode", "prefill")
#: Few vllm servers replay a trace, and no sglang server forces ids.
SERVED = ("rollout", "prefill")


@pytest.mark.parametrize(
    ("spec", "paths"),
    [
        ("vllm", EVERY),
        ("sglang", EVERY),
        ("toy", EVERY),
        ("vllm:url=http://127.0.0.1:8000", SERVED),
        ("sglang:url=http://127.0.0.1:30000", SERVED),
    ],
)
def test_by_default_an_engine_is_asked_for_what_it_gives(spec: str, paths: tuple[str, ...]) -> None:
    """The command of the README needs no --paths with any of them; given ids have no rollout."""
    condition = parse_condition(spec)
    assert choose_paths(None, False, condition) == paths
    assert choose_paths(None, True, condition) == paths[1:]


def test_a_path_that_was_asked_for_is_never_dropped() -> None:
    """It is refused, not left out in silence; so is an engine that has no such path at all."""
    server = parse_condition("sglang:url=http://127.0.0.1:30000")
    assert choose_paths(["decode", "prefill"], False, server) == ("decode", "prefill")
    assert choose_paths(None, True, parse_condition("hf")) == ("decode", "prefill")
