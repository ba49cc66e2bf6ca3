"""toy: a Llama in numpy, for tests of the plumbing. Not an engine anybody trains or serves with."""

from __future__ import annotations

from pathlib import Path

from mismatch.engines.base import DISTRIBUTION, SAMPLER, Engine
from mismatch.model import Option

ENGINE = Engine(
    name="toy",
    summary="a Llama in numpy, for tests of the plumbing only",
    paths=frozenset({"rollout", "decode", "prefill", "score"}),
    options={
        "dtype": Option("str", "weights and compute", ("fp16", "fp32", "fp64")),
        "batch": Option("batch", "sequences in one call (default all)", minimum=1, scope="request"),
        "noise": Option(
            "float",
            "nats of seeded noise, by path and batch",
            minimum=0,
            scope="request",
        ),
        "temperature": SAMPLER["temperature"],
        **DISTRIBUTION,
    },
    imports=None,
    distributions=("numpy",),
    requirements=Path(__file__).parent / "requirements.txt",
    batch=None,
    observed=("dtype", "noise", "temperature", "topk", "entropy"),
)
