"""The contract that every engine meets, on models whose log-probabilities are known."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from mismatch import store
from mismatch.capture import environment, plan
from mismatch.capture import run as captures
from mismatch.compare.align import Tokens, read_tokens
from mismatch.engines import ENGINES, parse_condition
from mismatch.engines.base import this_machine
from mismatch.model import Corpus, make_corpus
from tests import known
from tests.contract.conftest import OwnCode, Serve
from tests.contract.taking import order_of, take

# float32 in the engines, float64 in the closed form.
TOLERANCE_NATS = 5e-4

CONDITIONS = {
    "toy": "toy:dtype=fp32",
    "hf": "hf:dtype=fp32,attention=eager",
    "megatron": "megatron:dtype=fp32",
    "vllm": "vllm:dtype=fp32,eager=true",
    "sglang": "sglang:dtype=fp32",
    # and the url of one that was started for the checkpoint
    "vllm_server": "vllm_server",
    "sglang_server": "sglang_server",
    "python": "python",  # and a file or a plug-in, in an interpreter that has torch
}

#: An engine with an environment of its own has a mark of its own, as `make test` does not build it.
MARKS = {
    "toy": (),
    "megatron": pytest.mark.megatron,
    "sglang": pytest.mark.sglang,
    "sglang_server": pytest.mark.sglang,
}
ENGINE_PARAMS = [
    pytest.param(name, marks=MARKS.get(name, pytest.mark.real), id=name) for name in ENGINES
]

#: Engines that tokenise prompts with the checkpoint's own tokenizer.
ENCODERS = ("vllm", "vllm_server", "sglang", "sglang_server")


@dataclass(frozen=True)
class Captured:
    """What one engine made of one known model."""

    root: Path
    condition_id: str
    corpus: Corpus
    model: Path

    def trace(self, name: str) -> Tokens:
        return read_tokens(self.root / "traces" / self.condition_id / name)

    def provenance(self, name: str) -> dict:
        folder = self.root / "traces" / self.condition_id / name
        return store.read_json(folder / "provenance.json")

    def names(self) -> list[str]:
        return sorted(p.name for p in (self.root / "traces" / self.condition_id).iterdir())


def _spec(engine: str, model: Path, serve: Serve) -> str:
    """The engine's condition; of a server, with the address of a real one."""
    served = engine.endswith("_server")
    return f"{engine}:url={serve(engine, model)}" if served else CONDITIONS[engine]


def _order(
    engine: str, model: Path, corpus: Corpus | None, prompts: list[dict], spec: str = ""
) -> captures.Order:
    condition = parse_condition(spec or CONDITIONS[engine])
    known_paths = ENGINES[engine].default_paths
    wanted = [p for p in ("rollout", "decode", "prefill", "score") if p in known_paths]
    if corpus is not None:
        wanted = [p for p in wanted if p != "rollout"]
    sequences = len(prompts) if corpus is None else len(corpus)
    tasks = plan.tasks(ENGINES[engine], condition, wanted, 2, "batch", sequences)
    return order_of(ENGINES[engine], condition, tasks, model, corpus, prompts, 24)


def _take(
    root: Path, engine: str, model: Path, corpus: Corpus | None, prompts: list, spec: str = ""
) -> Captured:
    order = _order(engine, model, corpus, prompts, spec)
    got = take(root, order)
    return Captured(root, order.tasks[0].condition.id, got, model)


def _corpus_with_holes() -> Corpus:
    """Multi-turn masks: a scored stretch, a hole, another one; one sequence with nothing scored."""
    rows: list[tuple[np.ndarray, np.ndarray | None]] = []
    for ids in known.sequences(6, 30):
        mask = np.zeros(len(ids), bool)
        mask[5:12] = mask[20:] = True
        rows.append((np.array(ids), mask))
    rows.append((np.array(known.sequences(1, 12)[0]), np.zeros(12, bool)))
    rows.append((np.array(known.sequences(1, 9)[0]), None))
    return make_corpus(rows)


#: The user's own code takes part twice: a file, and the example package, installed.
PLUGIN = pytest.param("plugin", marks=pytest.mark.real, id="plugin")


