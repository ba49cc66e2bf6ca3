"""The options of vllm on models in closed form: what each must do to the values, and that it did.

An engine start costs half a minute, so conditions that differ per request share one.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mismatch import store
from mismatch.capture import checkpoint, plan
from mismatch.capture import run as captures
from mismatch.compare.align import read_tokens
from mismatch.engines import ENGINES, parse_condition
from mismatch.engines.base import this_machine
from mismatch.model import Corpus, make_corpus
from tests import known
from tests.contract.taking import order_of, take

pytestmark = [
    pytest.mark.real,
    pytest.mark.slow,
]  # loads of their own: make test holds the contract

VLLM = ENGINES["vllm"]

# float32 in the engine, float64 in the closed form.
TOLERANCE_NATS = 1e-4
PROMPT, NEW = 6, 20


@dataclass(frozen=True)
class Captured:
    """The traces of one load. keys: a word for each condition -> its request options."""

    root: Path
    load: str
    requests: dict[str, str]
    corpus: Corpus

    def folder(self, key: str, path: str) -> Path:
        spec = ",".join(filter(None, (self.load, self.requests[key])))
        return self.root / "traces" / parse_condition(spec).id / f"{path}-1"

    def values(self, key: str, path: str) -> np.ndarray:
        trace = read_tokens(self.folder(key, path))
        return trace.logprob[trace.scored]

    def entropies(self, key: str, path: str) -> np.ndarray:
        columns = store.read_table(self.folder(key, path) / "tokens.parquet")
        return np.asarray(columns["entropy"])[np.concatenate(self.corpus.scored)]

    def top(self, key: str, path: str) -> dict[tuple[int, int], dict[int, float]]:
        """(sequence, position) -> the likeliest ids and their values."""
        columns = store.read_table(self.folder(key, path) / "topk.parquet")
        found: dict[tuple[int, int], dict[int, float]] = {}
        names = ("sequence_id", "position", "token_id", "logprob")
        for s, t, token, value in zip(*(np.asarray(columns[n]) for n in names), strict=True):
            found.setdefault((int(s), int(t)), {})[int(token)] = float(value)
        return found

    def facts(self, key: str, path: str) -> dict[str, Any]:
        return store.read_json(self.folder(key, path) / "provenance.json")["facts"]

    def positions(self) -> list[tuple[int, int]]:
        masks = enumerate(self.corpus.scored)
        return [(s, int(t)) for s, scored in masks for t in np.flatnonzero(scored)]


def _take(
    root: Path,
    model: Path,
    load: str,
    requests: dict[str, tuple[str, list[str]]],
    corpus: Corpus | None = None,
) -> Captured:
    """Take the captures of one load: key -> (request options, paths). The first rolls out."""
    prompts = [{"token_ids": ids} for ids in known.sequences(6, PROMPT)]
    conditions = [
        (parse_condition(",".join(filter(None, (load, more)))), paths)
        for more, paths in requests.values()
    ]
    count = len(prompts) if corpus is None else len(corpus)
    tasks = [
        t for c, paths in conditions for t in plan.tasks(VLLM, c, paths, 1, "none", count)
    ]  # fmt: skip
    got = take(root, order_of(VLLM, conditions[0][0], tasks, model, corpus, prompts, NEW))
    return Captured(root, load, {key: more for key, (more, _) in requests.items()}, got)


# ---------------------------------------------------------------- the closed form


def _sampled_from(logits: np.ndarray, context: list[int], options: dict[str, Any]) -> np.ndarray:
    """(vocabulary,) log-probabilities of what a sampler draws from, in the order vllm works in."""
    x = logits.copy()
    seen, penalty = np.unique(context), options.get("repetition_penalty", 1.0)
    x[seen] = np.where(x[seen] > 0, x[seen] / penalty, x[seen] * penalty)
    x /= options.get("temperature", 1.0)
    share = np.exp(x - x.max())
    x[share < options.get("min_p", 0.0)] = -np.inf
    if "top_k" in options:
        x[x < np.sort(x)[-options["top_k"]]] = -np.inf
    order = np.argsort(x)
    mass = np.cumsum(np.exp(_normal(x))[order])
    drop = mass <= 1 - options.get("top_p", 1.0)
    drop[-1] = False
    x[order[drop]] = -np.inf
    return _normal(x)


def _normal(x: np.ndarray) -> np.ndarray:
    return x - x.max() - np.log(np.exp(x - x.max()).sum())


def _logits(model: Path, context: list[int]) -> np.ndarray:
    weights = known._read(model)
    hidden = known._norm(known._last_hidden(weights, context)) * weights["model.norm.weight"]
    return weights["lm_head.weight"] @ hidden


def _tables(captured: Captured, model: Path, text: str) -> list[np.ndarray]:
    """The distribution at each scored position under request options; "" = the model's own."""
    options = dict(parse_condition(f"vllm:{text}").options) if text else {}
    contexts = [captured.corpus.token_ids[s][:t].tolist() for s, t in captured.positions()]
    return [_sampled_from(_logits(model, c), c, options) for c in contexts]


