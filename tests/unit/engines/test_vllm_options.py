"""Options of vllm on the host: what they are, which need a load, what is refused, and what the
guest hands to the constructor. No vllm is imported.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mismatch import wire
from mismatch.engines import parse_condition
from mismatch.engines.base import Machine, _is_wide, split_cores
from mismatch.engines.vllm import arguments
from mismatch.engines.vllm.engine import ENGINE
from mismatch.errors import MismatchError

CPU, GPU = Machine(gpus=0, cpus=2), Machine(gpus=2, cpus=8)


def _constructor(spec: str = "vllm", extra: dict[str, Any] | None = None, *requests: Any) -> Any:
    captures = [wire.CallPlan(f"c/{k}", "decode", [[0]], r) for k, r in enumerate(requests)]
    options = dict(parse_condition(spec).options)
    return arguments.constructor(wire.Job("vllm", "ckpt", options, captures, extra=extra or {}))


def test_an_option_that_was_not_given_is_not_passed() -> None:
    """The engine keeps its own defaults; remote code stays off."""
    assert _constructor(extra={"max_model_len": 512}) == {
        "max_model_len": 512,
        "trust_remote_code": False,
        "logits_processors": ["mismatch.engines.vllm.forcing:ForceIds"],
    }


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("dtype=fp16", "dtype", "float16"),
        ("eager=false", "enforce_eager", False),
        ("attention=FLASH_ATTN", "attention_backend", "FLASH_ATTN"),
        ("tp=2", "tensor_parallel_size", 2),
        ("pp=2", "pipeline_parallel_size", 2),
        ("dp=2", "data_parallel_size", 2),
        ("ep=true", "enable_expert_parallel", True),
        ("max_num_seqs=3", "max_num_seqs", 3),
        ("max_num_batched_tokens=64", "max_num_batched_tokens", 64),
        ("chunked_prefill=false", "enable_chunked_prefill", False),
        ("prefix_caching=false", "enable_prefix_caching", False),
        ("cascade=true", "disable_cascade_attn", False),
        ("kv_cache_dtype=fp8", "kv_cache_dtype", "fp8"),
        ("quantization=fp8_weights", "quantization", "mismatch_fp8_weights"),
        ("lm_head=fp32", "hf_overrides", {"head_dtype": "float32"}),
        ("logprobs_mode=processed_logprobs", "logprobs_mode", "processed_logprobs"),
        ("generation_config=vllm", "generation_config", "vllm"),
    ],
)
def test_load_options_reach_the_constructor_by_vllms_names(
    text: str, name: str, value: Any
) -> None:
    """Each load option becomes the one constructor argument that vllm knows it by."""
    assert _constructor(f"vllm:{text}")[name] == value


def test_more_log_probabilities_are_allowed_only_where_a_capture_asks_them() -> None:
    """max_logprobs is raised for a large top-k (and the entropy beside it), and else left alone."""
    assert "max_logprobs" not in _constructor("vllm", {}, {}, {"topk": 20})
    assert _constructor("vllm", {}, {"topk": 20, "entropy": True})["max_logprobs"] == 21
    assert _constructor("vllm", {}, {"topk": 5}, {"topk": 300})["max_logprobs"] == 300
    assert _constructor("vllm", {"max_logprobs": -1}, {"topk": 300})["max_logprobs"] == -1


def test_sampling_and_distribution_options_share_a_load() -> None:
    """What a request says is not part of the load; everything else is."""
    spec = "vllm:dtype=bf16,tp=2,batch=4,temperature=0.7,top_p=0.9,top_k=5,min_p=0.1,"
    condition = parse_condition(spec + "repetition_penalty=1.2,topk=5,entropy=true")
    assert set(ENGINE.load_of(condition).options) == {"dtype", "tp"}
    assert len(ENGINE.request_options(condition)) == 8


def test_every_option_but_the_batch_must_be_confirmed() -> None:
    """Sealing refuses a trace whose facts are silent about an option that was given."""
    assert set(ENGINE.observed) == set(ENGINE.options) - {"batch", "damage"}


@pytest.mark.parametrize(
    "text",
    [
        "temperature=0", "top_p=0", "top_p=1.5", "top_k=0", "min_p=-1", "logprobs_mode=raw_logits",
        "quantization=awq", "topk=1001", "tp=0", "lm_head=bf16", "generation_config=else",
    ],
)  # fmt: skip
def test_values_outside_their_range_are_bad_options(text: str) -> None:
    """A greedy rollout and modes that are no log-probabilities are not among the values."""
    with pytest.raises(MismatchError):
        parse_condition(f"vllm:{text}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("arg.quantization=fp8", "no CPU kernel"),
        ("cascade=true", "cascade needs a GPU"),
        ("cascade=false", "cascade needs a GPU"),
        ("batch_invariant=true", "batch_invariant needs a GPU"),
        ("tp=3", "3 ranks were asked and there are 2 cores"),
        ("pp=2,eager=true", "eager=true does not run on a CPU"),
        ("dp=2", "no data parallel ranks"),
        ("ep=true", "spreads experts over the ranks of tp"),
        ("tp=2,ep=true", "dies in its first step"),
        ("quantization=fp8,tp=2", "a rank of tp has a shard"),
        ("quantization=fp8,arg.quantization=awq", "give one"),
        ("dtype=fp32,lm_head=fp32", "no meaning"),
        ("lm_head=fp32,arg.hf_overrides=x", "would replace"),
        ("routes=true", "routes=true needs eager=true"),
        ("routes=true,eager=false", "routes=true needs eager=true"),
    ],
)
def test_a_cpu_refuses_with_the_reason(text: str, words: str) -> None:
    """What cannot run here is refused before anything starts, and the sentence says why."""
    reason = ENGINE.refuse(parse_condition(f"vllm:{text}"), CPU)
    assert reason is not None and words in reason


@pytest.mark.parametrize(
    "text",
    ["", "tp=2", "pp=2", "kv_cache_dtype=fp8", "quantization=fp8", "temperature=0.7,top_k=3",
     "routes=true,eager=true,tp=2"],
)  # fmt: skip
def test_a_cpu_runs_the_rest(text: str) -> None:
    """Nothing that runs is refused."""
    assert ENGINE.refuse(parse_condition(f"vllm:{text}".rstrip(":")), CPU) is None


def test_a_gpu_has_its_own_kernels() -> None:
    """GPU-only options pass where there is one; the CPU's emulation points at the real thing."""
    for text in ("cascade=true", "batch_invariant=true", "arg.quantization=fp8", "tp=2,ep=true"):
        assert ENGINE.refuse(parse_condition(f"vllm:{text}"), GPU) is None
    reason = ENGINE.refuse(parse_condition("vllm:quantization=fp8"), GPU)
    assert reason is not None and "arg.quantization=fp8" in reason
    reason = ENGINE.refuse(parse_condition("vllm:tp=4"), GPU)
    assert reason is not None and "2 GPUs" in reason


