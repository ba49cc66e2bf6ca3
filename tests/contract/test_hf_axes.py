"""What each option of hf makes of the known-answer attention model, taken through the host."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from mismatch import store
from mismatch.capture import checkpoint, plan
from mismatch.capture import run as captures
from mismatch.compare.align import read_tokens
from mismatch.compare.distribution import read_top
from mismatch.engines import ENGINES, parse_condition
from mismatch.engines.base import RESHAPING
from mismatch.model import Capture, Corpus, Task, make_corpus
from tests import known
from tests.contract.taking import take as take_all

pytestmark = [pytest.mark.real, pytest.mark.slow]

HF = ENGINES["hf"]
EXACT_NATS = 5e-4  # float32 in the engine, float64 in the closed form
HALF_NATS = 0.3  # bfloat16 or float16 products
PROMPT = 6  # scored from here on

#: Request options that compute the same distribution in float32.
SAME = (
    "",
    "logits=whole",
    "logits=chunked:7",
    "batch=3,logits=chunked:7",
    "batch=3,padding=right",
    "batch=3,padding=left",
    "batch=3,packing=true",
    "batch=3,packing=true,logits=chunked:11",
    "logprob_dtype=fp32",
    "logprob_dtype=fp64",
    "logprob_dtype=model",
    "sdpa_kernel=math",
    "sdpa_kernel=flash",
    "cache=none",
    "cache=dynamic",
    "batch=3,cache=dynamic",
    "cache=static",
    "batch=3,cache=static,padding=left",
    "topk=5,entropy=true",
    "entropy=false",
    "batch=3,packing=false",
)
LOWER = ("autocast=bf16", "autocast=fp16")
RESHAPED = (
    "temperature=0.7",
    "temperature=1.9,logits=chunked:5",
    "top_k=20",
    "top_p=0.8",
    "min_p=0.05",
    "repetition_penalty=1.3",
    "temperature=1.3,top_k=40,top_p=0.9,min_p=0.01,repetition_penalty=0.8,topk=50,entropy=true",
    "temperature=1.3,top_p=0.9,repetition_penalty=1.3,cache=dynamic,batch=3",
    "temperature=1.3,top_p=0.9,repetition_penalty=1.3,batch=3,packing=true",
)


@dataclass(frozen=True)
class Taken:
    """Traces of one load, by request options."""

    root: Path
    load: str
    corpus: Corpus

    def folder(self, request: str) -> Path:
        return self.root / "traces" / _condition(self.load, request).id / "score-1"

    def values(self, request: str = "") -> np.ndarray:
        """(n,) of every scored position, in corpus order."""
        tokens = read_tokens(self.folder(request))
        return tokens.logprob[tokens.scored]

    def facts(self, request: str = "") -> dict:
        return store.read_json(self.folder(request) / "provenance.json")["facts"]


def _condition(load: str, request: str):
    return parse_condition("hf:" + ",".join(x for x in (load, request) if x))


def _corpus(asked: int = 0) -> Corpus:
    """asked: so many tokens at each position that a sampler is said to have liked."""
    rows = []
    for ids in known.sequences(5, 20):
        mask = np.arange(len(ids)) >= PROMPT
        rows.append((np.array(ids), mask))
    rows.append((np.array(known.sequences(1, 9)[0]), np.zeros(9, bool)))
    corpus = make_corpus(rows)
    if not asked:
        return corpus
    draw = np.random.default_rng(1).permuted
    vocabulary = np.arange(known.VOCABULARY, dtype=np.int32)
    top = [draw(np.tile(vocabulary, (len(i), 1)), axis=1)[:, :asked] for i in corpus.token_ids]
    return replace(corpus, top_ids=tuple(top))


def _task(load: str, request: str, sequences: int) -> Task:
    condition = _condition(load, request)
    groups = plan.batch_groups(range(sequences), plan.batch_size(HF, condition))
    return Task(condition, Capture("score-1", "score", groups))


def _take(
    root: Path, model: Path, load: str, requests: tuple[str, ...] = ("",), asked: int = 0
) -> Taken:
    corpus = _corpus(asked)
    order = captures.Order(
        engine=HF,
        load=HF.load_of(_condition(load, "")),
        tasks=tuple(_task(load, request, len(corpus)) for request in requests),
        checkpoint=checkpoint.inspect(model),
        corpus=corpus,
        corpus_source="contract",
    )
    take_all(root, order)
    return Taken(root, load, corpus)


Take = Callable[..., Taken]


@pytest.fixture(scope="module")
def take(tmp_path_factory: pytest.TempPathFactory) -> Take:
    """One engine start per load, whatever the tests' order."""
    done: dict[str, Taken] = {}

    def once(model: Path, load: str, requests: tuple[str, ...] = ("",), asked: int = 0) -> Taken:
        key = hashlib.sha256(repr((str(model), load, requests, asked)).encode()).hexdigest()[:12]
        if key not in done:
            done[key] = _take(tmp_path_factory.mktemp(key), model, load, requests, asked)
        return done[key]

    return once


