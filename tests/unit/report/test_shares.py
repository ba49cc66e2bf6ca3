"""The sentence of an attribution: what it claims must have been shown."""

from __future__ import annotations

from typing import Any

import pytest

from mismatch.report.shares import shares_of


def _knob(name: str, share: float, alone: float) -> dict[str, Any]:
    keys = {"share": share, "alone_share": share, "interaction": 0.0, "alone_k3": alone}
    found = {k: {"value": v, "low": v, "high": v} for k, v in keys.items()}
    return {"knob": name, **found, "resolved_from_next": True}


def attribution(*knobs: dict[str, Any], **more: Any) -> dict[str, Any]:
    """One element of summary.json's attributions[]."""
    return {
        "id": "why", "left": "a", "right": "b", "missing": [], "tokens": 90, "sequences": 9,
        "dropped": 0, "method": "shapley", "gap": {"k3": {"value": 1e-3}}, "knobs": list(knobs),
        **more,
    }  # fmt: skip


def _finding(one: dict[str, Any]) -> str:
    return shares_of({"attributions": [one]})[0].finding


@pytest.mark.parametrize(
    ("inert", "says"),
    [(("tp",), "; tp changes no bit."), (("tp", "pp"), "; tp, pp change no bit.")],
)
def test_inert_knobs_of_all_corners_are_named(inert: tuple[str, ...], says: str) -> None:
    """With all corners, a knob that owns nothing and moves nothing alone changes no bit."""
    found = _finding(attribution(_knob("dtype", 1, 1e-3), *(_knob(n, 0, 0) for n in inert)))
    assert found.endswith(says)


def test_one_path_does_not_show_that_a_knob_is_inert() -> None:
    """A knob that moves nothing along one path may move much where another one is toggled first."""
    found = _finding(attribution(_knob("dtype", 1, 1e-3), _knob("tp", 0, 0), method="path"))
    assert "no bit" not in found and "one path" in found


def test_the_engine_says_what_it_carries() -> None:
    """An option left out of the knobs is named beside engine, wherever engine is."""
    one = attribution(_knob("engine", 0.9, 1e-3), _knob("tp", 0.1, 1e-4), folded=["dtype"])
    (found,) = shares_of({"attributions": [one]})
    assert [k.knob for k in found.knobs] == ["engine (with dtype)", "tp"]
    assert found.finding.startswith("engine (with dtype) owns 90.0%")