@pytest.fixture(scope="session", params=[*ENGINE_PARAMS, PLUGIN])
def given_ids(
    request: pytest.FixtureRequest,
    attention: Path,
    tmp_path_factory: pytest.TempPathFactory,
    serve: Serve,
    own_code: OwnCode,
) -> Captured:
    """The engine's own replay of given ids with holes in the mask, on the attention model."""
    root = tmp_path_factory.mktemp(f"given-{request.param}")
    if request.param in ("python", "plugin"):
        corpus, spec = _corpus_with_holes(), own_code(request.param)
        return _take(root, "python", attention, corpus, [], spec)
    spec = _spec(request.param, attention, serve)
    return _take(root, request.param, attention, _corpus_with_holes(), [], spec)


@pytest.fixture(
    scope="session", params=[p for p in ENGINE_PARAMS if "rollout" in ENGINES[p.id].paths]
)
def rolled_out(
    request: pytest.FixtureRequest,
    attention: Path,
    tmp_path_factory: pytest.TempPathFactory,
    serve: Serve,
) -> Captured:
    """Prompts as ids rolled out and replayed on every path."""
    prompts = [{"token_ids": ids} for ids in known.sequences(10, 6)]
    root = tmp_path_factory.mktemp(f"rollout-{request.param}")
    spec = _spec(request.param, attention, serve)
    return _take(root, request.param, attention, None, prompts, spec)


def _check_known(captured: Captured, name: str) -> None:
    trace = captured.trace(name)
    for number, (ids, scored) in enumerate(
        zip(captured.corpus.token_ids, captured.corpus.scored, strict=True)
    ):
        rows = trace.sequence == number
        assert np.array_equal(trace.token_id[rows], ids)
        assert np.array_equal(trace.scored[rows], scored)
        truth = known.expected(captured.model, ids.tolist())
        np.testing.assert_allclose(
            trace.logprob[rows][scored], truth[scored], atol=TOLERANCE_NATS, rtol=0
        )


def test_every_capture_of_given_ids_has_the_known_values(given_ids: Captured) -> None:
    """Each path in each batch composition gives ln p(token t | tokens < t), at its own t."""
    assert given_ids.names(), "nothing was captured"
    for name in given_ids.names():
        _check_known(given_ids, name)


def test_every_capture_of_a_rollout_has_the_known_values(rolled_out: Captured) -> None:
    """Sampling-time values and each replay of the drawn ids equal the closed form."""
    assert "rollout-1" in rolled_out.names()
    for name in rolled_out.names():
        _check_known(rolled_out, name)


def test_off_by_one_would_be_seen(attention: Path) -> None:
    """The known model separates neighbours: a shift by one is far outside the tolerance."""
    truth = known.expected(attention, known.sequences()[0])[1:]
    assert np.abs(np.diff(truth)).min() > 10 * TOLERANCE_NATS


def test_a_repeat_is_bit_equal(given_ids: Captured) -> None:
    """The same condition and batches from a fresh prefix cache repeat themselves on one machine."""
    for name in given_ids.names():
        if name.endswith("-2"):
            first, again = given_ids.trace(name[:-1] + "1"), given_ids.trace(name)
            assert np.array_equal(first.logprob, again.logprob), name


def test_facts_name_what_ran(given_ids: Captured) -> None:
    """Versions of the engine's own interpreter, the device, and the space of the values. (That the
    facts confirm the condition is proven when a trace is sealed.)"""
    provenance = given_ids.provenance(given_ids.names()[0])
    facts, engine = provenance["facts"], ENGINES[provenance["engine"]]
    there = environment.probe(Path(provenance["interpreter"]), engine).versions
    assert len(there) > 1 or engine.imports is None
    assert {n: facts["versions"].get(n) for n in there} == there
    assert facts["device"] and facts["logprob_space"] and facts["scored_as"] == {}


def _all_switches_off(engine: str, spec: str) -> str:
    """The condition with every switch that this machine has stated as false."""
    for name, option in ENGINES[engine].options.items():
        more = f"{spec},{name}=false"
        if option.kind == "bool" and f"{name}=" not in spec:
            refused = ENGINES[engine].refuse(parse_condition(more), this_machine())
            spec = spec if refused else more
    return spec


