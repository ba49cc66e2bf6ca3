"""hf's host half: what its options parse to, which of them share a load, what is refused."""

from __future__ import annotations

import pytest

from mismatch.engines import ENGINES, parse_condition
from mismatch.engines.base import Machine
from mismatch.engines.hf import refusals
from mismatch.errors import MismatchError

HF = ENGINES["hf"]
CPU, GPU = Machine(gpus=0, cpus=8), Machine(gpus=8, cpus=8)


def _refused(spec: str, machine: Machine = CPU) -> str | None:
    return HF.refuse(parse_condition(spec), machine)


@pytest.mark.parametrize(
    ("spec", "name", "value"),
    [
        ("hf:tp=2", "tp", 2),
        ("hf:compile=true", "compile", True),
        ("hf:logits=chunked:512", "logits", "chunked:512"),
        ("hf:logits=whole", "logits", "whole"),
        ("hf:temperature=1", "temperature", 1.0),
        ("hf:top_p=0.95", "top_p", 0.95),
        ("hf:topk=20", "topk", 20),
        ("hf:entropy=true", "entropy", True),
        ("hf:tf32=false", "tf32", False),
    ],
)
def test_options_become_typed_values(spec: str, name: str, value: object) -> None:
    """Numbers are numbers, switches are switches, and a chunk keeps its size."""
    got = parse_condition(spec).options[name]
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize(
    "spec",
    [
        "hf:logits=chunked",
        "hf:logits=chunked:0",
        "hf:fsdp=1",
        "hf:tp=0",
        "hf:quantization=fp4",
        "hf:temperature=0",
        "hf:top_p=1.5",
        "hf:cache=offloaded",
        "hf:lm_head=bf16",
    ],
)
def test_values_that_mean_nothing_are_bad_input(spec: str) -> None:
    """A value outside what an option takes is told at once."""
    with pytest.raises(MismatchError):
        parse_condition(spec)


def test_what_needs_no_other_model_shares_a_load() -> None:
    """Request options change between captures; the rest decides the load."""
    spec = "hf:dtype=fp32,tp=2,batch=4,packing=true,logits=chunked:64,temperature=0.7,topk=5"
    condition = parse_condition(spec)
    assert HF.load_of(condition).spec == "hf:dtype=fp32,tp=2"
    assert set(HF.request_options(condition)) == {
        "batch", "packing", "logits", "temperature", "topk"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "ranks"), [("hf", 1), ("hf:tp=1", 1), ("hf:tp=4", 4), ("hf:fsdp=2", 2), ("hf:cp=8", 8)]
)
def test_ranks_are_those_that_share_the_model(spec: str, ranks: int) -> None:
    """tp, fsdp and cp are each a number of processes; nothing given is one."""
    assert HF.ranks(parse_condition(spec)) == ranks


def test_every_option_but_the_batch_must_be_observed() -> None:
    """The batch is the capture's own, whose floor has another; damage is the self-test's, which
    shows a damaged engine under a clean name; no other option goes unseen."""
    assert set(HF.observed) == set(HF.options) - {"batch", "damage"}


