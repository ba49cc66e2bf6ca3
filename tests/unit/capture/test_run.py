"""What decides whether captures belong together, without any engine."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mismatch import store, wire
from mismatch.capture import run, seal
from mismatch.model import Condition


def _told(**server: Any) -> dict[str, Any]:
    return {"server": server} if server else {}


def _code(digest: str) -> dict[str, Any]:
    return {"code": {"digest": digest}}


@pytest.mark.parametrize(
    ("then", "now", "refused"),
    [
        (_told(fingerprints=["a"]), _told(fingerprints=["a"]), False),
        (_told(fingerprints=["a"]), _told(fingerprints=["b"]), True),
        (_told(fingerprints=[]), _told(fingerprints=["b"]), False),
        (_told(), _told(), False),
        (_code("a"), _code("a"), False),
        (_code("a"), _code("b"), True),
    ],
)
def test_captures_of_one_load_come_from_one_source(
    tmp_path: Path, then: dict[str, Any], now: dict[str, Any], refused: bool
) -> None:
    """They are each other's floors: one taken from a server of another configuration, or with other
    code, is no trace; an engine that tells no fingerprint is not held to one."""
    root, staging, trace = tmp_path / "root", tmp_path / "staging", "c/prefill-1"
    plan = wire.CallPlan("c/prefill-batch", "prefill", [[0]])
    provenance = store.dump_json({"condition": "c", "corpus": "0", "facts": then})
    store.seal(
        store.trace_folder(root, trace),
        lambda aside: store.write_text(aside / "provenance.json", provenance),
        {"kind": "trace"},
    )
    wire.facts_path(staging, plan.name).parent.mkdir(parents=True)
    wire.write_json(wire.facts_path(staging, plan.name), now)
    order: Any = SimpleNamespace(tasks=[SimpleNamespace(trace=trace)])
    if refused:
        with pytest.raises(seal.SealRefused, match=r"came from (another server|other code)"):
            run._check_one_source(root, order, plan, staging)
    else:
        run._check_one_source(root, order, plan, staging)


@pytest.mark.parametrize(
    ("options", "sampling", "said"),
    [
        ({}, None, (1.0, "whole", False)),
        ({"top_k": 1}, None, (1.0, "cut", True)),
        ({"top_k": 1}, {"top_k": 1, "temperature": 0.7}, (0.7, "cut", True)),
        ({}, {"top_k": 1}, (1.0, "cut", True)),
        ({"top_k": 1}, {"top_k": 1, "repetition_penalty": 1.1}, (1.0, "cut", False)),
        ({"top_k": 2}, {"top_k": -1}, (1.0, "whole", False)),
    ],
)
def test_how_a_rollout_was_drawn_is_as_the_engine_resolved_it(
    options: dict[str, Any], sampling: dict[str, Any] | None, said: tuple[float, str, bool]
) -> None:
    """Greedy is top_k = 1, whoever set it, where no penalty makes another token the likeliest."""
    how = run._drawn_how(Condition("vllm", options), {"sampling": sampling})
    assert (how["temperature"], how["support"], how["greedy"]) == said
