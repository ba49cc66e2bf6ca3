"""The experts of each token, read where vllm and hf choose them, and replayed, on the shipped model
with experts. One load of each engine.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mismatch import api, store
from mismatch.capture import plan
from mismatch.compare.align import read_tokens
from mismatch.engines import ENGINES, parse_condition
from mismatch.model import Corpus
from tests import known
from tests.contract.taking import order_of, take

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
]  # loads of their own: make test holds the contract

MODEL = known.SHIPPED.parent / "qwen3moe-gsm-3.4m"
LAYERS, K, EXPERTS = 3, 2, 8
#: A block of vllm's KV cache on a CPU; the prompts share one, and part where the second begins.
BLOCK, OWN, NEW = 128, 30, 24
#: Chunks of 64 split the prompts, and three requests share a step.
VLLM = "vllm:dtype=bf16,eager=true,prefix_caching=true,max_num_batched_tokens=64,max_num_seqs=3"
HF = "hf:dtype=bf16,attention=sdpa"
FP32 = "hf:dtype=fp32,attention=sdpa"


@dataclass(frozen=True)
class Taken:
    """Traces of one run folder, and the ids that they are of."""

    root: Path
    corpus: Corpus

    def folder(self, spec: str, capture: str) -> Path:
        return self.root / "traces" / parse_condition(spec).id / capture

    def values(self, spec: str, capture: str) -> np.ndarray:
        tokens = read_tokens(self.folder(spec, capture))
        return tokens.logprob[tokens.scored]

    def routes(self, spec: str, capture: str) -> list[np.ndarray]:
        """(n, L, K) by sequence."""
        whole = store.read_routes(self.folder(spec, capture) / store.ROUTES)
        assert whole is not None
        return np.split(whole, np.cumsum([len(ids) for ids in self.corpus.token_ids])[:-1])

    def facts(self, spec: str, capture: str) -> dict[str, Any]:
        return store.read_json(self.folder(spec, capture) / "provenance.json")["facts"]


def _take(
    root: Path, wanted: dict[str, list[str]], corpus: Corpus | None, model: Path = MODEL
) -> Corpus:
    """spec -> paths, all of one load; without a corpus the first rolls out."""
    conditions = [parse_condition(spec) for spec in wanted]
    engine = ENGINES[conditions[0].engine]
    shared = known.sequences(1, BLOCK)[0]
    prompts = [{"token_ids": shared + ids} for ids in known.sequences(7, OWN)[1:]]
    count = len(prompts) if corpus is None else len(corpus)
    tasks = [
        task
        for condition, paths in zip(conditions, wanted.values(), strict=True)
        for task in plan.tasks(engine, condition, paths, 1, "none", count)
    ]
    return take(root, order_of(engine, conditions[0], tasks, model, corpus, prompts, NEW))


ROUTED, REPLAYED = ",routes=true", ",routes=true,replay_routes=true"
#: Ways of laying out the rows of one pass.
LAYOUTS = ("", ",batch=3,padding=left", ",batch=3,padding=right", ",batch=3,packing=true",
           ",cache=dynamic", ",batch=3,cache=dynamic", ",logits=chunked:7")  # fmt: skip


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Taken:
    """By vllm with routes and without; by hf with, without and replayed, in many layouts."""
    root = tmp_path_factory.mktemp("routes")
    corpus = _take(
        root,
        {VLLM + ROUTED: ["rollout", "decode", "prefill"], VLLM: ["decode", "prefill"]},
        None,
    )
    _take(root, {HF: ["score"], HF + ROUTED: ["score"], HF + REPLAYED: ["score"]}, corpus)
    _take(root, {FP32 + ROUTED + more: ["score"] for more in LAYOUTS}, corpus)
    return Taken(root, corpus)


def test_asking_for_routes_moves_no_value(taken: Taken) -> None:
    """Bit for bit the same log-probabilities, in both engines and on every path."""
    for spec, capture in ((VLLM, "decode-1"), (VLLM, "prefill-1"), (HF, "score-1")):
        np.testing.assert_array_equal(
            taken.values(spec, capture), taken.values(spec + ROUTED, capture)
        )
        assert not (taken.folder(spec, capture) / store.ROUTES).exists()


def test_every_token_that_was_an_input_has_its_experts(taken: Taken) -> None:
    """K different ones of every layer; the last token of a response is no input of a rollout or a
    decode, and is one where the sequence is a prompt or is scored.
    """
    for spec, capture, unfed in (
        (VLLM + ROUTED, "rollout-1", 1),
        (VLLM + ROUTED, "decode-1", 1),
        (VLLM + ROUTED, "prefill-1", 0),
        (HF + ROUTED, "score-1", 0),
    ):
        for routes in taken.routes(spec, capture):
            fed = routes[: len(routes) - unfed]
            assert routes.shape[1:] == (LAYERS, K) and (routes[len(fed) :] == -1).all()
            assert ((fed >= 0) & (fed < EXPERTS)).all() and (fed[..., 0] != fed[..., 1]).all()


def test_a_decode_of_the_same_ids_takes_the_rollouts_routes(taken: Taken) -> None:
    """Forced ids in the rollout's batch: the same kernels, the same experts."""
    for one, other in zip(
        taken.routes(VLLM + ROUTED, "rollout-1"),
        taken.routes(VLLM + ROUTED, "decode-1"),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_a_cached_prefix_has_the_routes_of_who_computed_it(taken: Taken) -> None:
    """The prompts share a block and three requests share a step: of the fourth on, the block was in
    the cache, and its routes are an earlier request's.
    """
    routes = taken.routes(VLLM + ROUTED, "decode-1")
    computed = taken.facts(VLLM + ROUTED, "decode-1")["routes"]["tokens"]
    assert computed < sum(len(ids) - 1 for ids in taken.corpus.token_ids)
    for late in routes[3:]:
        assert any(np.array_equal(late[:BLOCK], early[:BLOCK]) for early in routes[:3])


def test_the_corpus_carries_the_rollouts_routes(taken: Taken) -> None:
    """They are sealed with the ids, and read again."""
    corpus, _, _ = store.load_corpus(taken.root / "corpus" / taken.corpus.sha)
    assert corpus.routes is not None
    for one, other in zip(corpus.routes, taken.routes(VLLM + ROUTED, "rollout-1"), strict=True):
        np.testing.assert_array_equal(one, other)


def test_replayed_routes_are_the_rollouts_and_move_values(taken: Taken) -> None:
    """At every position that has one; at the last, and without a replay, hf's own stand."""
    told = taken.routes(VLLM + ROUTED, "rollout-1")
    own = taken.routes(HF + ROUTED, "score-1")
    for given, there, alone in zip(told, taken.routes(HF + REPLAYED, "score-1"), own, strict=True):
        np.testing.assert_array_equal(there[:-1], given[:-1])
        assert (there[-1] >= 0).all() and there.shape == alone.shape
    facts = taken.facts(HF + REPLAYED, "score-1")["routes"]
    assert 0 < facts["replayed"] == facts["tokens"] - len(told)
    assert "replay" not in taken.facts(HF + ROUTED, "score-1")["routes"]
    same = [(np.sort(a) == np.sort(b)).all() for a, b in zip(told, own, strict=True)]
    moved = taken.values(HF + REPLAYED, "score-1") != taken.values(HF, "score-1")
    assert not all(same) and moved.any()


@pytest.mark.parametrize("more", LAYOUTS[1:])
def test_routes_lie_beside_their_tokens_however_rows_are_laid_out(more: str, taken: Taken) -> None:
    """In float32 padded, packed, decoded and chunked passes choose the experts of a pass of one
    sequence, but for near ties; a decode feeds neither the last token nor knows its experts.
    """
    ours = taken.routes(FP32 + ROUTED + more, "score-1")
    known_, equal = 0, 0
    for one, alone in zip(ours, taken.routes(FP32 + ROUTED, "score-1"), strict=True):
        fed = (one >= 0).all(axis=(1, 2))
        assert fed[:-1].all() and fed[-1] == ("cache" not in more)
        equal += int((np.sort(one[fed]) == np.sort(alone[fed])).all(axis=(1, 2)).sum())
        known_ += int(fed.sum())
    assert equal / known_ > 0.995


def _with_rolled_router(folder: Path, layer: int) -> Path:
    """A copy of the checkpoint in which the rows of one layer's router are moved on by one: its
    experts are numbered otherwise than the router believes.
    """
    shutil.copytree(MODEL, folder)
    file = folder / "model.safetensors"
    raw = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(raw[:8], "little")
    entry = json.loads(raw[8:start])[f"model.layers.{layer}.mlp.gate.weight"]
    low, high = (start + at for at in entry["data_offsets"])
    rows = np.frombuffer(bytes(raw[low:high]), np.uint16).reshape(entry["shape"])
    raw[low:high] = np.roll(rows, 1, axis=0).tobytes()
    file.write_bytes(bytes(raw))
    return folder


def test_a_permuted_router_fails_l3_and_a_sound_one_passes(taken: Taken, tmp_path: Path) -> None:
    """On the same ids: the sound pair agrees nearly everywhere, the damaged layer by chance."""
    damaged = tmp_path / "damaged"
    model = _with_rolled_router(tmp_path / "model", layer=1)
    _take(damaged, {HF + ROUTED: ["score"]}, taken.corpus, model)
    found = {}
    for name, root in (("sound", taken.root), ("damaged", damaged)):
        trace = root / "traces" / parse_condition(HF + ROUTED).id / "score-1"
        theirs = taken.folder(VLLM + ROUTED, "decode-1")
        (pair,) = api.compare_traces(trace, theirs, tmp_path / f"{name}-pair")["pairs"]
        (row,) = [r for r in pair["preflight"] if r["rung"] == "L3 routing"]
        found[name] = row["verdict"], [r["beyond_chance"] for r in pair["routes"]["by_layer"]]
    assert found["sound"][0] == "pass" and min(found["sound"][1]) > 0.95
    assert found["damaged"][0] == "fail" and found["damaged"][1][1] < 0.2
    assert found["damaged"][1][0] > 0.95
