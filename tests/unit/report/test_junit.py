"""junit.xml: a test case for each rule and pair; what is not a pass never looks like one."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from mismatch import api
from mismatch.errors import MismatchError
from mismatch.gate import VERDICTS
from mismatch.report.junit import UNFINISHED, junit_xml
from tests.unit.report.runs import HOSTILE


def a_rule(verdict: str, reason: str = "k3 = 4e-4.", **changes: Any) -> dict[str, Any]:
    found = {"pair": "hf~vllm.decode", "rule": "max", "key": "k3", "limit": 1e-3}
    return {**found, "verdict": verdict, "reason": reason, **changes}


def test_each_verdict_has_its_place_and_the_counts_agree() -> None:
    """A pass is the only case without failure or error; a broken rule is a failure, all else an
    error."""
    suites = ET.fromstring(junit_xml([a_rule(v) for v in VERDICTS]))
    cases = dict(zip(VERDICTS, suites.iter("testcase"), strict=True))
    said = {v: {child.tag for child in case} for v, case in cases.items()}
    assert said.pop("pass") == {"system-out"}
    assert said.pop("fail") == {"failure"}
    assert set(map(frozenset, said.values())) == {frozenset({"error"})} and len(said) == 3
    for element in (suites, suites[0]):
        assert [element.get(k) for k in ("tests", "failures", "errors")] == ["5", "1", "3"]
    assert cases["fail"][0].get("message") == cases["fail"][0].text == "k3 = 4e-4."
    assert cases["inconclusive"][0].get("type") == "inconclusive"


def test_cases_are_told_apart() -> None:
    """Two limits on one key, both bounds, and two pairs have names of their own."""
    rules = [
        a_rule("pass"),
        a_rule("pass", limit=1e-2),
        a_rule("pass", rule="min"),
        a_rule("pass", key="excess.k3"),
        a_rule("pass", pair="hf~vllm.prefill"),
        a_rule("no_evidence", pair=None),
    ]
    cases = list(ET.fromstring(junit_xml(rules)).iter("testcase"))
    assert len({(c.get("classname"), c.get("name")) for c in cases}) == len(rules)


def test_foreign_text_is_shown_and_cannot_break_the_file() -> None:
    """Markup, control characters, half surrogates and non-characters survive as text."""
    text = HOSTILE + "\x00\x1b[31m\x85\ud800\ufffe\U0001ffff]]>\n日本 𝛿"
    document = junit_xml([a_rule("fail", text, pair=text)])
    case = next(ET.fromstring(document.encode()).iter("testcase"))
    assert HOSTILE in (case[0].text or "") and HOSTILE in (case.get("classname") or "")
    assert "\\x1b[31m" in (case[0].text or "") and "日本 𝛿" in (case[0].text or "")
    assert document == junit_xml([a_rule("fail", text, pair=text)])


def test_a_gate_that_stops_early_leaves_an_error_and_no_old_pass(tmp_path: Path) -> None:
    """The file of an earlier pass is replaced before anything is judged."""
    file = tmp_path / "junit.xml"
    file.write_text(junit_xml([a_rule("pass")]))
    with pytest.raises(MismatchError):
        api.gate(tmp_path / "no-run", maximum=["k3=1e-3"], junit=file)
    suites = ET.fromstring(file.read_text())
    assert suites.get("errors") == "1" and suites.get("tests") == "1"
    assert UNFINISHED["reason"] in file.read_text()