def test_ranks_get_cores_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """With several ranks the cores are dealt out; a binding of the user's own stays."""
    assert split_cores([0, 1, 2, 3, 4], 2) == "0,1|2,3"
    monkeypatch.delenv("VLLM_CPU_OMP_THREADS_BIND", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 6}, raising=False)
    both = parse_condition("vllm:tp=2")
    assert ENGINE.environment(both)["VLLM_CPU_OMP_THREADS_BIND"] == "4|6"
    assert "VLLM_CPU_OMP_THREADS_BIND" not in ENGINE.environment(parse_condition("vllm"))
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "0-1|2-3")
    assert "VLLM_CPU_OMP_THREADS_BIND" not in ENGINE.environment(both)


def test_batch_invariance_is_an_environment_switch() -> None:
    """vllm reads it when it is imported, so the guest starts with it; not asked, it is not set."""
    given = ENGINE.environment(parse_condition("vllm:batch_invariant=true"))
    assert given["VLLM_BATCH_INVARIANT"] == "1"
    assert "VLLM_BATCH_INVARIANT" not in ENGINE.environment(parse_condition("vllm"))


def test_an_fp8_cache_needs_wide_instructions_on_an_x86_cpu(tmp_path: Path) -> None:
    """A sentence before anything starts, where the engine would die at load; a GPU needs none."""
    condition = parse_condition("vllm:kv_cache_dtype=fp8_e4m3")
    narrow = ENGINE.refuse(condition, Machine(wide=False))
    assert narrow and "AVX-512" in narrow
    assert ENGINE.refuse(condition, Machine()) is None
    assert ENGINE.refuse(condition, Machine(gpus=1, wide=False)) is None
    about = tmp_path / "cpuinfo"
    for flags, wide in (("avx avx2", False), ("avx2 avx512f", True), ("asimd", True)):
        about.write_text(f"flags : fpu {flags}\n")
        assert _is_wide(about) is wide
