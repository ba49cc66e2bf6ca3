"""Conditions as text: a Condition whose id is a plain folder name, or a sentence."""

from __future__ import annotations

import re
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from mismatch import store
from mismatch.engines import ENGINES, parse_condition
from mismatch.engines.base import SHARED
from mismatch.errors import MismatchError
from mismatch.verbs.request import refusal
from tests.fuzz.fence import TRIED, inputs, outcome
from tests.fuzz.garbage import ANY_TEXT

NAMES = sorted({name for e in ENGINES.values() for name in (*e.options, *SHARED)})
VALUES = sorted({v for e in ENGINES.values() for o in e.options.values() for v in o.choices})

OPTION = st.tuples(
    st.one_of(st.sampled_from([*NAMES, "arg.x", "arg.", "arg.max_model_len"]), ANY_TEXT),
    st.one_of(st.sampled_from([*VALUES, "1", "0.5", "true", "false", "all"]), ANY_TEXT),
)


@st.composite
def specs(draw: st.DrawFn) -> str:
    """Near to a condition: real names and values among any others."""
    engine = draw(st.one_of(st.sampled_from(sorted(ENGINES)), ANY_TEXT))
    pairs = draw(st.lists(OPTION, max_size=4))
    joint, equals = draw(st.sampled_from([(",", "="), (",", "="), (",,", "="), (";", ":")]))
    return f"{engine}:" + joint.join(f"{k}{equals}{v}" for k, v in pairs)


@inputs(400)
@given(text=st.one_of(specs(), ANY_TEXT))
@example("toy:arg.x=\udcff")
def test_a_condition_is_refused_in_words_or_has_a_plain_name(text: str) -> None:
    """Any text is a condition whose id always names the same one folder, or MismatchError."""
    TRIED["conditions"] += 1
    found = outcome(parse_condition, text)
    if isinstance(found, MismatchError):
        return
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,90}", found.id), found.id
    assert store.inside(Path("out"), "traces", found.id) == Path("out/traces") / found.id
    assert found.id == parse_condition(text).id
    outcome(refusal, found)
