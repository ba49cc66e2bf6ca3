"""retokenize.md and .html: what is shown, and that hostile text stays text."""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from mismatch.report import build_retokenize
from mismatch.report.retokenize import depth

HOSTILE = '<script>alert(1)</script>" onmouseover="x|`[a](http://b)\u202e\x1b[31m'


def _interval(value: float) -> dict[str, float]:
    return {"value": value, "low": value / 2, "high": value * 2}


def _rates(count: int) -> dict[str, Any]:
    one = {"count": count, "per_1000": _interval(3.0)}
    cause = {
        "rollouts": {"count": count, **_interval(0.25)},
        "spans": 3, "inserted": 5, "inserted_per_1000": _interval(3.0), "lost": 4,
    }  # fmt: skip
    return {
        "rollouts": 40, "sampled_tokens": 4000, "drifted": {"count": count, **_interval(0.25)},
        "inserted": one, "lost": one, "causes": {"tool_whitespace": cause},
    }  # fmt: skip


def _values(median: float) -> dict[str, Any]:
    return {"tokens": 5, "median": _interval(median), "p01": -9.0, "least": -12.0}


def _score(name: str) -> dict[str, Any]:
    share = {k: _interval(0.2) for k in ("tokens", "gradient", "loss")}
    road = {
        "rollouts": 40, "not_finite": 0, "kept": _values(-0.1), "inserted": _values(-7.5),
        "share": {**share, "gradient_norm2": [0.15, 0.26]},
    }  # fmt: skip
    whole = {**road, "causes": {"tool_whitespace": road}}
    return {
        "condition": name, "spec": name, "path": "score", "not_finite": 0,
        "sampled": _values(-0.2), "roads": {"text": whole, "template": whole},
    }  # fmt: skip


def _token(text: str, state: str, logprob: float) -> dict[str, Any]:
    return {
        "position": 3, "id": 7, "text": text, "state": state,
        "cause": "tool_whitespace" if state in ("inserted", "changed") else "",
        "logprobs": {"hf": logprob},
    }  # fmt: skip


def _found(text: str = "x") -> dict[str, Any]:
    example = {
        "road": "template", "cause": "tool_whitespace", "row": 2, "group": text, "least": -7.5,
        "before": [_token(text, "changed", -0.1)],
        "after": [_token("kept", "kept", -0.1), _token(text, "inserted", -7.5)],
    }  # fmt: skip
    inputs = ("rollouts", "without_messages", "sampled_tokens", "turns", "turns_with_calls",
              "rollouts_with_calls", "turns_that_do_not_parse")  # fmt: skip
    return {
        "schema": 1, "command": {}, "tokenizer": {"tokenizer": text, "vocabulary": 99},
        "input": dict.fromkeys(inputs, 40),
        "roads": {"text": _rates(0), "template": _rates(10)},
        "groups": {text: _rates(10)}, "scores": [_score("hf")], "examples": [example],
    }  # fmt: skip


def _build(folder: Path, found: dict[str, Any]) -> tuple[str, str]:
    (folder / "retokenize.json").write_text(json.dumps(found), encoding="utf-8")
    text, page = build_retokenize(folder)
    return text.read_text("utf-8"), page.read_text("utf-8")


def test_both_reports_tell_rates_medians_and_shares_with_intervals(tmp_path: Path) -> None:
    for said in _build(tmp_path, _found()):
        plain = said.replace("\\", "")
        for words in ("10 of 40: 25.0% [12.5, 50.0]", "-7.50 [-3.75, -15.0]", "20.0% [10.0, 40.0]",
                      "tool call: white space", "15.0 to 26.0%"):  # fmt: skip
            assert words in plain


def test_an_inserted_token_is_marked_and_coloured_by_its_depth(tmp_path: Path) -> None:
    """7.3 nats below the median: class 4; its tooltip has the engine's own value."""
    page = _build(tmp_path, _found())[1]
    assert re.search(r'<span class="t ins n4"[^>]*title="[^"]*hf: p = [^"]*ln p = -7.5', page)
    assert '<span class="t gone"' in page


@pytest.mark.parametrize(("below", "shade"), [(0.5, ""), (1, "n1"), (7, "n4"), (40, "n5")])
def test_depth_is_counted_in_nats_below_the_median(below: float, shade: str) -> None:
    assert depth(-0.25 - below, -0.25) == shade


def test_hostile_text_stays_text(tmp_path: Path) -> None:
    """Token texts, groups and names are foreign: no tag, attribute, link or escape code of
    theirs."""
    text, page = _build(tmp_path, _found(HOSTILE))
    for said in (text, page):
        assert "<script>alert" not in said and "\u202e" not in said and "\x1b" not in said
    assert ' onmouseover="x' not in page
    assert r"\[a\](http:<!-- -->//b)" in text


def test_the_page_loads_nothing(tmp_path: Path) -> None:
    page = _build(tmp_path, _found())[1]
    assert not re.search(r"""(src|href)\s*=\s*["']""", page)
    assert "default-src 'none'" in html.unescape(page)


def test_without_engines_nothing_is_said_of_log_probabilities(tmp_path: Path) -> None:
    found = _found()
    found["scores"] = []
    del found["examples"][0]["after"][1]["logprobs"]
    found["examples"][0]["least"] = None
    text, page = _build(tmp_path, found)
    assert "ln p" not in text and "nats below" not in page