#: Engines without a switch of their own.
NO_SWITCHES = ("vllm_server", "sglang_server", "python")


@pytest.mark.parametrize("engine", [p for p in ENGINE_PARAMS if p.id not in NO_SWITCHES])
def test_a_switch_that_is_stated_as_off_can_be_sealed(
    engine: str, attention: Path, tmp_path: Path
) -> None:
    """Every switch an engine has is read back as false where it was asked to be false."""
    spec = _all_switches_off(engine, CONDITIONS[engine])
    assert "=false" in spec
    captured = _take(tmp_path, engine, attention, _corpus_with_holes(), [], spec)
    observed = captured.provenance(captured.names()[0])["facts"]["observed"]
    off = [name for name, value in parse_condition(spec).options.items() if value is False]
    assert [name for name in off if observed[name] is not False] == []


def test_rollouts_follow_the_model(rolled_out: Captured) -> None:
    """Drawn tokens come from the recorded distribution: their surprise averages its entropy."""
    surprise, entropy = [], []
    for ids, scored in zip(rolled_out.corpus.token_ids, rolled_out.corpus.scored, strict=True):
        for t in np.flatnonzero(scored):
            every = known.next_logprobs(rolled_out.model, ids[:t].tolist())
            entropy.append(-float(np.sum(np.exp(every) * every)))
            surprise.append(-every[ids[t]])
    spread = np.std(np.array(surprise) - np.array(entropy)) / np.sqrt(len(surprise))
    assert abs(np.mean(surprise) - np.mean(entropy)) < 4 * spread


def test_rollout_prompts_are_kept_and_only_responses_scored(rolled_out: Captured) -> None:
    """Each sequence starts with its prompt, unscored; every response token is scored."""
    for ids, scored, prompt in zip(
        rolled_out.corpus.token_ids, rolled_out.corpus.scored, known.sequences(10, 6), strict=True
    ):
        assert ids[: len(prompt)].tolist() == prompt
        assert not scored[: len(prompt)].any() and scored[len(prompt) :].all()


@pytest.mark.parametrize("engine", [p for p in ENGINE_PARAMS if p.id in ENCODERS])
def test_text_is_encoded_plainly_and_messages_with_the_template(
    engine: str, attention: Path, tmp_path: Path, serve: Serve
) -> None:
    """`prompt` gets no template; `messages` gets the chat template with its generation prompt."""
    prompts = [
        {"prompt": "t5 t6 t7"},
        {"messages": [{"role": "user", "content": "t5 t6"}]},
        {"token_ids": [11, 12]},
    ]
    got = _take(tmp_path, engine, attention, None, prompts, _spec(engine, attention, serve))
    heads = [
        ids[~scored].tolist()
        for ids, scored in zip(got.corpus.token_ids, got.corpus.scored, strict=True)
    ]
    assert heads == [[5, 6, 7], [5, 6, 9], [11, 12]]
    tokenizer = got.provenance("rollout-1")["tokenizer"]
    assert tokenizer["add_special_tokens"]["prompt"] is True
    assert tokenizer.get("template_sha256") or "_server" in engine  # which does not show it
    texts = json.loads((tmp_path / "corpus" / got.corpus.sha / "texts.json").read_text())
    assert texts["5"] == "t5"


# ---------------------------------------------------------------- a running server


