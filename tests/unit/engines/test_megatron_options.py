"""megatron's host half and its arguments: what is refused, and what is passed for each option."""

from __future__ import annotations

import pytest

from mismatch.engines import ENGINES, parse_condition
from mismatch.engines.base import Machine
from mismatch.engines.megatron import arguments, columns, llama
from tests import known

MEGATRON = ENGINES["megatron"]
CPU, GPU = Machine(gpus=0, cpus=8), Machine(gpus=8, cpus=8)


def _refused(spec: str, machine: Machine) -> str | None:
    return MEGATRON.refuse(parse_condition(spec), machine)


@pytest.mark.parametrize(
    "spec",
    [
        "megatron",
        "megatron:dtype=fp16,attention=local,tp=2,pp=2,batch=3,temperature=0.6,topk=5",
        "megatron:cp=1,ep=1,sp=false",
    ],
)
def test_what_runs_anywhere_is_not_refused(spec: str) -> None:
    """megatron's own modules, its tensor and its pipeline parallelism need no GPU."""
    assert _refused(spec, CPU) is None and _refused(spec, GPU) is None


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("megatron:attention=flash", "Transformer Engine's, which needs a GPU"),
        ("megatron:attention=auto", "Transformer Engine's, which needs a GPU"),
        ("megatron:cp=2", "in Transformer Engine's attention alone"),
        ("megatron:tp=2,sp=true", "torch norms refuse sequence parallelism"),
    ],
)
def test_what_needs_a_gpu_is_refused_on_a_cpu_alone(spec: str, reason: str) -> None:
    """With the reason; on a GPU the same options run."""
    assert reason in (_refused(spec, CPU) or "")
    assert _refused(spec, GPU) is None


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("megatron:ep=2", "dense Llama checkpoints alone"),
        ("megatron:sp=true", "sp has no meaning with tp=1"),
        ("megatron:attention=local,cp=2", "cp needs Transformer Engine's attention"),
        ("megatron:attention=local,sp=true,tp=2", "sp needs Transformer Engine's norms"),
    ],
)
def test_contradictions_are_refused_on_a_gpu_too(spec: str, reason: str) -> None:
    """Options that cannot be together are told before anything starts."""
    assert reason in (_refused(spec, GPU) or "")


def test_ranks_are_the_product() -> None:
    """torchrun starts tensor times pipeline times context ranks; experts share them."""
    assert MEGATRON.ranks(parse_condition("megatron:tp=2,pp=3,cp=2,ep=1")) == 12
    assert MEGATRON.ranks(parse_condition("megatron")) == 1


# ---------------------------------------------------------------- what is passed

SHIPPED = llama.read(known.SHIPPED)


def _config(spec: str, on_gpu: bool = True, **extra: object) -> dict:
    options = parse_condition(spec).options
    return arguments.transformer_config(SHIPPED, options, on_gpu, extra)


@pytest.mark.parametrize(
    ("option", "field", "value"),
    [
        ("tp=2", "tensor_model_parallel_size", 2),
        ("pp=4", "pipeline_model_parallel_size", 4),
        ("cp=2", "context_parallel_size", 2),
        ("ep=1", "expert_model_parallel_size", 1),
        ("sp=true", "sequence_parallel", True),
        ("attention=flash", "attention_backend", "flash"),
    ],
)
def test_an_option_reaches_transformer_config(option: str, field: str, value: object) -> None:
    """Under megatron's own name, and not at all where it was not given."""
    assert _config(f"megatron:{option}")[field] == value
    assert field not in _config("megatron")


@pytest.mark.parametrize("dtype", ["fp32", "bf16", "fp16"])
def test_a_dtype_is_of_parameters_pipeline_and_switches(dtype: str) -> None:
    """megatron wants the dtype of its parameters and a switch of its own for 16 bits."""
    config = _config(f"megatron:dtype={dtype}")
    assert config["params_dtype"] == config["pipeline_dtype"] == dtype
    assert (config["bf16"], config["fp16"]) == (dtype == "bf16", dtype == "fp16")


def test_the_shape_of_the_checkpoint_is_passed() -> None:
    """Heads, groups, head size, MLP and norm as the config has them; no dropout, no biases."""
    config = _config("megatron", on_gpu=False)
    named = ("num_attention_heads", "num_query_groups", "kv_channels", "ffn_hidden_size")
    assert [config[n] for n in named] == [2, 1, 64, 320]
    assert config["normalization"] == "RMSNorm" and config["layernorm_epsilon"] == 1e-5
    assert config["hidden_dropout"] == config["attention_dropout"] == 0
    assert config["use_cpu_initialization"] and not _config("megatron")["use_cpu_initialization"]


def test_an_argument_goes_as_it_stands_and_wins() -> None:
    """arg.NAME=VALUE is megatron's own, over what is passed by default."""
    config = _config("megatron", masked_softmax_fusion=True, layernorm_epsilon=0.5)
    assert config["masked_softmax_fusion"] is True and config["layernorm_epsilon"] == 0.5


def test_groups_of_ranks_are_those_that_were_asked() -> None:
    """initialize_model_parallel gets the sizes alone."""
    options = parse_condition("megatron:tp=2,cp=2,sp=true,dtype=bf16").options
    assert arguments.parallel_state(options) == {
        "tensor_model_parallel_size": 2,
        "context_parallel_size": 2,
    }


def test_llama3_rope_reaches_the_model() -> None:
    """Its factor is passed; rope as it stands has none."""
    plain = arguments.gpt_model(SHIPPED, {})
    assert plain["rope_scaling"] is False and "rope_scaling_factor" not in plain
    model = llama.Llama(**{**_fields(SHIPPED), "rope_factor": 32.0, "vocabulary": 1023})
    scaled = arguments.gpt_model(model, {"tp": 2})
    assert scaled["rope_scaling"] is True and scaled["rope_scaling_factor"] == 32.0
    assert scaled["vocab_size"] == 1024


def _fields(model: llama.Llama) -> dict:
    return {name: getattr(model, name) for name in model.__dataclass_fields__}


@pytest.mark.parametrize(
    ("spec", "on_gpu", "local"),
    [
        ("megatron", False, True),
        ("megatron", True, False),
        ("megatron:attention=local", True, True),
        ("megatron:attention=auto", True, False),
    ],
)
def test_which_modules_are_built(spec: str, on_gpu: bool, local: bool) -> None:
    """megatron's own without a GPU or where they are asked for, else Transformer Engine's."""
    assert arguments.is_local(parse_condition(spec).options, on_gpu) is local


# ---------------------------------------------------------------- columns


@pytest.mark.parametrize(
    ("options", "multiple"),
    [({}, 1), ({"tp": 2}, 1), ({"tp": 2, "sp": True}, 2), ({"cp": 2}, 4),
     ({"tp": 2, "sp": True, "cp": 2}, 8)],
)  # fmt: skip
def test_columns_are_filled_up_to_what_ranks_can_share(options: dict, multiple: int) -> None:
    """One piece for a rank of sequence parallelism, two for one of context parallelism."""
    assert columns.multiple(options) == multiple


def test_context_ranks_take_a_front_and_a_back_piece() -> None:
    """Eight columns on two ranks; what they have goes back to its places."""
    assert columns.of_ranks(8, 2) == [[0, 1, 6, 7], [2, 3, 4, 5]]
    order = [0, 1, 6, 7, 2, 3, 4, 5]
    assert [order[k] for k in columns.back(8, 2)] == list(range(8))
    order = [c for own in columns.of_ranks(24, 3) for c in own]
    assert [order[k] for k in columns.back(24, 3)] == list(range(24))
