"""A sglang server that somebody else runs. Nothing is started, and nothing of it is changed."""

from __future__ import annotations

from mismatch.engines.base import DISTRIBUTION, SAMPLER, Engine
from mismatch.engines.served import ADDRESS, ARGUMENTS, refuse
from mismatch.model import Option

ENGINE = Engine(
    name="sglang_server",
    summary="a running sglang server (sglang:url=...), the rollout side",
    # Ids cannot be forced over HTTP: a custom logit processor's own values come back as 0.
    paths=frozenset({"rollout", "prefill"}),
    options={
        **ADDRESS,
        "batch": Option(
            "batch", "requests under way at once (default 32)", minimum=1, scope="request"
        ),
        **{name: SAMPLER[name] for name in ("temperature", "top_p", "top_k", "min_p")},
        "topk": DISTRIBUTION["topk"],
    },
    arguments=ARGUMENTS,
    imports="httpx",
    distributions=("httpx",),
    requirements=None,
    batch=32,
    observed=("url", "served_model", "topk"),
    refuse=refuse,
)
