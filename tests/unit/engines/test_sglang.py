"""sglang's host half, what its Engine is given, and which id is forced. No sglang is imported."""

from __future__ import annotations

import numpy as np
import pytest

from mismatch import wire
from mismatch.engines import ENGINES, parse_condition
from mismatch.engines.base import Machine
from mismatch.engines.sglang import arguments, facts, forcing
from mismatch.engines.sglang.engine import environment

CPU, GPUS = Machine(gpus=0, cpus=2), Machine(gpus=8, cpus=64)


def _job(spec: str) -> wire.Job:
    engine, condition = ENGINES["sglang"], parse_condition(spec)
    options = engine.load_of(condition).options
    extra = {n[4:]: v for n, v in options.items() if n.startswith("arg.")}
    plain = {n: v for n, v in options.items() if not n.startswith("arg.")}
    return wire.Job("sglang", "/srv/tiny", plain, [], extra=extra)


def test_what_was_not_stated_is_not_passed() -> None:
    """On a GPU sglang gets the model, and the switch without which no id can be forced."""
    given = arguments.constructor(_job("sglang"), gpu=True)
    assert given == {
        "model_path": "/srv/tiny",
        "trust_remote_code": False,
        "enable_custom_logit_processor": True,
    }


@pytest.mark.parametrize(
    ("option", "passed"),
    [
        ("dtype=bf16", {"dtype": "bfloat16"}),
        ("attention=fa3", {"attention_backend": "fa3"}),
        ("eager=true", {"disable_cuda_graph": True}),
        ("tp=2", {"tp_size": 2}),
        ("max_running_requests=8", {"max_running_requests": 8}),
        ("chunked_prefill_size=-1", {"chunked_prefill_size": -1}),
        ("radix_cache=false", {"disable_radix_cache": True}),
        ("deterministic=true", {"enable_deterministic_inference": True}),
        ("rl_on_policy_target=fsdp", {"rl_on_policy_target": "fsdp"}),
        ("lm_head=fp32", {"enable_fp32_lm_head": True}),
        ("kv_cache_dtype=fp8_e4m3", {"kv_cache_dtype": "fp8_e4m3"}),
        ("quantization=fp8", {"quantization": "fp8"}),
        ("arg.mem_fraction_static=0.5", {"mem_fraction_static": 0.5}),
    ],
)
def test_each_option_reaches_sglang_under_its_own_name(option: str, passed: dict) -> None:
    """One option, one keyword of sglang's Engine, beside those that are always there."""
    bare = arguments.constructor(_job("sglang"), gpu=True)
    assert arguments.constructor(_job(f"sglang:{option}"), gpu=True) == {**bare, **passed}


def test_a_cpu_gets_what_sglang_needs_to_start_there() -> None:
    """And what the user states overrides it."""
    given = arguments.constructor(_job("sglang:arg.max_total_tokens=9"), gpu=False)
    assert given["device"] == "cpu" and given["attention_backend"] == "torch_native"
    assert given["max_total_tokens"] == 9


@pytest.mark.parametrize(
    ("options", "machine", "words"),
    [
        ("deterministic=true", CPU, "batch-invariant kernels exist for GPUs"),
        ("rl_on_policy_target=fsdp", CPU, "needs a GPU"),
        ("quantization=fp8", CPU, "needs a GPU"),
        ("attention=flashinfer", CPU, "attention=flashinfer needs a GPU"),
        ("kv_cache_dtype=fp8_e5m2", CPU, "needs a GPU's kernels"),
        ("eager=false", CPU, "there is no GPU"),
        ("tp=3", CPU, "3 ranks were asked and there are 2 cores"),
        ("tp=9", GPUS, "9 ranks were asked and there are 8 GPUs"),
        ("deterministic=true,attention=torch_native", GPUS, "no deterministic mode"),
        ("rl_on_policy_target=fsdp,deterministic=false", GPUS, "switches on the deterministic"),
        ("dtype=fp32,lm_head=fp32", GPUS, "the whole model is fp32"),
        ("deterministic=true,min_p=0.1", GPUS, "min_p kills"),
    ],
)
def test_what_cannot_run_is_refused_with_the_reason(
    options: str, machine: Machine, words: str
) -> None:
    """What the machine lacks, and what contradicts itself."""
    reason = ENGINES["sglang"].refuse(parse_condition(f"sglang:{options}"), machine)
    assert reason and words in reason


@pytest.mark.parametrize(
    "options", ["deterministic=true,attention=fa3", "tp=8", "quantization=fp8"]
)
def test_what_a_gpu_has_is_not_refused_there(options: str) -> None:
    """The same options pass on a machine with GPUs."""
    assert ENGINES["sglang"].refuse(parse_condition(f"sglang:{options}"), GPUS) is None


