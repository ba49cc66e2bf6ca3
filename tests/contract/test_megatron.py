"""megatron-core in its own environment, through the host: against hf, and against itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mismatch import api, store
from mismatch.capture import environment
from mismatch.compare.align import read_tokens
from mismatch.engines import ENGINES, parse_condition
from tests import known

pytestmark = pytest.mark.megatron

TP_NATS = 1e-5  # float32 sums in another order
EXACT_NATS = 5e-4  # float32 in the engine, float64 in the closed form

CONDITIONS = {
    "hf": "hf:dtype=fp32,attention=eager",
    "hf-bf16": "hf:dtype=bf16,attention=eager",
    "tp1": "megatron:dtype=fp32,topk=5,entropy=true",
    "local": "megatron:dtype=fp32,attention=local,sp=false,cp=1,ep=1,batch=3,threads=1",
    "tp2": "megatron:dtype=fp32,tp=2",
    "pp2": "megatron:dtype=fp32,pp=2,batch=2",
    "bf16": "megatron:dtype=bf16",
    "fp16-tp2": "megatron:dtype=fp16,tp=2",
    "cold": "megatron:dtype=fp32,temperature=0.5",
}


def _study(folder: Path, model: Path, conditions: dict[str, str], given: dict[str, Any]) -> Path:
    """All of them as trainers, against toy; given: the study's own keys. Returns the output."""
    lines = [f"{k} = {json.dumps(v)}" for k, v in {"model": str(model), **given}.items()]
    for name, spec in {**conditions, "infer": "toy:dtype=fp32"}.items():
        side = "infer" if name == "infer" else "train"
        lines += ["[[condition]]", f'side = "{side}"', f'id = "{name}"', f'spec = "{spec}"']
    (folder / "study.toml").write_text("\n".join(lines))
    api.run_study(folder / "study.toml", folder / "out")
    errors = [p.read_text() for p in (folder / "out").glob("failed/*/*/error.json")]
    assert not errors, "\n".join(errors)
    return folder / "out"


def _values(out: Path, name: str) -> np.ndarray:
    tokens = read_tokens(out / "traces" / name / "score-1")
    return tokens.logprob[tokens.scored]


def _facts(out: Path, name: str) -> dict[str, Any]:
    return store.read_json(out / "traces" / name / "score-1" / "provenance.json")["facts"]


@pytest.fixture(scope="module")
def built() -> None:
    """megatron's environment; without it every test here says how to build it."""
    environment.interpreter(ENGINES["megatron"], parse_condition("megatron"))


@pytest.fixture(scope="module")
def shipped(built: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every condition on tokens that the shipped Llama drew itself."""
    folder = tmp_path_factory.mktemp("shipped")
    prompts = [json.dumps({"token_ids": ids}) for ids in known.sequences(12, 8)]
    (folder / "prompts.jsonl").write_text("\n".join(prompts))
    given = {"prompts": "prompts.jsonl", "paths": ["rollout"], "max_tokens": 40, "floor": "none"}
    return _study(folder, known.SHIPPED, CONDITIONS, given)


@pytest.mark.parametrize("name", ["tp1", "local", "pp2"])
def test_fp32_equals_hf_eager_bit_for_bit(shipped: Path, name: str) -> None:
    """On one rank or on two pipeline stages, alone or padded in a batch: the bits of hf eager."""
    ours, theirs = _values(shipped, name), _values(shipped, "hf")
    assert len(ours) > 200 and np.isfinite(ours).all()
    assert ours.tobytes() == theirs.tobytes()


def test_fp32_on_two_tensor_ranks_is_within_rounding(shipped: Path) -> None:
    """Sums over two ranks round elsewhere: 99 tokens of 100 within 1e-5 nats, none beyond 5e-5."""
    gap = np.abs(_values(shipped, "tp2") - _values(shipped, "hf"))
    assert 0 < np.quantile(gap, 0.99) < TP_NATS
    assert gap.max() < 5 * TP_NATS


@pytest.mark.parametrize("name", ["bf16", "fp16-tp2"])
def test_lower_precision_is_near(shipped: Path, name: str) -> None:
    """Finite everywhere, off by rounding alone, as hf in bf16 is off from hf in fp32."""
    truth = _values(shipped, "hf")
    theirs = np.abs(_values(shipped, "hf-bf16") - truth).mean()
    ours = np.abs(_values(shipped, name) - truth).mean()
    assert 0 < ours < 3 * theirs < 0.1


def test_facts_are_of_the_live_model(shipped: Path) -> None:
    """Ranks off megatron's groups, dtypes off parameters, classes off modules, and the patches."""
    facts = _facts(shipped, "fp16-tp2")
    assert facts["observed"].items() >= {"tp": 2, "pp": 1, "dtype": "fp16", "threads": 1}.items()
    assert facts["attention_classes"] == ["DotProductAttention"]
    assert "RMSNorm" in facts["norm_classes"] and facts["model_class"] == "GPTModel"
    assert facts["logits_dtype"] == "float16" and facts["world_size"] == 2
    assert facts["patches"] == ["torch.cuda.current_device", "get_cuda_rng_tracker().fork"]
    assert _facts(shipped, "pp2")["layers_of_first_stage"] == 2
    assert _facts(shipped, "local")["rows_per_forward"] == [3]


def test_a_temperature_is_in_the_values(shipped: Path) -> None:
    """Logits are divided by it before log-softmax, and the facts say so."""
    assert _facts(shipped, "cold")["scored_as"] == {"temperature": 0.5}
    assert np.abs(_values(shipped, "cold") - _values(shipped, "tp1")).mean() > 0.01


def test_a_vocabulary_that_ranks_cannot_share_keeps_its_probabilities(
    built: None, tmp_path: Path
) -> None:
    """63 tokens on two ranks are padded to 64: the padded one has no probability, tied or not."""
    model = known.write_checkpoint(tmp_path / "model", attention=True, heads=2)
    weights = dict(load_file(model / "model.safetensors"))
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        weights[name] = weights[name][:63].copy()
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "vocab_size": 63}))
    ids = [[t % 63 for t in row] for row in known.sequences(4, 20)]
    (tmp_path / "ids.jsonl").write_text("\n".join(json.dumps({"token_ids": i}) for i in ids))
    given = {"corpus": "ids.jsonl", "paths": ["prefill"], "floor": "none"}
    out = _study(tmp_path, model, {"tp2": "megatron:dtype=fp32,tp=2"}, given)
    assert _facts(out, "tp2")["padded_vocabulary"] == 64
    truth = np.concatenate([known.expected(model, row)[1:] for row in ids])
    np.testing.assert_allclose(_values(out, "tp2"), truth, atol=EXACT_NATS, rtol=0)


