"""From the tensors of a Llama checkpoint to the parameters of a megatron rank, with numpy."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mismatch.engines.megatron import convert, llama
from tests import known

MODEL = llama.Llama(
    layers=4, hidden=4, ffn=6, heads=4, groups=2, head_dim=2, vocabulary=5, positions=32,
    norm_eps=1e-5, tied=False, rope_theta=10000.0, rope_factor=None,
)  # fmt: skip
ATTENTION, MLP = "model.layers.1.self_attn.", "model.layers.1.mlp."


def _checkpoint() -> dict[str, np.ndarray]:
    """Layer 1 and both ends; every row of every matrix is its own number."""
    rows = {
        f"{ATTENTION}q_proj": 8, f"{ATTENTION}k_proj": 4, f"{ATTENTION}v_proj": 4,
        f"{ATTENTION}o_proj": 4, f"{MLP}gate_proj": 6, f"{MLP}up_proj": 6, f"{MLP}down_proj": 4,
        "model.embed_tokens": 5, "lm_head": 5,
    }  # fmt: skip
    columns = {f"{ATTENTION}o_proj": 8, f"{MLP}down_proj": 6}
    found, start = {}, 0
    for name, count in rows.items():
        size = count * columns.get(name, 4)
        found[f"{name}.weight"] = np.arange(start, start + size).reshape(count, -1)
        start += size
    norms = (
        "model.norm",
        "model.layers.1.input_layernorm",
        "model.layers.1.post_attention_layernorm",
    )
    found |= {f"{name}.weight": np.full(4, 1000 + k) for k, name in enumerate(norms)}
    return found


SOURCE = _checkpoint()


def _read(weight: convert.Weight) -> np.ndarray:
    parts = []
    for part in weight.parts:
        tensor = SOURCE[part.source]
        if part.columns:
            tensor = tensor[:, slice(*part.columns)]
        parts.append(tensor[slice(*part.rows)] if part.rows else tensor)
    if weight.zeros:
        parts.append(np.zeros((weight.zeros, parts[0].shape[1]), parts[0].dtype))
    return np.concatenate(parts)


def _rank(rank: int, ranks: int, model: llama.Llama = MODEL) -> dict[str, np.ndarray]:
    place = convert.Place(range(1, 2), rank, ranks)
    return {name: _read(weight) for name, weight in convert.weights(model, place).items()}


QKV = "decoder.layers.0.self_attention.linear_qkv.weight"


def test_qkv_is_group_major() -> None:
    """For each group: the rows of its query heads, then of its key, then of its value."""
    q, k, v = (SOURCE[f"{ATTENTION}{n}_proj.weight"] for n in "qkv")
    by_hand = np.concatenate([q[0:4], k[0:2], v[0:2], q[4:8], k[2:4], v[2:4]])
    assert np.array_equal(_rank(0, 1)[QKV], by_hand)


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_rank_holds_an_equal_share_of_the_rows_of_qkv(ranks: int) -> None:
    """Whole groups where there are enough, and a cut through a group where there are more ranks."""
    shares = [_rank(rank, ranks)[QKV] for rank in range(ranks)]
    assert {len(s) for s in shares} == {16 // ranks}
    assert np.array_equal(np.concatenate(shares), _rank(0, 1)[QKV])


def test_gate_and_up_are_split_each_for_itself() -> None:
    """A rank has its rows of gate above its rows of up: silu(gate) * up pairs them."""
    gate, up = (SOURCE[f"{MLP}{n}_proj.weight"] for n in ("gate", "up"))
    for rank in (0, 1):
        rows = slice(3 * rank, 3 * rank + 3)
        got = _rank(rank, 2)["decoder.layers.0.mlp.linear_fc1.weight"]
        assert np.array_equal(got, np.concatenate([gate[rows], up[rows]]))


@pytest.mark.parametrize(
    ("name", "source"),
    [("self_attention.linear_proj", f"{ATTENTION}o_proj"), ("mlp.linear_fc2", f"{MLP}down_proj")],
)
def test_what_comes_after_is_split_by_columns(name: str, source: str) -> None:
    """A rank multiplies what its own heads, or its own part of the MLP, made."""
    shares = [_rank(rank, 2)[f"decoder.layers.0.{name}.weight"] for rank in (0, 1)]
    assert np.array_equal(np.concatenate(shares, axis=1), SOURCE[f"{source}.weight"])


def test_a_vocabulary_that_does_not_divide_ends_in_zeros() -> None:
    """Five rows on two ranks: three and three, the last of them zero."""
    for ours, theirs in (
        ("embedding.word_embeddings", "model.embed_tokens"),
        ("output_layer", "lm_head"),
    ):
        shares = [_rank(rank, 2)[f"{ours}.weight"] for rank in (0, 1)]
        whole = np.concatenate(shares)
        assert whole.shape == (6, 4) and not whole[5].any()
        assert np.array_equal(whole[:5], SOURCE[f"{theirs}.weight"])
    assert convert.padded_vocabulary(MODEL, 1) == 5


def test_a_rank_may_hold_nothing_but_padding() -> None:
    """Five rows on four ranks make eight: the last rank has zeros alone."""
    assert not _rank(3, 4)["output_layer.weight"].any()
    assert _rank(3, 4)["output_layer.weight"].shape == (2, 4)


def test_tied_weights_are_one_parameter_or_two_equal_ones() -> None:
    """One stage has one parameter; the last stage of a pipeline has the embedding as its head."""
    tied = replace(MODEL, tied=True)
    assert "output_layer.weight" not in _rank(0, 1, tied)
    last = convert.weights(tied, convert.Place(range(1, 2), first=False, last=True))
    assert last["output_layer.weight"].parts[0].source == "model.embed_tokens.weight"
    assert "embedding.word_embeddings.weight" not in last


def test_a_stage_has_its_own_layers_counted_from_zero() -> None:
    """Layer 1 of the checkpoint is layer 0 of the second stage; a middle stage has no ends."""
    names = convert.weights(MODEL, convert.Place(range(1, 3), first=False, last=False))
    assert (
        names["decoder.layers.0.mlp.linear_fc2.weight"].parts[0].source == f"{MLP}down_proj.weight"
    )
    assert not [n for n in names if not n.startswith(("decoder.layers.0.", "decoder.layers.1."))]


def test_transformer_engine_keeps_norms_in_the_matrix_behind_them() -> None:
    """The same two norms under the names of its fused modules."""
    fused = convert.weights(MODEL, convert.Place(range(1, 2), fused_norms=True))
    for name, source in (
        ("self_attention.linear_qkv", "input_layernorm"),
        ("mlp.linear_fc1", "post_attention_layernorm"),
    ):
        (part,) = fused[f"decoder.layers.0.{name}.layer_norm_weight"].parts
        assert part.source == f"model.layers.1.{source}.weight"
    assert "decoder.layers.0.input_layernorm.weight" not in fused


# ---------------------------------------------------------------- config.json


def _config(tmp_path: Path, **changes: object) -> Path:
    config = json.loads((known.SHIPPED / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **changes}))
    return tmp_path


def test_the_shape_is_read_off_the_config(tmp_path: Path) -> None:
    """Both spellings of rope, and a head size that is not hidden over heads."""
    model = llama.read(known.SHIPPED)
    assert (model.heads, model.groups, model.head_dim, model.tied) == (2, 1, 64, True)
    assert (model.rope_theta, model.rope_factor) == (10000.0, None)
    scaling = {**llama.FIXED_ROPE, "rope_type": "llama3", "factor": 32.0}
    older = _config(tmp_path, rope_parameters=None, rope_scaling=scaling, rope_theta=500000.0)
    assert (llama.read(older).rope_theta, llama.read(older).rope_factor) == (500000.0, 32.0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architectures": ["Qwen3MoeForCausalLM"]}, "it is a Qwen3MoeForCausalLM"),
        ({"architectures": None}, "LlamaForCausalLM alone is converted"),
        ({"attention_bias": True}, "it has attention_bias"),
        ({"mlp_bias": True}, "it has mlp_bias"),
        ({"quantization_config": {"bits": 4}}, "it has quantization_config"),
        ({"hidden_act": "gelu"}, "its hidden_act is gelu"),
        ({"sliding_window": 128}, "it has a sliding window"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4}}, "its rope is scaled as yarn"),
        ({"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}}, "a part of"),
        (
            {"rope_parameters": {**llama.FIXED_ROPE, "rope_type": "llama3", "factor": 8,
                                 "low_freq_factor": 2}},
            "its llama3 rope has low_freq_factor=2, and megatron fixes 1",
        ),
    ],
)  # fmt: skip
def test_what_is_not_converted_is_refused(tmp_path: Path, changes: dict, reason: str) -> None:
    """A checkpoint whose numbers would be wrong is refused, with the reason in one sentence."""
    with pytest.raises(ValueError, match="megatron cannot take this checkpoint") as caught:
        llama.read(_config(tmp_path, **changes))
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("tp", "pp", "reason"),
    [
        (3, 1, "tp=3 does not divide num_attention_heads=4"),
        (4, 1, "tp=4 does not divide intermediate_size=6"),
        (1, 3, "pp=3 does not divide num_hidden_layers=4"),
    ],
)
def test_what_ranks_cannot_share_is_refused(tp: int, pp: int, reason: str) -> None:
    """Every rank must get whole heads, equal parts of the MLP and as many layers as the next."""
    llama.check_split(MODEL, 2, 2)
    with pytest.raises(ValueError, match=reason):
        llama.check_split(MODEL, tp, pp)


def test_groups_may_be_more_or_fewer_than_the_ranks() -> None:
    """Megatron shares a group among ranks, but not one and a half groups."""
    llama.check_split(replace(MODEL, groups=1), 2, 1)
    with pytest.raises(ValueError, match="tp=2 neither divides num_key_value_heads=3"):
        llama.check_split(replace(MODEL, heads=6, groups=3), 2, 1)
