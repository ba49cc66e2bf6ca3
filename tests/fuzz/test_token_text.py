"""Hostile text in tokens, facts, checks and failures: inert in the page, in Markdown, on a screen.

The product writes no CSV, so that there are no formulas to defuse.
"""

from __future__ import annotations

import functools
import io
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.console import Console

from mismatch import report, screen, store
from mismatch.errors import MismatchError
from mismatch.report import retokenize, tables
from tests.fuzz.fence import TRIED, controls, inputs, place, untouched
from tests.fuzz.garbage import HOSTILE, TEXT
from tests.unit.report import runs
from tests.unit.report.test_retokenize import _found

TEXTS = [h for h in HOSTILE if "\ud800" not in h and len(h) < 1000]


class Page(HTMLParser):
    """What a browser would make of a page: elements, attribute names, links and script."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.strange: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag] += 1
        self.attributes |= {name for name, _ in attrs}

    def handle_comment(self, data: str) -> None:
        self.strange.append(data)

    def unknown_decl(self, data: str) -> None:
        self.strange.append(data)


def a_run(root: Path, text: str) -> Path:
    """A run folder with the same text wherever foreign text may stand."""
    checks = [{"rung": text, "verdict": "fail", "evidence": text, "todo": text}]
    one = runs.pair("decode", preflight=checks, sampled_by=text, emulated={"infer": text})
    failed = runs.failed_pair(text)
    folder = runs.write_run(root, one, failed, runs.inner_pair())
    texts = {str(k): text for k in range(6)}
    store.write_text(folder / "corpus" / runs.SHA / store.TEXTS, store.dump_json(texts))
    error = {"boundary": "load", "type": text, "message": text, "condition": "x", "capture": "y"}
    store.write_text(folder / "failed/sglang/decode-1/error.json", store.dump_json(error))
    for trace in (one["train"], one["infer"]):
        path = folder / "traces" / trace / "provenance.json"
        facts = store.read_json(path)
        facts["facts"]["observed"] = {"attention": f"{trace} {text}", f"fact {text}": text}
        store.write_text(path, store.dump_json(facts))
    return folder


HOSTILE_TEXT = st.one_of(
    st.sampled_from(TEXTS),
    TEXT.filter(lambda t: len(t) < 1000),
    st.lists(st.sampled_from(TEXTS), min_size=2, max_size=3).map("".join),
    st.lists(st.sampled_from(TEXTS), min_size=2, max_size=3).map("\n".join),
)


@inputs(40, share=0.5)
@given(text=HOSTILE_TEXT)
@example(text="www.x.example")
@example(text="</script><script>alert(1)</script>")
@example(text="a|b\n# h\n![a](http://x)")
def test_text_stays_text_in_every_form_of_the_report(text: str) -> None:
    """A page, a Markdown file and a screen of hostile text have the structure of those of a plain
    word: no element, attribute, link, image, column or control character more.
    """
    TRIED["texts in a report"] += 1
    page, words, seen = _shown(text)
    plain = _plain()
    _check_page(page, plain[0])
    _check_markdown(words, plain[1])
    assert not controls(seen)


@functools.cache
def _plain() -> tuple[str, str, str]:
    return _shown("word")


def _shown(text: str) -> tuple[str, str, str]:
    """(report.html, report.md, what the terminal shows) of a run that holds the text."""
    with place() as root:
        folder = a_run(root / "out", text)
        with untouched(root, "out"):
            written = report.build(folder)
        page, words = (p.read_text(encoding="utf-8") for p in reversed(written))
        summary = store.read_json(folder / "summary.json")
    shown = io.StringIO()
    tables.terminal(summary, Console(file=shown, width=120, force_terminal=False))
    return page, words, shown.getvalue()


def _check_page(page: str, plain: str) -> None:
    found, wanted = Page(page), Page(plain)
    breaks = found.elements.pop("br", 0), wanted.elements.pop("br", 0)  # after a newline's token
    assert breaks[0] >= breaks[1]
    assert found.elements == wanted.elements
    assert found.attributes == wanted.attributes and not found.strange
    body = page.partition("<body>")[2]
    assert not re.search("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", body)


#: HTML that report.md writes itself.
OWN_TAGS = re.compile(r"<!-- -->|<br>|</?(?:details|summary|code)>")
PARSER = MarkdownIt("commonmark").enable(["table", "strikethrough"])
#: What GitHub makes a link of without being asked.
AUTOLINKS = re.compile(r"(?<![\w/])www\.|\w://|\w@\w|(?<!\w)@\w|#\d")


def _check_markdown(words: str, plain: str) -> None:
    found, wanted = PARSER.parse(words), PARSER.parse(plain)
    assert _structure(found) == _structure(wanted)
    html = "".join(t.content for t in _flat(found) if t.type.startswith("html"))
    assert not re.findall("<[^>]*", OWN_TAGS.sub("", html)), html
    loose = "\0".join(t.content for t in _flat(found) if t.type == "text")
    assert not AUTOLINKS.search(loose), loose


def _flat(tokens: list[Any]) -> list[Any]:
    return [t for token in tokens for t in (token.children or [token])]


def _structure(tokens: list[Any]) -> Counter[str]:
    """How many of each kind of block, and of what stands inside lines, but for plain text: code may
    be written in two ways.
    """
    kinds = Counter(t.type for t in tokens)
    inner = Counter(t.type for t in _flat(tokens))
    for free in ("text", "html_inline", "code_inline", "softbreak", "inline"):
        del inner[free]
    return kinds + inner


@inputs(60)
@given(text=HOSTILE_TEXT)
@example(text="www.x.example")
@example(text="</script><script>alert(1)</script>")
def test_text_stays_text_in_a_report_of_retokenisation(text: str) -> None:
    """As above, of token texts, group names and a tokenizer's name."""
    TRIED["texts in a report of retokenisation"] += 1
    made = [(retokenize.html(f), retokenize.markdown(f)) for f in (_found(text), _found("word"))]
    _check_page(made[0][0], made[1][0])
    _check_markdown(made[0][1], made[1][1])


@inputs(100)
@given(text=HOSTILE_TEXT)
@example(text="\x1b[31mred")
@example(text="[/]")
def test_text_stays_text_in_an_error_and_in_a_verdict(text: str) -> None:
    """What a command prints of a failure or of the gate's reasons holds no control character."""
    TRIED["texts on the terminal"] += 1
    out, err = io.StringIO(), io.StringIO()
    error = MismatchError("usage", what=text, todo=text)
    screen.print_error(error, Console(file=err, width=100))
    rule = {"verdict": "fail", "reason": text}
    screen.print_verdict({"verdict": "fail", "rules": [rule]}, Console(file=out, width=100))
    for shown in (out.getvalue(), err.getvalue()):
        assert not controls(shown)
    assert json.loads(store.dump_json(error.as_json()))["error"]["message"] == error.message
