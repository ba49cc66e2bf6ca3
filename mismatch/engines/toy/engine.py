"""toy: a Llama in numpy, for tests of the plumbing. Not an engine anybody trains or serves with."""

from __future__ import annotations

from pathlib import Path

from mismatch.engines.base import Engine, Machine
from mismatch.model import Condition, Option


def refuse(condition: Condition, machine: Machine) -> str | None:
    try:
        if float(condition.options.get("noise", 0)) >= 0:
            return None
    except ValueError:
        pass
    return f"noise={condition.options['noise']} is not a number of nats >= 0"


ENGINE = Engine(
    name="toy",
    summary="a Llama in numpy, for tests of the plumbing only",
    paths=frozenset({"rollout", "decode", "prefill", "score"}),
    options={
        "dtype": Option("str", "weights and compute", ("fp32",)),
        "batch": Option("batch", "sequences in one call (default all)", minimum=1),
        "noise": Option("str", "nats of seeded noise that depends on path and batch composition"),
    },
    imports=None,
    distributions=("numpy",),
    requirements=Path(__file__).parent / "requirements.txt",
    batch=None,
    observed=("dtype",),
    refuse=refuse,
)