def _own(captured: Captured, tables: list[np.ndarray]) -> np.ndarray:
    places = zip(captured.positions(), tables, strict=True)
    return np.array([table[captured.corpus.token_ids[s][t]] for (s, t), table in places])


def _check_distribution(
    captured: Captured, key: str, path: str, tables: list[np.ndarray], k: int
) -> None:
    """Own values, the K likeliest and the entropy of every scored position."""
    near = {"atol": TOLERANCE_NATS, "rtol": 0}
    np.testing.assert_allclose(captured.values(key, path), _own(captured, tables), **near)
    with np.errstate(invalid="ignore"):
        entropies = [-np.nansum(np.exp(t) * t) for t in tables]
    np.testing.assert_allclose(captured.entropies(key, path), entropies, atol=1e-3, rtol=0)
    top = captured.top(key, path)
    for place, table in zip(captured.positions(), tables, strict=True):
        best = np.sort(table[np.isfinite(table)])[::-1][:k]
        assert len(top[place]) == len(best)
        np.testing.assert_allclose(list(top[place].values()), best, **near)
        np.testing.assert_allclose([table[i] for i in top[place]], best, **near)


# ---------------------------------------------------------------- processed values

RESHAPED = "temperature=0.7,top_k=20,top_p=0.9,min_p=0.01,repetition_penalty=1.3"
NARROW = "temperature=0.7,top_k=3"
MORE = "topk=7,entropy=true"
#: Scheduler options in float32 change nothing that the closed form could see.
PROCESSED = (
    "vllm:dtype=fp32,eager=true,logprobs_mode=processed_logprobs,max_num_seqs=4,"
    "max_num_batched_tokens=7,chunked_prefill=true,prefix_caching=false"
)


@pytest.fixture(scope="module")
def processed(attention: Path, tmp_path_factory: pytest.TempPathFactory) -> Captured:
    """Every path of one reshaped condition, and others that score its ids."""
    return _take(
        tmp_path_factory.mktemp("processed"),
        attention,
        PROCESSED,
        {
            "reshaped": (f"{RESHAPED},{MORE}", ["rollout", "decode", "prefill"]),
            "narrow": (NARROW, ["decode"]),
            "wide": ("topk=30", ["decode", "prefill"]),
            "plain": ("", ["decode", "prefill"]),
        },
    )


@pytest.mark.parametrize("path", ["rollout", "decode"])
def test_processed_values_are_of_the_distribution_drawn_from(
    processed: Captured, attention: Path, path: str
) -> None:
    """Penalty, temperature, min-p, top-k and top-p are in the value, the top-k and the entropy."""
    tables = _tables(processed, attention, RESHAPED)
    _check_distribution(processed, "reshaped", path, tables, 7)
    assert processed.facts("reshaped", path)["scored_as"]["temperature"] == 0.7
    assert "temperature=0.7" in processed.facts("reshaped", path)["logprob_space"]


