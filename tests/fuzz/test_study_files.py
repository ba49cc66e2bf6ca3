"""study.toml: a plan, or a sentence; and nothing is written either way."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from mismatch import api, store
from mismatch.errors import MismatchError
from mismatch.report import cells
from tests.fuzz.fence import TRIED, controls, inputs, outcome, place, untouched
from tests.fuzz.garbage import TEXT, broken, damaged

STUDY: dict[str, Any] = {
    "model": "ckpt",
    "models": {"stale": "ckpt"},
    "corpus": "ids.jsonl",
    "paths": ["decode", "prefill"],
    "repeats": 2,
    "floor": "batch",
    "samples": 1,
    "max_tokens": 8,
    "seed": 0,
    "limit": 3,
    "timeout": 60,
    "trust_remote_code": False,
    "train": {"engine": "toy", "dtype": ["fp32", "fp64"], "noise": 0.1},
    "infer": {"engine": "toy", "dtype": "fp16", "batch": [1, "all"], "arg.x": "y"},
    "condition": [{"side": "train", "spec": "toy:dtype=fp16,model=stale", "id": "stale"}],
    "exclude": [{"side": "train", "dtype": "fp64"}],
    "pair": [{"left": "toy-fp32*", "right": "toy-fp16*", "path": "decode"}],
    "attribute": [
        {
            "id": "why", "left": "stale", "right": "toy-fp16-arg.x_y-batch1", "path": "decode",
            "knobs": ["engine"],
        }
    ],
}  # fmt: skip
#: The same with prompts, which somebody has to draw.
DRAWN = {k: v for k, v in STUDY.items() if k not in ("corpus", "attribute")} | {
    "prompts": "prompts.jsonl", "rollout": "toy-fp16-*1",
}  # fmt: skip

#: Ten axes of ten values.
HUGE = {f"arg.a{k}": list(range(10)) for k in range(10)}


def toml(value: Any) -> str:
    """A value as TOML; null, which TOML has not, as text."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_quoted(str(k))} = {toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return repr(value) if isinstance(value, int | float) else _quoted(str(value))


def _quoted(text: str) -> str:
    plain = (c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in text)
    return '"' + "".join(plain) + '"'


def written(study: dict[str, Any]) -> bytes:
    return "".join(f"{_quoted(k)} = {toml(v)}\n" for k, v in study.items()).encode()


@pytest.fixture(scope="module")
def shown() -> Any:
    """What the terminal shows of a plan."""

    def show(found: dict[str, Any]) -> str:
        out = io.StringIO()
        cells.plan(found, Console(file=out, width=100, force_terminal=False))
        return out.getvalue()

    return show


FILES = st.one_of(
    damaged(STUDY).map(written),
    damaged(DRAWN).map(written),
    broken(written(STUDY)),
    TEXT.map(lambda t: t.encode()),
    st.binary(max_size=60),
)


def test_the_studies_that_are_damaged_are_whole(bigram: Path) -> None:
    """Undamaged, both studies have a plan: the fuzz begins at something that works."""
    for study in (STUDY, DRAWN):
        with place() as root:
            _lay(root, bigram, written(study))
            assert api.plan("study.toml", "out")["cells"]


@inputs(150)
@given(data=FILES)
@example(data=b"a = " + b"[" * 4000)
@example(data=written(DRAWN | {"samples": 10**12}))
@example(data=written(DRAWN | {"limit": 2**63}))
@example(data=written(STUDY | {"train": {"engine": "toy"} | HUGE}))
@example(data=b'model = "ckpt"\nseed = ' + b"9" * 5000)
def test_any_study_is_planned_or_refused_in_words(data: bytes, bigram: Path, shown: Any) -> None:
    """A plan names plain folders and shows no control character; else MismatchError. Nothing is
    written, not even the output folder.
    """
    TRIED["study files"] += 1
    with place() as root:
        _lay(root, bigram, data)
        with untouched(root):
            found = outcome(api.plan, "study.toml", "out")
    if isinstance(found, MismatchError):
        return
    store.dump_json(found)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,90}", c["id"]) for c in found["cells"])
    assert not controls(shown(found))


@inputs(60, share=0.1)
@given(name=TEXT, out=TEXT)
@example(name="a\0b", out="out")
@example(name="study.toml", out="x" * 300)
@example(name="study.toml", out="../outside")
def test_any_name_of_a_study_and_an_output_folder(name: str, out: str, bigram: Path) -> None:
    """Odd names of the file and of the folder: a plan or MismatchError, and nothing written."""
    TRIED["names of study files and output folders"] += 1
    with place() as root:
        _lay(root, bigram, written(STUDY))
        with untouched(root):
            outcome(api.plan, name, "out")
            outcome(api.plan, "study.toml", out)


def _lay(root: Path, bigram: Path, study: bytes) -> None:
    (root / "here" / "ckpt").symlink_to(bigram)
    (root / "here" / "study.toml").write_bytes(study)
    (root / "here" / "ids.jsonl").write_text('{"token_ids": [1, 2, 3]}\n' * 3)
    (root / "here" / "prompts.jsonl").write_text('{"token_ids": [1, 2]}\n{"token_ids": [3]}\n')
