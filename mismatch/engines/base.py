"""What the host knows of an engine: data, and one function that refuses what cannot run."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mismatch import wire
from mismatch.model import Condition, Option, OptionValue


@dataclass(frozen=True, slots=True)
class Machine:
    """What refusals may depend on. wide: the CPU has AVX-512 or AMX, or is no x86."""

    gpus: int = 0
    cpus: int = 1
    wide: bool = True

    @property
    def ranks(self) -> int:
        """How many ranks fit: one to a GPU, or one to a core where there is none."""
        return self.gpus or self.cpus


def this_machine() -> Machine:
    """GPUs by device node: the host has no torch to ask. Cores as far as we may use them."""
    nodes = [p for p in Path("/dev").glob("nvidia[0-9]*") if p.name[6:].isdigit()]
    cpus = len(os.sched_getaffinity(0))
    return Machine(gpus=visible_gpus(len(nodes)), cpus=cpus, wide=_is_wide(Path("/proc/cpuinfo")))


def _is_wide(about: Path) -> bool:
    """Where nothing says which instructions there are, they may be there."""
    text = about.read_text(errors="replace") if about.is_file() else ""
    return " avx2" not in text or " avx512" in text or " amx_" in text


def visible_gpus(present: int) -> int:
    """As many as CUDA_VISIBLE_DEVICES leaves, read as CUDA does: none after the first bad one."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    if named is None:
        return present
    usable = 0
    for device in (d.strip() for d in named.split(",")):
        whole = device.isdigit() and int(device) < present
        if not (whole or device.startswith(("GPU-", "MIG-"))):
            break
        usable += 1
    return min(usable, present)


def split_cores(cores: list[int], ranks: int) -> str:
    """Cores of each rank as CPU builds of vllm and sglang read them: [0, 1, 2, 3], 2 -> "0,1|2,3".

    Left to themselves they want a NUMA node for each rank.
    """
    each = max(1, len(cores) // ranks)
    groups = [cores[rank * each : (rank + 1) * each] for rank in range(ranks)]
    return "|".join(",".join(map(str, group)) for group in groups)


def _never(condition: Condition, machine: Machine) -> str | None:
    return None


def _no_environment(condition: Condition) -> dict[str, str]:
    return {}


def _unchanged(condition: Condition, code: Mapping[str, Any]) -> str | None:
    return None


def _one_rank(condition: Condition) -> int:
    return 1


#: Ranks that some machine may have: options take up to 1024 of them, by two kinds.
_MANY = 1 << 20

#: Options of every engine. `arg.NAME=VALUE` beside them goes to the engine's constructor.
SHARED = {
    "python": Option("str", "the interpreter to run this engine in"),
    "model": Option("str", "a checkpoint named in the study's [models] (default: the study's own)"),
}

#: What a sampler does to logits before it draws: a rollout's settings, and a scorer's alike, with
#: one meaning on both sides. A draw needs a temperature above 0.
SAMPLER = {
    "temperature": Option(
        "float", "logits are divided by it", minimum=0.01, maximum=100, scope="request"
    ),
    "top_p": Option(
        "float", "the likeliest tokens of this mass are kept", minimum=1e-6, maximum=1,
        scope="request",
    ),
    "top_k": Option(
        "int", "the K likeliest tokens are kept", minimum=1, maximum=1000000, scope="request"
    ),
    "min_p": Option(
        "float", "tokens of this share of the likeliest one's probability are kept", minimum=0,
        maximum=1, scope="request",
    ),
    "repetition_penalty": Option(
        "float", "logits of earlier tokens are divided by it (positive) or multiplied (negative)",
        minimum=0.01, maximum=100, scope="request",
    ),
}  # fmt: skip

#: Options of an engine that shows more of the distribution than the token's own value.
DISTRIBUTION = {
    "topk": Option(
        "int", "the K likeliest tokens at each position", minimum=1, maximum=1000, scope="request"
    ),
    "entropy": Option("bool", "the entropy at each position", scope="request"),
}

#: The option of an engine that shows which experts each token was sent to.
ROUTES = Option("bool", "the experts of each token, layer by layer", scope="request")

#: Sampling options that change which tokens can be drawn, or how likely, beyond a temperature.
RESHAPING = {n: wire.NEUTRAL[n] for n in ("top_p", "top_k", "min_p", "repetition_penalty")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Host half of an engine.

    paths: what it can capture. on_request: those of them that are taken only where they were asked
    for, as few machines have what they need. options: beside SHARED and `arg.NAME`.
    arguments: where arg.NAME=VALUE goes, for whoever looks for an option.
    imports: the module that must import for the engine to run; None = nothing beyond numpy.
    distributions: asked for their versions. requirements: builds its environment.
    batch: sequences in one call when the user says nothing (None = the whole corpus at once).
    floor_batch: the other batch size that the batch floor uses.
    extra_positions: path -> positions an engine needs beyond the sequence's own length.
    observed: options that `facts()["observed"]` must confirm whenever they were given.
    ranks: processes that torchrun must start (an engine that starts its own has 1).
    plugins: the group of entry points in which the option `plugin` names one.
    changed: why code of the user's own (`facts()["code"]` of a capture) is not what lies there now.
    """

    name: str
    summary: str
    paths: frozenset[str]
    options: Mapping[str, Option]
    imports: str | None
    distributions: tuple[str, ...]
    requirements: Path | None
    batch: int | None
    floor_batch: int = 8
    extra_positions: Mapping[str, int] = field(default_factory=dict)
    on_request: frozenset[str] = frozenset()
    arguments: str = "arg.NAME=VALUE goes to the engine's constructor"
    observed: tuple[str, ...] = ()
    plugins: str | None = None
    refuse: Callable[[Condition, Machine], str | None] = _never
    environment: Callable[[Condition], dict[str, str]] = _no_environment
    ranks: Callable[[Condition], int] = _one_rank
    changed: Callable[[Condition, Mapping[str, Any]], str | None] = _unchanged

    @property
    def default_paths(self) -> frozenset[str]:
        """What is captured where nobody names a path."""
        return self.paths - self.on_request

    def option(self, name: str) -> Option | None:
        """The option of that name; None where there is none."""
        return self.options.get(name) or SHARED.get(name)

    def load_of(self, condition: Condition) -> Condition:
        """The part of a condition that decides the load; conditions that share it share a load."""
        return Condition(self.name, {k: v for k, v in condition.options.items() if self._loads(k)})

    def request_options(self, condition: Condition) -> dict[str, OptionValue]:
        """The part of a condition that may change between two captures of one load."""
        return {k: v for k, v in condition.options.items() if not self._loads(k)}

    def contradiction(self, condition: Condition) -> str | None:
        """Why no machine can run a condition, with GPUs or without; None where one can."""
        without = self.refuse(condition, Machine(gpus=0, cpus=_MANY))
        return without and self.refuse(condition, Machine(gpus=_MANY, cpus=_MANY))

    def _loads(self, name: str) -> bool:
        option = self.option(name)
        return option is None or option.scope == "load"
