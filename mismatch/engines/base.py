"""What the host knows of an engine: data, and one function that refuses what cannot run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from mismatch.model import Condition, Option


@dataclass(frozen=True, slots=True)
class Machine:
    """What refusals may depend on."""

    gpus: int = 0


def _never(condition: Condition, machine: Machine) -> str | None:
    return None


def _no_environment(condition: Condition) -> dict[str, str]:
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """Host half of an engine.

    paths: what it can capture. options: beside `python` and `arg.NAME`, which all share.
    imports: the module that must import for the engine to run; None = nothing beyond numpy.
    distributions: asked for their versions. requirements: builds its environment.
    batch: sequences in one call when the user says nothing (None = the whole corpus at once).
    floor_batch: the other batch size that the batch floor uses.
    extra_positions: path -> positions an engine needs beyond the sequence's own length.
    observed: options that `facts()["observed"]` must confirm whenever they were given.
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
    observed: tuple[str, ...] = ()
    refuse: Callable[[Condition, Machine], str | None] = _never
    environment: Callable[[Condition], dict[str, str]] = _no_environment
