"""What the fuzz tests feed in: hostile text, any JSON value, and valid inputs that were damaged."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

#: Names and texts that some reader, shell, screen, page or spreadsheet would take for more than
#: text.
HOSTILE = (
    "", " ", ".", "..", "../x", "../../outside/kept", "..\\x", "/etc/passwd", "//x", "~", "a/b",
    "a/../b", "a\0b", "\0", "x" * 300, "x/" * 2000, "-", "--out", "-1", "CON", "a:b", "a b",
    "$(x)", "%s", "{x}", "{}", "\n", "a\nb", "\r", "\t", "\x07", "\x1b[31mred", "\x1b]0;title\x07",
    "\x9b2J", "\x7f", "\u202egnp.exe", "\u2066x\u2069", "\u200b", "\ufeff", "\u2028", "\U0001f600",
    "e\u0301", "日本", "\ud800", "<script>alert(1)</script>", "</script>",
    "</span><img src=x onerror=alert(1)>", "<!--", "-->", "&", "&lt;",
    "\" onmouseover=alert(1) x=\"", "' x='", "]]>", "javascript:alert(1)", "data:text/html,x",
    "{{ 7 * 7 }}", "|", "a|b", "\\|", "`", "``", "``|", "*", "_", "~~", "**b**", "[a](http://x)",
    "![a](http://x)", "<http://x>", "http://x.example", "www.x.example", "a@x.example", "@user",
    "#1", "# h", "- l", "1. l", "> q", "---", "\\", "$x$", "[^1]", "[ ]", ":x:", "<details>",
    "<br>", "[x]: http://x", "=HYPERLINK(\"http://x\",\"y\")", "+cmd|' /C calc'!A0", "-2+3",
    "@SUM(1)", "=1", "[bold]x[/bold]", "[/]", "nan", "NaN", "inf", "-inf", "1e999", "true", "null",
    "None", "0x10", "9" * 5000,
)  # fmt: skip

#: Anything text may be, without halves of surrogate pairs (which no file in UTF-8 can hold).
TEXT = st.one_of(
    st.sampled_from([h for h in HOSTILE if "\ud800" not in h]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
)
#: As a program may get it, halves of surrogate pairs among it.
ANY_TEXT = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40))

NUMBERS = st.one_of(
    st.integers(-3, 70),
    st.sampled_from([-1, 2**31 - 1, 2**31, 2**63, 2**64, -(2**63) - 1, 10**30, 10**400, 10**4000]),
    st.floats(),
    st.sampled_from([-0.0, 1e-320, 1e308, -1e308, float("nan"), float("inf"), -float("inf")]),
)
LEAVES = st.one_of(st.none(), st.booleans(), NUMBERS, TEXT)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(TEXT.filter(len), inner, max_size=4)
    ),
    max_leaves=8,
)


def nested(depth: int) -> Any:
    """A list in a list in a list."""
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


DEEP = st.sampled_from([5, 90]).map(nested)


# ---------------------------------------------------------------- damage to a value


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a nested value can be changed: the path of every element of it."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        yield (*at, key)
        if isinstance(inner, dict | list):
            yield from places(inner, (*at, key))


@st.composite
def damaged(draw: st.DrawFn, value: Any, edits: int = 3) -> Any:
    """A copy of a nested value with one to `edits` things put wrong in it."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, edits))):
        known = list(places(value))
        if known:
            _edit(draw, value, draw(st.sampled_from(known)))
    return value


def _edit(draw: st.DrawFn, value: Any, at: tuple[Any, ...]) -> None:
    *above, key = at
    for step in above:
        value = value[step]
    what = draw(st.sampled_from(["replace", "replace", "remove", "wrap", "swap", "double", "add"]))
    if what == "replace":
        value[key] = draw(st.one_of(LEAVES, JSON, DEEP))
    elif what == "remove":
        del value[key]
    elif what == "wrap":
        value[key] = [value[key]]
    elif what == "swap":  # with the element beside it
        other = draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
        value[key], value[other] = value[other], value[key]
    elif what == "double" and isinstance(value, list):
        value.insert(key, copy.deepcopy(value[key]))
    elif isinstance(value, dict):
        value[draw(TEXT)] = draw(JSON)


# ---------------------------------------------------------------- damage to bytes

#: A number of more digits than Python reads.
DIGITS = b"9" * 5000


@st.composite
def broken(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file's bytes cut, overwritten, filled up, doubled or replaced."""
    at = draw(st.integers(0, len(whole)))
    end = min(len(whole), at + draw(st.integers(1, 40)))
    put = draw(
        st.one_of(
            st.binary(min_size=1, max_size=12),
            st.sampled_from(
                [b"\xff", b"\xef\xbb\xbf", b"\0", b"\n", b"{", b"[" * 3000, b"NaN", DIGITS]
            ),
        )
    )  # fmt: skip
    return draw(
        st.sampled_from(
            [whole[:at], whole[:at] + put + whole[end:], whole[:at] + put + whole[at:],
             whole[:at] + whole[end:], whole + whole, put + whole, b"", put]
        )
    )  # fmt: skip
