"""What hf cannot run, and why: options that contradict each other, and what a machine lacks.

Each rule gets the options and whether a GPU will run them; it returns a sentence or None. The first
sentence is the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Options = Mapping[str, Any]
Rule = Callable[[Options, bool], str | None]

PARALLEL = ("tp", "fsdp", "cp")
FLASH = ("flash_attention_2", "flash_attention_3")


def reason(options: Options, gpus: int) -> str | None:
    """Why these options cannot run here; None when they can."""
    if options.get("device") == "cuda" and not gpus:
        return "device=cuda needs a GPU and there is none"
    on_gpu = gpus > 0 and options.get("device") != "cpu"
    answers = (rule(options, on_gpu) for rule in RULES)
    return next((answer for answer in answers if answer), None)


def chunked(options: Options) -> bool:
    return bool(options.get("logits", "whole") != "whole")


def cached(options: Options) -> bool:
    return bool(options.get("cache", "none") != "none")


def parallel(options: Options) -> list[str]:
    """Ways of spreading the model that really use several ranks."""
    return [name for name in PARALLEL if options.get(name, 1) > 1]


def _machine(options: Options, on_gpu: bool) -> str | None:
    if on_gpu:
        return None
    attention, kernel = options.get("attention"), options.get("sdpa_kernel")
    if attention in FLASH:
        return f"attention={attention} needs a GPU and there is none"
    if kernel in ("efficient", "cudnn"):
        return f"sdpa_kernel={kernel} has no CPU kernel: torch offers math and flash there"
    if "tf32" in options:
        return "tf32 is a mode of a GPU's matrix units; on a CPU it would switch nothing"
    if "cp" in options:
        return (
            "cp needs a GPU: torch's ring attention exists for the CUDA flash and efficient "
            "kernels alone, and a CPU's sdpa is neither"
        )
    return None


def _batching(options: Options, on_gpu: bool) -> str | None:
    alone = options.get("batch", 1) == 1
    if options.get("padding") and options.get("packing"):
        return "padding and packing exclude each other: packed sequences share one row, unpadded"
    if options.get("padding") and alone:
        return "padding has no meaning with one sequence in a batch (batch=1); set batch too"
    if options.get("packing") and alone:
        return "packing has no meaning with one sequence in a batch (batch=1); set batch too"
    return None


def _precision(options: Options, on_gpu: bool) -> str | None:
    dtype, autocast, mixed = (options.get(n) for n in ("dtype", "autocast", "fsdp_mixed"))
    if autocast and dtype != "fp32":
        return f"autocast={autocast} computes lower than its fp32 weights; set dtype=fp32 too"
    if mixed and not options.get("fsdp"):
        return f"fsdp_mixed={mixed} is a policy of FSDP; set fsdp too"
    if mixed and dtype != "fp32":
        return f"fsdp_mixed={mixed} gathers fp32 weights as {mixed}; set dtype=fp32 too"
    if mixed and autocast:
        return "autocast and fsdp_mixed both choose the compute dtype; give one"
    if options.get("lm_head") and dtype == "fp32":
        return "lm_head=fp32 has no meaning with dtype=fp32: the whole model is fp32"
    return None


def _kernels(options: Options, on_gpu: bool) -> str | None:
    kernel, attention = options.get("sdpa_kernel"), options.get("attention", "sdpa")
    if not kernel:
        return None
    if attention != "sdpa":
        return f"sdpa_kernel={kernel} steers attention=sdpa, not attention={attention}"
    if options.get("compile"):
        return "sdpa_kernel with compile=true: a compiled graph keeps the kernel it was traced with"
    # Ring attention is told no mask: what it pads lies behind every sequence.
    if kernel == "flash" and on_gpu and options.get("batch", 1) != 1 and "cp" not in options:
        return (
            "sdpa_kernel=flash takes no mask on a GPU, and a batch needs one, padded or packed; "
            "set batch=1"
        )
    return None


def _logits(options: Options, on_gpu: bool) -> str | None:
    if chunked(options) and options.get("compile"):
        return "logits=chunked with compile=true: the whole forward pass, logits too, is compiled"
    if chunked(options) and cached(options):
        return "logits=chunked has no meaning with a cache: decode makes one position at a time"
    return None


def _cache(options: Options, on_gpu: bool) -> str | None:
    cache = options.get("cache", "none")
    if cache == "none":
        return None
    if options.get("packing"):
        return f"cache={cache} with packing: a packed row has no one next token to decode"
    if options.get("padding") == "right":
        return f"cache={cache} pads a batch left, as generation does; padding=right cannot be"
    if options.get("compile"):
        return (
            f"cache={cache} with compile=true: compile=true compiles the scoring pass, and a "
            "decode step is another graph"
        )
    return None


def _parallel(options: Options, on_gpu: bool) -> str | None:
    ways = parallel(options)
    if len(ways) > 1:
        return f"{' and '.join(ways)} together would need a mesh of two dimensions; give one"
    if ways and options.get("compile"):
        return (
            f"compile=true with {ways[0]}: trainers compile each layer before they shard it, "
            "and this engine compiles the whole model"
        )
    return None


def _tensor_parallel(options: Options, on_gpu: bool) -> str | None:
    if options.get("tp", 1) == 1:
        return None
    for name in ("quantization", "lm_head"):
        if name in options:
            return f"{name} with tp: it is emulated on whole weights, and a rank of tp has a shard"
    return None


def _context_parallel(options: Options, on_gpu: bool) -> str | None:
    if "cp" not in options:
        return None
    if options.get("attention", "sdpa") != "sdpa":
        return "cp needs attention=sdpa: torch's ring attention replaces sdpa's kernels"
    if options.get("sdpa_kernel") == "math":
        return "cp has no ring attention for sdpa_kernel=math"
    for name in ("packing", "padding"):
        if options.get(name):
            return f"cp with {name}: ring attention takes no mask"
    if cached(options):
        return "cp with a cache: a sequence that is split over ranks has no next token to decode"
    return (
        "cp gives each rank a part of the logits; logits=whole alone" if chunked(options) else None
    )


def _routes(options: Options, on_gpu: bool) -> str | None:
    asked = [name for name in ("routes", "replay_routes") if options.get(name)]
    if not asked:
        return None
    if options.get("compile"):
        return f"{asked[0]}=true with compile=true: a compiled graph calls no hook of a router"
    if ways := parallel(options):
        return f"{asked[0]}=true with {ways[0]}: routes are read off the routers of one process"
    return None


RULES: tuple[Rule, ...] = (
    _machine, _batching, _precision, _kernels, _logits, _cache, _parallel, _tensor_parallel,
    _context_parallel, _routes,
)  # fmt: skip