def test_processed_decode_is_the_rollout_bit_for_bit(processed: Captured) -> None:
    """Forced ids get the very values they were drawn with, not those of a masked table."""
    drawn, forced = (processed.values("reshaped", p) for p in ("rollout", "decode"))
    assert drawn.tobytes() == forced.tobytes() and (drawn < 0).any()
    for path in ("rollout", "decode"):
        assert np.isfinite(processed.values("reshaped", path)).all()
    assert processed.top("reshaped", "rollout") == processed.top("reshaped", "decode")


def test_an_id_that_could_not_be_drawn_says_minus_infinity(
    processed: Captured, attention: Path
) -> None:
    """Under a narrower top-k some ids of the rollout are outside: -inf, and the others finite."""
    got = processed.values("narrow", "decode")
    truth = _own(processed, _tables(processed, attention, NARROW))
    assert np.isneginf(got).any() and not np.isneginf(got).all()
    np.testing.assert_allclose(got, truth, atol=TOLERANCE_NATS, rtol=0)


def test_prefill_is_never_scaled_and_says_so(processed: Captured, attention: Path) -> None:
    """Values of a prompt are the model's own under any sampling options, and are labelled raw."""
    _check_distribution(processed, "reshaped", "prefill", _tables(processed, attention, ""), 7)
    facts = processed.facts("reshaped", "prefill")
    assert facts["scored_as"] == {}
    assert facts["logprob_space"].startswith("raw log-probabilities of the model")
    assert "temperature=0.7" in facts["logprob_space"]
    plain = processed.values("plain", "prefill")
    assert processed.values("reshaped", "prefill").tobytes() == plain.tobytes()


def test_neutral_sampling_is_the_models_own_distribution(
    processed: Captured, attention: Path
) -> None:
    """At T = 1 over the whole support processed values are the raw ones; a wide top-k has them."""
    truth = _own(processed, _tables(processed, attention, ""))
    for key in ("plain", "wide"):
        got = processed.values(key, "decode")
        np.testing.assert_allclose(got, truth, atol=TOLERANCE_NATS, rtol=0)
    assert all(len(best) == 30 for best in processed.top("wide", "prefill").values())


def test_the_load_and_the_sampler_confirm_what_was_asked(processed: Captured) -> None:
    """Facts show scheduler, cache and sampler as they were, also for what was not asked."""
    facts = processed.facts("reshaped", "rollout")
    asked = parse_condition(f"{PROCESSED},{RESHAPED},{MORE}").options
    assert {name: facts["observed"][name] for name in asked} == dict(asked)
    assert facts["sampling"]["presence_penalty"] == 0 and facts["max_logprobs"] == 30
    assert processed.facts("plain", "decode")["sampling"]["temperature"] == 1.0


# ---------------------------------------------------------------- raw values

LEAKING = "vllm:dtype=fp32,eager=true,generation_config=auto"


@pytest.fixture(scope="module")
def leaking(attention: Path, tmp_path_factory: pytest.TempPathFactory) -> Captured:
    """A checkpoint whose generation_config narrows what is drawn, with raw values."""
    root = tmp_path_factory.mktemp("leaking")
    model = known.write_checkpoint(root / "model", attention=True)
    defaults = {"temperature": 0.5, "top_k": 2, "eos_token_id": 0, "do_sample": True}
    (model / "generation_config.json").write_text(json.dumps(defaults))
    return _take(
        root,
        model,
        LEAKING,
        {
            "leak": ("", ["rollout", "decode"]),
            "stated": (f"{RESHAPED},{MORE}", ["decode", "prefill"]),
        },
    )