@pytest.fixture(scope="module")
def requests_taken(take: Take, attention: Path) -> Taken:
    """Every request option, on one load in float32."""
    return take(attention, "dtype=fp32", (*SAME, *LOWER, *RESHAPED))


@pytest.fixture(scope="session")
def two_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A head for each of two ranks."""
    folder = tmp_path_factory.mktemp("known") / "two-heads"
    return known.write_checkpoint(folder, attention=True, heads=2)


@pytest.fixture(scope="module")
def truth(attention: Path) -> list[list[np.ndarray]]:
    """(vocabulary,) log-probabilities at each scored position of each sequence, float64."""
    return _truth(attention)


def _truth(model: Path) -> list[list[np.ndarray]]:
    corpus = _corpus()
    return [
        [known.next_logprobs(model, ids[:t].tolist()) for t in np.flatnonzero(scored)]
        for ids, scored in zip(corpus.token_ids, corpus.scored, strict=True)
    ]


def _own(truth: list[list[np.ndarray]]) -> np.ndarray:
    """The values of the tokens themselves."""
    corpus, values = _corpus(), []
    for ids, scored, tables in zip(corpus.token_ids, corpus.scored, truth, strict=True):
        values += [table[ids[t]] for t, table in zip(np.flatnonzero(scored), tables, strict=True)]
    return np.array(values)


def _close(taken: Taken, request: str, values: np.ndarray, nats: float) -> None:
    np.testing.assert_allclose(taken.values(request), values, atol=nats, rtol=0)


# ---------------------------------------------------------------- request options


@pytest.mark.parametrize("request_", SAME)
def test_what_changes_no_distribution_gives_the_known_values(
    requests_taken: Taken, truth: list, request_: str
) -> None:
    """However rows, logits, kernels and caches are arranged, the closed form comes out."""
    _close(requests_taken, request_, _own(truth), EXACT_NATS)


@pytest.mark.parametrize("request_", LOWER)
def test_autocast_is_near_the_known_values_and_not_on_them(
    requests_taken: Taken, truth: list, request_: str
) -> None:
    """Lower products move the values, by less than the precision explains."""
    _close(requests_taken, request_, _own(truth), HALF_NATS)
    assert np.abs(requests_taken.values(request_) - requests_taken.values()).max() > 1e-4


def test_what_says_how_it_computes_leaves_the_bits(requests_taken: Taken) -> None:
    """Naming the default changes nothing."""
    for request in ("logits=whole", "logprob_dtype=fp32", "sdpa_kernel=flash", "cache=none"):
        assert np.array_equal(requests_taken.values(request), requests_taken.values()), request


def test_facts_show_the_shape_of_the_passes(requests_taken: Taken) -> None:
    """Chunks bound what the head makes at once; packing puts sequences in one row."""
    assert requests_taken.facts("logits=chunked:7")["head_positions_most"] == 7
    packed = requests_taken.facts("batch=3,packing=true")
    assert packed["rows_per_forward"] == [1] and packed["sequences_per_row"] == [3]
    assert requests_taken.facts("cache=dynamic")["head_positions_most"] == 1


def _reshaped(table: np.ndarray, context: np.ndarray, options: dict) -> np.ndarray:
    """A sampler's distribution, in float64: penalty, temperature, min-p, top-k, top-p."""
    logits = table.copy()
    penalty, seen = options.get("repetition_penalty", 1.0), np.unique(context)
    logits[seen] = np.where(logits[seen] > 0, logits[seen] / penalty, logits[seen] * penalty)
    logits /= options.get("temperature", 1.0)
    probability = np.exp(logits - known._logsumexp(logits))
    logits[probability < options.get("min_p", 0.0) * probability.max()] = -np.inf
    logits[logits < np.sort(logits)[-options.get("top_k", len(logits))]] = -np.inf
    probability = np.exp(logits - known._logsumexp(logits))
    order = np.argsort(-probability)
    mass_before = np.cumsum(probability[order]) - probability[order]
    logits[order[mass_before >= options.get("top_p", 2.0)]] = -np.inf
    return logits - known._logsumexp(logits)