def test_the_mode_of_log_probabilities_is_a_variable() -> None:
    """sglang reads it when it is imported; not stated, it is left alone."""
    assert "SGLANG_RETURN_ORIGINAL_LOGPROB" not in environment(parse_condition("sglang"))
    for mode, value in (("raw_logprobs", "1"), ("scaled_logprobs", "0")):
        given = environment(parse_condition(f"sglang:logprobs_mode={mode}"))
        assert given["SGLANG_RETURN_ORIGINAL_LOGPROB"] == value


def test_all_settings_are_stated_and_all_tokens_are_minus_one() -> None:
    """What a request leaves out would come from the checkpoint's generation_config."""
    settings = arguments.sampling({"temperature": 0.5})
    assert settings["temperature"] == 0.5 and settings["top_k"] == -1
    assert settings["repetition_penalty"] == 1 and set(settings) == set(wire.NEUTRAL)


def test_the_forced_id_is_the_one_after_the_position() -> None:
    """Requests that force nothing, and those past their end, keep what was drawn."""
    asked = [{forcing.FORCE: [5, 6, 7]}, None, {forcing.FORCE: [1, 2, 3]}, {"other": 1}]
    assert forcing.wanted_ids(asked, [0, 0, 2, 1]) == ([0], [6])
    assert forcing.wanted_ids(asked, [1, 0, 0, 1]) == ([0, 2], [7, 2])
    assert forcing.wanted_ids((), [4]) == ([], [])


@pytest.mark.parametrize(
    ("path", "scaled", "inside"),
    [
        ("rollout", True, 0.5),
        ("decode", True, 0.5),
        ("prefill", True, None),
        ("rollout", False, None),
    ],
)
def test_the_temperature_is_in_values_that_were_drawn_and_in_no_inputs(
    path: str, scaled: bool, inside: float | None
) -> None:
    """A cut is never in them."""
    told = facts.space(path, {**wire.NEUTRAL, "temperature": 0.5, "top_p": 0.9}, scaled)
    assert told["scored_as"] == ({} if inside is None else {"temperature": inside})
    assert "top_p=0.9" in told["logprob_space"]


def _rank(**change: object) -> dict:
    told = {
        "dtypes": ["bfloat16"], "model_dtype": "bfloat16",
        "attention": "torch_native", "attention_class": "X",
        "eager": True, "max_running_requests": 8, "radix_cache": True, "kv_cache": "bfloat16",
        "chunked_prefill_size": -1, "deterministic": False, "rl_on_policy_target": None,
        "quantization": None, "seen": {"temperature": [1.0], "top_p": [1.0],
                                       "top_k": [float(np.int32(1 << 30))], "min_p": [0.0]},
        "tp": 2, "lm_head": "bfloat16", "raw": False, "rows": [3], "device": "cpu",
        "torch_threads": 1, "model_class": "Y", "kv_tokens": 9, "tree_cache": "Z", "overlap": True,
        "weights": {}, "experts": 0,
    }  # fmt: skip
    return {**told, **change}


class _Arguments:
    kv_cache_dtype, sampling_backend = "auto", "pytorch"


def test_ranks_must_agree_and_be_all_there() -> None:
    """The number of ranks that told stands where it is not what they say of themselves."""
    told = facts.observed([_rank(), _rank()], _Arguments(), "decode", 0)["observed"]
    assert told["tp"] == 2 and told["dtype"] == "bf16" and told["top_k"] == 0
    assert facts.observed([_rank()], _Arguments(), "decode", 0)["observed"]["tp"] == 1
    with pytest.raises(RuntimeError, match="disagree about dtypes"):
        facts.observed([_rank(), _rank(dtypes=["float16"])], _Arguments(), "decode", 0)


def test_where_only_the_likeliest_can_be_drawn_no_temperature_is_in_the_values() -> None:
    """sglang takes its greedy branch then, which divides by nothing."""
    told = facts.space("rollout", {**wire.NEUTRAL, "temperature": 0.7, "top_k": 1}, scaled=True)
    assert told["scored_as"] == {}


def test_the_cache_and_quantised_weights_are_told_as_they_are() -> None:
    """auto is what was resolved only where the cache has the model's dtype; quantised layers beside
    others are of the model's dtype."""
    rank = _rank(kv_cache="float8_e4m3fn", quantization="fp8", dtypes=["bfloat16", "float8_e4m3fn"])
    told = facts.observed([rank, rank], _Arguments(), "decode", 0)["observed"]
    assert (told["kv_cache_dtype"], told["dtype"]) == ("fp8_e4m3", "bf16")
    plain = facts.observed([_rank(), _rank()], _Arguments(), "decode", 0)["observed"]
    assert plain["kv_cache_dtype"] == "auto"