def test_the_checkpoints_sampling_defaults_leak_where_asked(
    leaking: Captured, attention: Path
) -> None:
    """generation_config=auto draws among the two likeliest tokens, and the facts say so."""
    facts = leaking.facts("leak", "rollout")
    assert facts["sampling"]["temperature"] == 0.5 and facts["sampling"]["top_k"] == 2
    ranks = [
        int((table > table[leaking.corpus.token_ids[s][t]]).sum())
        for (s, t), table in zip(leaking.positions(), _tables(leaking, attention, ""), strict=True)
    ]
    assert set(ranks) == {0, 1}


def test_raw_values_are_the_models_own_however_drawn(leaking: Captured, attention: Path) -> None:
    """Raw mode: neither the leak nor stated options are in the values, the top-k or the entropy."""
    tables = _tables(leaking, attention, "")
    for path in ("rollout", "decode"):
        got = leaking.values("leak", path)
        np.testing.assert_allclose(got, _own(leaking, tables), atol=TOLERANCE_NATS, rtol=0)
    for path in ("decode", "prefill"):
        _check_distribution(leaking, "stated", path, tables, 7)
        assert leaking.facts("stated", path)["scored_as"] == {}


def test_raw_decode_is_the_rollout_bit_for_bit(leaking: Captured) -> None:
    """Forcing changes no bit of raw values, whatever else the sampler is told."""
    drawn = leaking.values("leak", "rollout").tobytes()
    assert drawn == leaking.values("leak", "decode").tobytes()
    assert drawn == leaking.values("stated", "decode").tobytes()
    assert leaking.facts("stated", "decode")["observed"]["repetition_penalty"] == 1.3
    assert leaking.facts("stated", "decode")["sampling"]["top_k"] == 20


# ---------------------------------------------------------------- tensor parallel

TWO_RANKS = "vllm:dtype=fp32,eager=true,tp=2,logprobs_mode=processed_logprobs"