def test_scaled_rope_is_that_of_hf(built: None, tmp_path: Path) -> None:
    """llama3's scaling, which megatron has in its source, turns as transformers' does."""
    model = known.write_checkpoint(tmp_path / "model", attention=True)
    config = json.loads((model / "config.json").read_text())
    rope = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}  # fmt: skip
    (model / "config.json").write_text(json.dumps({**config, "rope_parameters": rope}))
    rows = [json.dumps({"token_ids": ids}) for ids in known.sequences(3, 200)]
    (tmp_path / "ids.jsonl").write_text("\n".join(rows))
    given = {"corpus": "ids.jsonl", "paths": ["prefill"], "floor": "none"}
    pair = {"hf": CONDITIONS["hf"], "scaled": "megatron:dtype=fp32"}
    out = _study(tmp_path, model, pair, given)
    np.testing.assert_allclose(_values(out, "scaled"), _values(out, "hf"), atol=5e-5, rtol=0)


def test_heads_that_ranks_cannot_share_are_a_failed_cell(built: None, tmp_path: Path) -> None:
    """One head on two ranks fails at load, in one sentence, and is no evidence."""
    model = known.write_checkpoint(tmp_path / "model", attention=True, heads=1)
    rows = [json.dumps({"token_ids": ids}) for ids in known.sequences(2, 20)]
    (tmp_path / "ids.jsonl").write_text("\n".join(rows))
    given = {"corpus": "ids.jsonl", "paths": ["prefill"], "floor": "none"}
    with pytest.raises(AssertionError, match="tp=2 does not divide num_attention_heads=1"):
        _study(tmp_path, model, {"tp2": "megatron:dtype=fp32,tp=2", "hf": "toy"}, given)


def test_megatron_itself_refuses_sequence_parallelism_here(built: None, tmp_path: Path) -> None:
    """What `sp` is refused for on a CPU is megatron's own word, which arg.NAME brings out."""
    model = known.write_checkpoint(tmp_path / "model", attention=True, heads=2)
    rows = [json.dumps({"token_ids": ids}) for ids in known.sequences(2, 20)]
    (tmp_path / "ids.jsonl").write_text("\n".join(rows))
    given = {"corpus": "ids.jsonl", "paths": ["prefill"], "floor": "none"}
    spec = {"sp": "megatron:dtype=fp32,tp=2,arg.sequence_parallel=true", "toy": "toy"}
    with pytest.raises(AssertionError, match="sequence parallel not supported by torch LayerNorm"):
        _study(tmp_path, model, spec, given)