def _contexts() -> Iterator[tuple[np.ndarray, int]]:
    """(ids before, token) of each scored token."""
    corpus = _corpus()
    for ids, scored in zip(corpus.token_ids, corpus.scored, strict=True):
        yield from ((ids[:t], int(ids[t])) for t in np.flatnonzero(scored))


def _reshaped_own(model: Path, options: dict) -> np.ndarray:
    return np.array(
        [
            _reshaped(_logits(model, context.tolist()), context, options)[token]
            for context, token in _contexts()
        ]
    )


def _kept_own(model: Path, options: dict) -> list[float]:
    """What the cuts leave of the distribution at the same temperature and penalty."""
    whole = {k: v for k, v in options.items() if k in ("temperature", "repetition_penalty")}
    masses = []
    for context, _ in _contexts():
        logits = _logits(model, context.tolist())
        kept = np.isfinite(_reshaped(logits, context, options))
        masses.append(float(np.exp(_reshaped(logits, context, whole))[kept].sum()))
    return masses


def _logits(model: Path, context: list[int]) -> np.ndarray:
    """A penalty acts on logits: log-probabilities have another sign."""
    weights = known._read(model)
    hidden = known._norm(known._last_hidden(weights, context)) * weights["model.norm.weight"]
    return weights["lm_head.weight"] @ hidden


@pytest.mark.parametrize("request_", RESHAPED)
def test_a_samplers_options_give_its_distribution(
    requests_taken: Taken, attention: Path, request_: str
) -> None:
    """Temperature on logits, penalties and cuts are those of the sampler; what is cut is -inf."""
    options = dict(_condition("", request_).options)
    expected = _reshaped_own(attention, options)
    got = requests_taken.values(request_)
    assert np.array_equal(np.isneginf(got), np.isneginf(expected))
    kept = np.isfinite(expected)
    assert kept.any()
    np.testing.assert_allclose(got[kept], expected[kept], atol=EXACT_NATS, rtol=0)
    asked = {k: v for k, v in options.items() if k in (*RESHAPING, "temperature")}
    assert requests_taken.facts(request_)["scored_as"] == asked
    cuts = any(name in options for name in ("top_k", "top_p", "min_p"))
    table = store.read_table(requests_taken.folder(request_) / "tokens.parquet")
    assert ("kept_mass" in table.column_names) == cuts
    if cuts:
        mass = table["kept_mass"].drop_null().to_numpy()
        np.testing.assert_allclose(mass, _kept_own(attention, options), atol=1e-5, rtol=0)


def test_topk_and_entropy_are_of_the_same_distribution(requests_taken: Taken, truth: list) -> None:
    """The five likeliest tokens best first, and the entropy in nats."""
    folder = requests_taken.folder("topk=5,entropy=true")
    tables = [table for tables in truth for table in tables]
    best = np.array([np.sort(table)[::-1][:5] for table in tables])
    got = store.read_table(folder / "topk.parquet")["logprob"].to_numpy().reshape(-1, 5)
    np.testing.assert_allclose(got, best, atol=EXACT_NATS, rtol=0)
    entropy = store.read_table(folder / "tokens.parquet")["entropy"].drop_null().to_numpy()
    expected = [-float(np.sum(np.exp(table) * table)) for table in tables]
    np.testing.assert_allclose(entropy, expected, atol=EXACT_NATS, rtol=0)


def test_tokens_that_the_sampler_liked_are_scored_too(
    take: Take, attention: Path, truth: list
) -> None:
    """Four given tokens at each position, beside the two likeliest, at their known values."""
    requests = ("topk=2", "topk=2,batch=3,packing=true", "topk=2,logits=chunked:7")
    taken = take(attention, "dtype=fp32,threads=2", requests, asked=4)
    corpus = _corpus(4)
    assert corpus.top_ids is not None
    scored = np.concatenate(corpus.scored)
    asked = np.concatenate(corpus.top_ids)[scored]
    tables = np.array([table for tables in truth for table in tables])
    for request in requests:
        top = read_top(taken.folder(request), read_tokens(taken.folder(request)))
        assert top is not None
        own = np.argsort(-tables, axis=1)[:, :2]
        np.testing.assert_array_equal(top.ids[:, :2], own)
        expected = np.where((asked[:, :, None] == own[:, None, :]).any(axis=2), -1, asked)
        np.testing.assert_array_equal(top.ids[:, 2:], expected)
        there = top.ids >= 0
        values = np.take_along_axis(tables, np.maximum(top.ids, 0), 1)
        np.testing.assert_allclose(top.logprobs[there], values[there], atol=EXACT_NATS, rtol=0)


