"""A gate's verdict as junit.xml: one test case for each rule on each pair.

What GitLab, Jenkins and the readers on GitHub share of that format: testsuites, testsuite,
testcase, failure, error, system-out. A rule that is broken is a failure. Whatever else is not a
pass is an error, since to skip it would show it as good news.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from typing import Any

from mismatch.report.words import clean

SUITE = "mismatch-probe gate"
#: What stands in the file until there is a verdict: a gate that stops early leaves no old pass.
UNFINISHED: Mapping[str, Any] = {
    "pair": None,
    "rule": "gate",
    "key": "verdict",
    "limit": None,
    "verdict": "no_evidence",
    "reason": "The gate stopped before it came to a verdict; its own message says why.",
}


def junit_xml(rules: Sequence[Mapping[str, Any]]) -> str:
    """The `rules` of a verdict as XML; equal rules give equal bytes (no time, no host)."""
    suites = ET.Element("testsuites", _counts(rules))
    suite = ET.SubElement(suites, "testsuite", {"name": SUITE, **_counts(rules), "skipped": "0"})
    for rule in rules:
        _case(suite, rule)
    ET.indent(suites)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(suites, encoding="unicode")}\n'


def _counts(rules: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    said = [_outcome(rule) for rule in rules]
    return {
        "tests": str(len(said)),
        "failures": str(said.count("failure")),
        "errors": str(said.count("error")),
    }


def _outcome(rule: Mapping[str, Any]) -> str:
    return {"pass": "system-out", "fail": "failure"}.get(rule["verdict"], "error")


def _case(suite: ET.Element, rule: Mapping[str, Any]) -> None:
    """The sentence stands beside a pass too: a number that passed is worth reading."""
    limit = "" if rule["limit"] is None else f"={rule['limit']:.6g}"
    names = {
        "classname": clean(str(rule["pair"] or "no pair")),
        "name": clean(f"{rule['rule']} {rule['key']}{limit}"),
    }
    case, sentence = ET.SubElement(suite, "testcase", names), clean(str(rule["reason"]))
    said = ET.SubElement(case, _outcome(rule))
    if _outcome(rule) != "system-out":
        said.attrib |= {"message": sentence, "type": clean(str(rule["verdict"]))}
    said.text = sentence
