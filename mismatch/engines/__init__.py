"""Engines by name, and the one place where a condition on the command line becomes a Condition."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from mismatch.engines.base import SHARED, Engine
from mismatch.engines.hf.engine import ENGINE as HF
from mismatch.engines.megatron.engine import ENGINE as MEGATRON
from mismatch.engines.python.engine import ENGINE as PYTHON
from mismatch.engines.sglang.engine import ENGINE as SGLANG
from mismatch.engines.sglang_server.engine import ENGINE as SGLANG_SERVER
from mismatch.engines.toy.engine import ENGINE as TOY
from mismatch.engines.vllm.engine import ENGINE as VLLM
from mismatch.engines.vllm_server.engine import ENGINE as VLLM_SERVER
from mismatch.errors import MismatchError, suggest
from mismatch.model import Condition, OptionValue, split_spec

ENGINES: dict[str, Engine] = {
    e.name: e for e in (TOY, HF, MEGATRON, VLLM, VLLM_SERVER, SGLANG, SGLANG_SERVER, PYTHON)
}


def find(name: str) -> Engine:
    """The engine of that name; else `unknown-engine` with a suggestion."""
    if name not in ENGINES:
        known = ", ".join(ENGINES)
        raise MismatchError(
            "unknown-engine", engine=name, known=known, hint_extra=suggest(name, ENGINES)
        )
    return ENGINES[name]


def parse_condition(text: str, base: Path = Path()) -> Condition:
    """`hf:dtype=bf16,attention=sdpa` -> a Condition whose options the engine knows.

    base: the folder that relative paths start from; where the user stands, or a study file's.
    """
    name, raw = split_spec(text)
    engine = find_for(name, raw)
    return Condition(engine.name, {k: parse_option(engine, k, v, base) for k, v in raw.items()})


def find_for(name: str, options: Collection[str]) -> Engine:
    """The engine of that name; with a url, its running server: `vllm:url=...` is vllm_server."""
    served = ENGINES.get(f"{name}_server")
    return served if served and "url" in options else find(name)


def parse_option(engine: Engine, name: str, raw: str, base: Path = Path()) -> OptionValue:
    """One option's text -> its value; else an error that names what the engine takes."""
    if name.startswith("arg.") and name != "arg.":
        return _plain(raw)
    option = engine.option(name)
    if option is None:
        options = {**engine.options, **SHARED}
        raise MismatchError(
            "unknown-option",
            engine=engine.name,
            option=name,
            known=", ".join(sorted(options)),
            arguments=engine.arguments,
            hint_extra=suggest(name, options),
        )
    value = option.parse(f"{name} of {engine.name}", raw)
    return Path(os.path.abspath(base / value)) if isinstance(value, Path) else value


def _plain(raw: str) -> OptionValue:
    """arg.NAME=VALUE: true, false and numbers become themselves, the rest stays text."""
    if raw in ("true", "false"):
        return raw == "true"
    for kind in (int, float):
        try:
            return kind(raw)
        except ValueError:
            continue
    return raw
