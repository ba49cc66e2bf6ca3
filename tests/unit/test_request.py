"""What a request asks for where the user did not say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mismatch.engines import parse_condition
from mismatch.errors import MismatchError
from mismatch.model import Corpus, Sampling, make_corpus
from mismatch.verbs.request import Ids, Request, choose_paths, single
from tests import known

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


MOE = known.SHIPPED.parent / "qwen3moe-gsm-3.4m"


def asked(model: Path, train: str, infer: str, corpus: Corpus | None) -> Request:
    """A run's request; corpus None: one prompt is rolled out."""
    prompts = () if corpus else ({"token_ids": [1, 2]},)
    return single(
        model=model,
        train=parse_condition(train),
        infer=parse_condition(infer),
        ids=Ids(corpus, {"source": "ids", "sampled_by": None}, {}, prompts, "ids"),
        paths=("decode",),
        repeats=1,
        floor="none",
        sampling=None if corpus else Sampling(),
        trust_remote_code=False,
        timeout_s=1.0,
    )


EAGER = "vllm:eager=true"


@pytest.mark.parametrize("spec", ["routes=true", "replay_routes=true"])
def test_a_dense_model_has_no_routes(spec: str) -> None:
    """One sentence before anything starts."""
    with pytest.raises(MismatchError, match=f"{spec}: the model has no experts"):
        asked(known.SHIPPED, f"hf:{spec}", EAGER, None).check()
    asked(MOE, "hf:routes=true", EAGER, None).check()


def test_a_replay_needs_the_routes_of_the_rollout() -> None:
    """Of the condition that draws, or of the corpus that is given."""
    plain = make_corpus([(np.array([1, 2, 3]), None)])
    carried = replace(plain, routes=(np.zeros((3, 3, 2), np.int16),))
    for infer, corpus in ((EAGER, None), (EAGER, plain), (f"{EAGER},routes=true", plain)):
        with pytest.raises(MismatchError, match="the rollout captured no routes"):
            asked(MOE, "hf:replay_routes=true", infer, corpus).check()
    for infer, corpus in ((f"{EAGER},routes=true", None), (EAGER, carried)):
        asked(MOE, "hf:replay_routes=true", infer, corpus).check()