@pytest.mark.real
def test_a_server_tells_what_it_is(
    attention: Path, tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Version, model, cache and fingerprint of the server; the temperature is seen to be in no
    value; the key that was sent is nowhere in what is kept."""
    monkeypatch.setenv("MISMATCH_API_KEY", "sk-very-secret")
    spec = f"vllm:url={serve('vllm_server', attention)},temperature=0.5,topk=3"
    prompts = [{"token_ids": ids} for ids in known.sequences(3, 6)]
    captured = _take(tmp_path, "vllm_server", attention, None, prompts, spec)
    facts = captured.provenance("rollout-1")["facts"]
    server = facts["server"]
    assert server["model"]["root"] == str(attention) and server["cache"]["block_size"]
    assert server["fingerprints"][0].startswith(f"vllm-{server['version']}")
    assert facts["logprobs_mode"] == "raw_logprobs" and facts["sampling"]["temperature"] == 0.5
    assert facts["requests_per_call"] == [3]
    _check_known(captured, "rollout-1")
    kept = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert kept and not [p for p in kept if b"sk-very-secret" in p.read_bytes()]


@pytest.mark.real
def test_a_server_that_replays_no_trace_fails_decode_alone(
    attention: Path, tmp_path: Path, serve: Serve
) -> None:
    """Forced decode needs a switch of the server's; without it that capture fails with the server's
    own words, and its siblings are taken."""
    condition = parse_condition(f"vllm:url={serve('vllm_server', attention)}")
    engine = ENGINES["vllm_server"]
    order = _order("vllm_server", attention, _corpus_with_holes(), [], condition.spec)
    wanted = plan.tasks(engine, condition, ["decode", "prefill"], 1, "none", 8)
    captures.take(tmp_path, replace(order, tasks=tuple(wanted)), lambda event: None)
    assert (tmp_path / "traces" / condition.id / "prefill-1").is_dir()
    error = store.read_json(tmp_path / "failed" / condition.id / "decode-1" / "error.json")
    assert error["type"] == "ServerError" and "enable-scale-out" in error["message"]


@pytest.mark.real
@pytest.mark.slow
def test_a_guarded_server_of_processed_values(
    attention: Path, tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without its key a server of another name is refused with what to do; with it, its processed
    values are seen to be scaled, and are those of the temperature that was asked."""
    more = ["--api-key", "sk-guard", "--logprobs-mode", "processed_logprobs"]
    url = serve("vllm_server", attention, *more, "--served-model-name", "policy")
    spec, prompts = f"vllm:url={url},temperature=0.5", [{"token_ids": [5, 6, 7]}]
    said = []
    for root, key, served in (("a", "", ""), ("b", "sk-guard", ",served_model=other")):
        monkeypatch.setenv("MISMATCH_API_KEY", key)
        order = _order("vllm_server", attention, None, prompts, spec + served)
        captures.take(tmp_path / root, order, lambda event: None)
        said += [store.read_json(p)["message"] for p in (tmp_path / root).rglob("error.json")][:1]
    assert "wants a key (401): put it into the variable MISMATCH_API_KEY" in said[0]
    assert "serves policy, and no other" in said[1]
    captured = _take(tmp_path / "c", "vllm_server", attention, None, prompts, spec)
    facts = captured.provenance("rollout-1")["facts"]
    assert facts["scored_as"] == {"temperature": 0.5}
    ids, trace = captured.corpus.token_ids[0].tolist(), captured.trace("rollout-1")
    for t in range(3, len(ids)):
        logits = known.next_logprobs(attention, ids[:t]) / 0.5
        truth = logits[ids[t]] - np.log(np.exp(logits).sum())
        assert abs(trace.logprob[t] - truth) < TOLERANCE_NATS


#: Engines that show their weights; the others' L0 is not checked, and says so.
SHOW_WEIGHTS = ("toy", "hf", "vllm", "sglang")


def test_the_weights_an_engine_shows_are_the_checkpoints(given_ids: Captured) -> None:
    """Every tensor by its name, unfused, whole and unpadded, with the digest of its bytes."""
    facts = given_ids.provenance(given_ids.names()[0])["facts"]
    if given_ids.condition_id.split("-")[0] not in SHOW_WEIGHTS:
        assert "weights" not in facts
        return
    tensors = known.load_file(given_ids.model / "model.safetensors")
    tensors.setdefault("lm_head.weight", tensors["model.embed_tokens.weight"])
    expected = {
        name: hashlib.sha256((tensor.astype("<f4") + 0).tobytes()).hexdigest()[:16]
        for name, tensor in tensors.items()
    }
    shown = facts["weights"]["tensors"]
    assert {name: digests["fp32"] for name, digests in shown.items()} == expected
    assert not facts["weights"]["unread"]