def test_topk_of_a_cut_distribution_names_no_token_outside(requests_taken: Taken) -> None:
    """Where fewer than K tokens are kept, the rest of the ranks is empty."""
    folder = requests_taken.folder(RESHAPED[6])
    table = store.read_table(folder / "topk.parquet")
    assert np.isfinite(table["logprob"].to_numpy()).all()
    mass: dict[tuple[int, int], float] = {}
    columns = (table[n].to_numpy() for n in ("sequence_id", "position", "logprob"))
    for sequence, position, logprob in zip(*columns, strict=True):
        key = (sequence, position)
        mass[key] = mass.get(key, 0.0) + float(np.exp(logprob))
    np.testing.assert_allclose(list(mass.values()), 1.0, atol=1e-4)


# ---------------------------------------------------------------- load options


def test_eager_packs_and_decodes_too(take: Take, attention: Path, truth: list) -> None:
    """Packing and caches do not leak under the other attention either; threads and determinism
    are read back.
    """
    requests = ("batch=3,packing=true", "batch=3,cache=dynamic")
    load = "dtype=fp32,attention=eager,threads=1,deterministic=true"
    taken = take(attention, load, requests)
    for request in requests:
        _close(taken, request, _own(truth), EXACT_NATS)
    observed = taken.facts(requests[0])["observed"]
    assert observed["threads"] == 1 and observed["deterministic"] is True


def test_a_float32_head_of_a_tied_model_is_its_own(take: Take) -> None:
    """The shipped checkpoint ties its head: widening it leaves the embedding in bfloat16."""
    taken = take(known.SHIPPED, "dtype=bf16,lm_head=fp32")
    plain = take(known.SHIPPED, "dtype=bf16")
    facts = taken.facts()
    assert facts["observed"]["lm_head"] == "fp32" and facts["observed"]["dtype"] == "bf16"
    assert facts["logits_dtype"] == "float32" and plain.facts()["logits_dtype"] == "bfloat16"
    gap = np.abs(taken.values() - plain.values())
    assert 1e-4 < gap.mean() < 0.1


#: torchrun gives a rank one thread where nothing is said; two split products over few rows.
ONE_THREAD = "dtype=fp32,threads=1"
MODES = ("", "logits=chunked:7", "batch=3,padding=left", "batch=3,packing=true", "cache=dynamic")


@pytest.mark.ranks
def test_fsdp_gives_the_bits_of_one_process(take: Take, two_heads: Path) -> None:
    """Two ranks that gather each layer's weights compute what one process does, in every mode."""
    alone = take(two_heads, ONE_THREAD, MODES)
    spread = take(two_heads, f"{ONE_THREAD},fsdp=2", MODES)
    assert spread.facts()["world_size"] == 2 and spread.facts()["observed"]["fsdp"] == 2
    for mode in MODES:
        assert np.array_equal(spread.values(mode), alone.values(mode)), mode


@pytest.mark.ranks
def test_tensor_parallel_ranks_give_the_known_values(take: Take, two_heads: Path) -> None:
    """A head on each of two ranks is the same function, in every mode."""
    alone = take(two_heads, ONE_THREAD, MODES)
    taken = take(two_heads, f"{ONE_THREAD},tp=2", MODES)
    assert taken.facts()["world_size"] == 2 and taken.facts()["observed"]["tp"] == 2
    for mode in MODES:
        np.testing.assert_allclose(taken.values(mode), alone.values(mode), atol=1e-4)


@pytest.mark.ranks
def test_fsdp_in_mixed_precision_computes_lower(take: Take, two_heads: Path) -> None:
    """Weights are stored in float32, gathered and multiplied in bfloat16."""
    spread = take(two_heads, "dtype=fp32,fsdp=2,fsdp_mixed=bf16")
    observed = spread.facts()["observed"]
    assert observed["fsdp_mixed"] == "bf16" and observed["dtype"] == "fp32"
    _close(spread, "", _own(_truth(two_heads)), HALF_NATS)


@pytest.mark.ranks
def test_heads_that_do_not_divide_are_named(attention: Path, tmp_path: Path) -> None:
    """One head on two ranks fails at load, with a sentence."""
    with pytest.raises(AssertionError, match=r"tp=2 does not divide num_attention_heads=1"):
        _take(tmp_path, attention, "dtype=fp32,tp=2")