def _running_in(root: Path) -> list[str]:
    """Command lines of processes whose working folder lies below root."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve().is_relative_to(root):
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> tuple[Captured, Path]:
    """A model of two heads on two ranks, every path, reshaped and with the distribution."""
    root = tmp_path_factory.mktemp("ranks")
    model = known.write_checkpoint(root / "model", attention=True, heads=2)
    requests = {
        "reshaped": (f"{RESHAPED},{MORE}", ["rollout", "decode"]),
        "plain": (MORE, ["decode", "prefill"]),
    }
    return _take(root / "out", model, TWO_RANKS, requests), model


@pytest.mark.ranks
def test_two_ranks_have_the_known_values(two_ranks: tuple[Captured, Path]) -> None:
    """Sharded heads, forced ids and samplers in two processes: the closed form on every path."""
    captured, model = two_ranks
    for path in ("rollout", "decode"):
        _check_distribution(captured, "reshaped", path, _tables(captured, model, RESHAPED), 7)
    for path in ("decode", "prefill"):
        _check_distribution(captured, "plain", path, _tables(captured, model, ""), 7)


@pytest.mark.ranks
def test_two_ranks_force_bit_for_bit_and_are_observed(two_ranks: tuple[Captured, Path]) -> None:
    """decode == rollout also where the sampler is in other processes, which facts are read from."""
    captured, _ = two_ranks
    drawn, forced = (captured.values("reshaped", p) for p in ("rollout", "decode"))
    assert drawn.tobytes() == forced.tobytes()
    observed = captured.facts("reshaped", "rollout")["observed"]
    assert observed["tp"] == 2 and observed["attention"] and observed["dtype"] == "fp32"
    assert observed["temperature"] == 0.7


@pytest.mark.ranks
def test_ranks_end_with_their_guest(two_ranks: tuple[Captured, Path]) -> None:
    """After a load is closed none of its processes is left."""
    captured, _ = two_ranks
    assert _running_in(captured.root) == []


# ---------------------------------------------------------------- lower precision


def _corpus() -> Corpus:
    return make_corpus([(np.array(ids), None) for ids in known.sequences(6, 30)])


@pytest.mark.skipif(not this_machine().wide, reason="vllm's fp8 cache needs AVX-512 or AMX")
def test_an_fp8_kv_cache_is_used_and_shows(attention: Path, tmp_path: Path) -> None:
    """Keys and values in 8 bits: observed in the live layers, and visible in the values."""
    load = "vllm:dtype=bf16,eager=true,kv_cache_dtype=fp8"
    got = _take(tmp_path, attention, load, {"only": ("", ["decode"])}, _corpus())
    facts = got.facts("only", "decode")
    assert facts["observed"]["kv_cache_dtype"] == "fp8"
    assert facts["kv_cache"] in ([["fp8", "uint8"]], [["fp8", "float8_e4m3fn"]])
    truth = _own(got, _tables(got, attention, ""))
    gap = np.abs(got.values("only", "decode") - truth)
    assert 1e-3 < gap.mean() < 0.5


LAYER = "model.layers.0."
FUSED = {
    LAYER + "self_attn.qkv_proj": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    LAYER + "self_attn.o_proj": ["self_attn.o_proj"],
    LAYER + "mlp.gate_up_proj": ["mlp.gate_proj", "mlp.up_proj"],
    LAYER + "mlp.down_proj": ["mlp.down_proj"],
}


def _e4m3(x: np.ndarray) -> np.ndarray:
    """The nearest e4m3 value, halves to even: 3 bits of mantissa, steps of 2^-9 below 2^-6."""
    with np.errstate(divide="ignore"):
        exponent = np.maximum(np.floor(np.log2(np.abs(x))), -6)
    step = np.exp2(np.where(np.isfinite(exponent), exponent, -6) - 3).astype(np.float32)
    return np.round(x / step) * step


def _quantised(kind: str, weight: np.ndarray) -> np.ndarray:
    """(out, in) fp32 -> on its grid: blocks of 128 x 128 in e4m3, or rows in int8."""
    out = np.empty_like(weight)
    rows, columns = (1, weight.shape[1]) if kind == "int8" else (128, 128)
    for top in range(0, weight.shape[0], rows):
        for left in range(0, weight.shape[1], columns):
            place = (slice(top, top + rows), slice(left, left + columns))
            block, end = weight[place], np.float32(127 if kind == "int8" else 448)
            scale = np.maximum(np.abs(block).max() / end, np.finfo(np.float32).tiny)
            near = np.round(block / scale) if kind == "int8" else _e4m3(block / scale)
            out[place] = near * scale
    return out


def _wide_model(folder: Path, kind: str | None = None) -> Path:
    """q, k and v of two blocks each; with `kind`, linear layers quantised in the checkpoint."""
    model = known.write_checkpoint(folder, attention=True, heads=8)  # q: 256 x 64
    weights = dict(load_file(model / "model.safetensors"))
    rng = np.random.default_rng(1)
    weights[LAYER + "mlp.down_proj.weight"] = rng.normal(0, 0.05, (64, 64)).astype(np.float32)
    if kind:
        for part in (p for parts in FUSED.values() for p in parts):
            name = f"{LAYER}{part}.weight"
            weights[name] = _quantised(kind, weights[name])
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    return model


def _check_digests(facts: dict[str, Any], kind: str, model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    for name, parts in FUSED.items():
        whole = np.concatenate(
            [_quantised(kind, weights[f"{LAYER}{part}.weight"]) for part in parts]
        )
        digest = hashlib.sha256((whole + np.float32(0)).tobytes()).hexdigest()  # no -0
        assert facts["weight_digests"][name] == digest, name
    assert facts["emulation"].startswith("emulated: 4 linear layers")


EMULATED = "vllm:dtype=fp32,eager=true,quantization="
PLAIN = "vllm:dtype=fp32,eager=true"
BOTH = {"only": ("", ["decode", "prefill"])}


@pytest.fixture(scope="module")
def emulated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Captured, Path]:
    """Weights rounded to fp8 inside the engine."""
    root = tmp_path_factory.mktemp("emulated")
    model = _wide_model(root / "model")
    return _take(root / "out", model, f"{EMULATED}fp8_weights", BOTH, _corpus()), model


def test_quantised_weights_are_those_of_the_checkpoints_own_blocks(
    emulated: tuple[Captured, Path],
) -> None:
    """The weights that the packed kernels work with equal a recomputation, unfused, bit for bit."""
    captured, model = emulated
    facts = captured.facts("only", "decode")
    _check_digests(facts, "fp8_weights", model)
    assert facts["observed"]["quantization"] == "fp8_weights"


def test_emulating_adds_nothing_but_the_rounding(
    emulated: tuple[Captured, Path], tmp_path: Path
) -> None:
    """A checkpoint that holds the rounded weights gives the same bits in the plain engine."""
    captured, _ = emulated
    model = _wide_model(tmp_path / "stored", "fp8_weights")
    stored = _take(tmp_path / "out", model, PLAIN, BOTH, _corpus())
    for path in ("decode", "prefill"):
        same = captured.values("only", path).tobytes() == stored.values("only", path).tobytes()
        assert same, path
    assert "emulation" not in stored.facts("only", "decode")


@pytest.mark.parametrize("kind", ["fp8", "int8"])
def test_rounded_activations_show_beside_rounded_weights(tmp_path: Path, kind: str) -> None:
    """fp8 and int8 round inputs too: weights as recomputed, values off those of weights alone."""
    model, stored = _wide_model(tmp_path / "model"), _wide_model(tmp_path / "stored", kind)
    got = _take(tmp_path / "a", model, EMULATED + kind, BOTH, _corpus())
    _check_digests(got.facts("only", "decode"), kind, model)
    assert got.facts("only", "decode")["observed"]["quantization"] == kind
    plain = _take(tmp_path / "b", stored, PLAIN, BOTH, _corpus())
    gap = np.abs(got.values("only", "decode") - plain.values("only", "decode"))
    assert 1e-4 < gap.mean() < 0.3


@pytest.mark.ranks
def test_a_rank_that_dies_ends_the_guest(tmp_path: Path) -> None:
    """A killed rank is an error of the capture it was working on, soon, and nothing is left."""
    model = known.write_checkpoint(tmp_path / "model", attention=True, heads=2)
    killed: list[int] = []

    def kill_one(event: dict[str, Any]) -> None:
        if event["stage"] == "score" and not killed:
            killed.append(_kill_a_rank(tmp_path / "out"))

    load = parse_condition("vllm:dtype=fp32,eager=true,tp=2,batch=1")
    corpus = make_corpus([(np.array(ids), None) for ids in known.sequences(20, 120)])
    tasks = plan.tasks(VLLM, load, ["decode"], 1, "none", len(corpus))
    order = captures.Order(
        VLLM, VLLM.load_of(load), tuple(tasks), checkpoint.inspect(model), corpus, "contract"
    )
    start = time.monotonic()
    captures.take(tmp_path / "out", order, kill_one)
    error = store.read_json(next((tmp_path / "out").glob("failed/*/*/error.json")))
    assert killed and error["boundary"] == "score", error
    assert "a rank of the engine died" in error["message"], error
    assert time.monotonic() - start < 240
    # Python's resource tracker ends by itself when the last pipe to it closes, a moment later.
    for _ in range(100):
        if not _running_in(tmp_path / "out"):
            return
        time.sleep(0.1)
    assert _running_in(tmp_path / "out") == []


def _kill_a_rank(root: Path) -> int:
    """SIGKILL to one worker process below root; its id."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            inside = (process / "cwd").resolve().is_relative_to(root)
            spawned = b"spawn_main" in (process / "cmdline").read_bytes() or (
                process / "comm"
            ).read_text().startswith("VLLM::Worker")
        except OSError:
            continue
        if inside and spawned:
            os.kill(int(process.name), signal.SIGKILL)
            return int(process.name)
    raise AssertionError("no rank was running")
