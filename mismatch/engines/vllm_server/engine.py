"""A vllm server that somebody else runs. Nothing is started, and nothing of it is changed."""

from __future__ import annotations

from mismatch.engines.base import DISTRIBUTION, SAMPLER, Engine
from mismatch.engines.served import ADDRESS, ARGUMENTS, refuse
from mismatch.model import Option

ENGINE = Engine(
    name="vllm_server",
    summary="a running vllm server (vllm:url=...), the rollout side",
    paths=frozenset({"rollout", "prefill", "decode"}),
    # Trace replay is a switch of the server's, and vllm's GPU runner alone has it.
    on_request=frozenset({"decode"}),
    options={
        **ADDRESS,
        "batch": Option(
            "batch", "requests under way at once (default 32)", minimum=1, scope="request"
        ),
        **SAMPLER,
        "topk": DISTRIBUTION["topk"],
    },
    arguments=ARGUMENTS,
    imports="httpx",
    distributions=("httpx",),
    requirements=None,
    batch=32,
    extra_positions={"prefill": 1},
    observed=("url", "served_model", "topk"),
    refuse=refuse,
)