def test_a_compiled_model_gives_the_known_values(take: Take, attention: Path, truth: list) -> None:
    """torch.compile of the whole model, seen in dynamo's counters, changes rounding alone."""
    taken = take(attention, "dtype=fp32,compile=true", ("", "batch=3,padding=right"))
    assert taken.facts()["compiled"]["graphs"] > 0
    _close(taken, "", _own(truth), EXACT_NATS)
    _close(taken, "batch=3,padding=right", _own(truth), EXACT_NATS)


def test_flex_attention_keeps_packed_sequences_apart(
    take: Take, attention: Path, truth: list
) -> None:
    """Its block mask knows the borders of packed sequences."""
    taken = take(attention, "dtype=fp32,attention=flex_attention", ("", "batch=3,packing=true"))
    _close(taken, "", _own(truth), EXACT_NATS)
    _close(taken, "batch=3,packing=true", _own(truth), EXACT_NATS)


# ---------------------------------------------------------------- quantisation


def _e4m3(x: np.ndarray) -> np.ndarray:
    """The nearest e4m3 value: three mantissa bits, exponents from -6, halves to even."""
    magnitude = np.maximum(np.abs(x), 2.0**-9)
    step = 2.0 ** (np.maximum(np.floor(np.log2(magnitude)), -6) - 3)
    return np.clip(np.rint(x / step) * step, -448, 448)


def _fp8_rows(x: np.ndarray) -> np.ndarray:
    scale = np.abs(x).max(-1, keepdims=True) / 448
    return _e4m3(x / scale) * scale


def _fp8_blocks(weight: np.ndarray) -> np.ndarray:
    """128 x 128 blocks; every matrix here is smaller than one."""
    assert max(weight.shape) <= 128
    scale = np.abs(weight).max() / 448
    return _e4m3(weight / scale) * scale


def _int8_rows(x: np.ndarray) -> np.ndarray:
    scale = np.abs(x).max(-1, keepdims=True) / 127
    return np.clip(np.rint(x / scale), -127, 127) * scale


def _as_it_is(x: np.ndarray) -> np.ndarray:
    return x


ROUNDED = {
    "fp8": (_fp8_blocks, _fp8_rows),
    "fp8_weights": (_fp8_blocks, _as_it_is),
    "int8": (_int8_rows, _int8_rows),
}


def _quantised(model: Path, context: list[int], kind: str) -> np.ndarray:
    """(vocabulary,) log-probabilities with the layer's four projections rounded."""
    on_weight, on_activation = ROUNDED[kind]
    w, layer = known._read(model), "model.layers.0.self_attn."
    q, k, v, o = (on_weight(w[f"{layer}{n}_proj.weight"]) for n in "qkvo")
    embedded = w["model.embed_tokens.weight"][context]
    inputs = [on_activation(known._norm(row)) for row in embedded]
    last = known._rotate(q @ inputs[-1], len(context) - 1)
    scores = np.array([last @ known._rotate(k @ x, t) for t, x in enumerate(inputs)])
    scores /= np.sqrt(known.HEAD)
    share = np.exp(scores - known._logsumexp(scores))
    added = o @ on_activation(share @ np.array([v @ x for x in inputs]))
    logits = w["lm_head.weight"] @ (known._norm(embedded[-1] + added) * w["model.norm.weight"])
    return logits - known._logsumexp(logits)


@pytest.mark.parametrize("kind", ["fp8", "fp8_weights", "int8"])
def test_emulated_quantisation_is_the_one_in_numpy(
    take: Take, attention: Path, truth: list, kind: str
) -> None:
    """Weights and activations lie on their grids, and nothing else is rounded."""
    taken = take(attention, f"dtype=fp32,quantization={kind}")
    assert taken.facts()["quantization"].startswith("emulated")
    corpus, expected = taken.corpus, []
    for ids, scored in zip(corpus.token_ids, corpus.scored, strict=True):
        for t in np.flatnonzero(scored):
            expected.append(_quantised(attention, ids[:t].tolist(), kind)[ids[t]])
    gap = np.abs(taken.values() - np.array(expected))
    # A value on the border of two grid points may fall either way in float32.
    assert np.median(gap) < 1e-5 and np.mean(gap < EXACT_NATS) > 0.9
    assert np.abs(taken.values() - _own(truth)).mean() > 20 * gap.mean()