def test_deterministic_kernels_need_their_workspace_before_the_start() -> None:
    """cuBLAS reads its environment once; nothing else gets a variable."""
    assert "CUBLAS_WORKSPACE_CONFIG" in HF.environment(parse_condition("hf:deterministic=true"))
    assert HF.environment(parse_condition("hf:deterministic=false")) == {}


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("hf:attention=flash_attention_2", "needs a GPU"),
        ("hf:device=cuda", "needs a GPU"),
        ("hf:sdpa_kernel=efficient", "no CPU kernel"),
        ("hf:sdpa_kernel=cudnn", "no CPU kernel"),
        ("hf:tf32=true", "GPU's matrix units"),
        ("hf:cp=2", "ring attention"),
    ],
)
def test_what_a_cpu_lacks_is_refused_there_alone(spec: str, says: str) -> None:
    """A reason on a machine without a GPU; none on one with."""
    assert says in (_refused(spec) or "")
    assert _refused(spec, GPU) is None
    if "device" not in spec:
        assert says in (_refused(f"{spec},device=cpu", GPU) or "")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("padding=left", "batch=1"),
        ("packing=true", "batch=1"),
        ("batch=4,padding=left,packing=true", "exclude each other"),
        ("autocast=bf16", "set dtype=fp32"),
        ("dtype=bf16,autocast=bf16", "set dtype=fp32"),
        ("dtype=fp32,fsdp_mixed=bf16", "set fsdp too"),
        ("dtype=bf16,fsdp=2,fsdp_mixed=bf16", "set dtype=fp32"),
        ("dtype=fp32,fsdp=2,fsdp_mixed=bf16,autocast=bf16", "give one"),
        ("dtype=fp32,lm_head=fp32", "no meaning"),
        ("attention=eager,sdpa_kernel=math", "not attention=eager"),
        ("compile=true,sdpa_kernel=math", "compiled graph"),
        ("compile=true,logits=chunked:8", "compiled"),
        ("compile=true,cache=static", "another graph"),
        ("compile=true,tp=2", "compile each layer"),
        ("compile=true,fsdp=2", "compile each layer"),
        ("cache=dynamic,logits=chunked:8", "one position at a time"),
        ("cache=dynamic,batch=4,packing=true", "next token"),
        ("cache=static,batch=4,padding=right", "pads a batch left"),
        ("tp=2,fsdp=2", "two dimensions"),
        ("tp=2,quantization=fp8", "shard"),
        ("tp=2,dtype=bf16,lm_head=fp32", "shard"),
        ("routes=true,compile=true", "no hook of a router"),
        ("routes=true,fsdp=2", "routers of one process"),
        ("replay_routes=true,tp=2", "replay_routes=true with tp"),
    ],
)
def test_contradictions_are_refused_on_every_machine(options: str, says: str) -> None:
    """Options that exclude each other, or mean nothing alone, are refused with a sentence."""
    for machine in (CPU, GPU):
        assert says in (_refused(f"hf:{options}", machine) or "")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("cp=2,attention=eager", "sdpa's kernels"),
        ("cp=2,sdpa_kernel=math", "no ring attention"),
        ("cp=2,batch=4,padding=left", "no mask"),
        ("cp=2,cache=dynamic", "next token"),
        ("cp=2,logits=chunked:8", "part of the logits"),
        ("sdpa_kernel=flash,batch=4", "no mask"),
        ("attention=sdpa,sdpa_kernel=flash,batch=all", "no mask"),
        ("sdpa_kernel=flash,batch=4,padding=left", "no mask"),
        ("sdpa_kernel=flash,batch=4,packing=true", "no mask"),
        ("tp=2,device=cpu", "GPUs"),
    ],
)
def test_what_a_gpu_cannot_do_is_refused(options: str, says: str) -> None:
    """Kernels without a mask, and ranks that would land elsewhere than asked."""
    assert says in (_refused(f"hf:{options}", GPU) or "")


@pytest.mark.parametrize(
    "options",
    [
        "",
        "tp=1,compile=true",
        "dtype=fp32,autocast=bf16,sdpa_kernel=math",
        "batch=4,packing=true,logits=chunked:64",
        "batch=4,padding=left,cache=static",
        "fsdp=2,quantization=fp8,lm_head=fp32,dtype=bf16",
        "logits=whole,cache=none,compile=true",
        "routes=true,replay_routes=true,batch=4,packing=true,logits=chunked:64",
        "routes=false,compile=true",
        "temperature=0.7,top_p=0.9,top_k=50,min_p=0.1,repetition_penalty=1.1,topk=5,entropy=true",
    ],
)
def test_what_fits_together_is_not_refused(options: str) -> None:
    """The defaults, named, contradict nothing; independent axes combine."""
    assert _refused(f"hf:{options}" if options else "hf") is None


@pytest.mark.parametrize("options", ["", ",batch=1", ",batch=1,packing=false", ",batch=4,cp=2"])
def test_flash_runs_on_a_gpu_where_no_mask_is_needed(options: str) -> None:
    """One sequence in a row needs no mask, and ring attention does without one in a batch too."""
    assert _refused(f"hf:sdpa_kernel=flash{options}", GPU) is None


def test_flash_takes_a_batch_on_a_cpu() -> None:
    """torch's flash kernel of a CPU takes a mask."""
    assert _refused("hf:sdpa_kernel=flash,batch=4") is None


def test_refusals_come_one_at_a_time() -> None:
    """The first reason found is the answer, a sentence without a full stop."""
    answer = refusals.reason({"padding": "left", "packing": True, "tp": 2, "fsdp": 2}, 0)
    assert answer is not None and "exclude" in answer and not answer.endswith(".")
