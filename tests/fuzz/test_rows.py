"""Prompts, corpora and dumps: what is read is valid, all else is a sentence, no garbage passes."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mismatch import api, store
from mismatch.compare.compare import check
from mismatch.corpus.jsonl import MAX_TOKEN_ID, read_corpus
from mismatch.corpus.prompts import KEYS, read_prompts
from mismatch.corpus.recorded import READERS
from mismatch.errors import MismatchError
from mismatch.model import LOGPROB_CEILING, Corpus
from tests.fuzz.fence import TRIED, inputs, outcome, place, untouched
from tests.fuzz.garbage import DIGITS, TEXT, broken, damaged

PROMPTS: list[Any] = [
    {"prompt": "What is 2 + 2?"},
    {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes?"}]},
    {"token_ids": [1, 2, 3], "note": None},
]
CORPUS: list[Any] = [
    {"token_ids": [5, 6, 7, 8], "loss_mask": [0, 1, 1, 0]},
    {"token_ids": [1, 2], "loss_mask": [False, True]},
    {"token_ids": [1, 2, 3]},
]


def a_dump(infer: str, train: str, **beside: Any) -> list[Any]:
    """Nine sequences, so that one may be lost before there is no interval."""
    return [
        {
            **beside,
            "token_ids": [1, 2, 3, 4 + k],
            "loss_mask": [0, 0, 1, 1],
            infer: [None, None, -0.5 - k / 10, -0.25],
            train: [None, None, -0.75 - k / 10, -0.25 + k / 100],
        }
        for k in range(9)
    ]


DUMPS = {
    "jsonl": a_dump("infer_logprobs", "train_logprobs"),
    "prime-rl": a_dump("inference_logprobs", "trainer_logprobs", schema_version=1),
    "nemo-rl": [
        {**row, "token_loss_mask": row["loss_mask"], "input_lengths": len(row["token_ids"])}
        for row in a_dump("generation_logprobs", "prev_logprobs")
    ],
}


def lines(rows: list[Any]) -> bytes:
    """JSON lines as Python writes them: NaN and Infinity among them."""
    return ("\n".join(json.dumps(row) for row in rows) + "\n").encode()


@st.composite
def files(draw: st.DrawFn, rows: list[Any]) -> bytes:
    """Rows with damage in them, damaged bytes, or no rows at all."""
    whole = draw(st.one_of(st.just(rows), damaged(rows)))
    data = lines(whole if isinstance(whole, list) else [whole])
    ends = draw(st.sampled_from([b"", b"", b"\xef\xbb\xbf"]))
    return draw(st.one_of(st.just(ends + data), broken(data), st.binary(max_size=80)))


# ---------------------------------------------------------------- prompts and corpora


@inputs(150)
@given(data=files(PROMPTS))
@example(data=b'{"prompt": ' + DIGITS + b"}")
@example(data=b'{"messages": ' + b"[" * 5000)
def test_prompts_are_read_whole_or_refused_in_words(data: bytes) -> None:
    """Each prompt has one of three forms and can be written as UTF-8 JSON; else MismatchError."""
    TRIED["prompts"] += 1
    with place() as root:
        (root / "prompts.jsonl").write_bytes(data)
        with untouched(root):
            found = outcome(read_prompts, root / "prompts.jsonl")
    if isinstance(found, MismatchError):
        return
    assert found
    for row in found:
        assert len(row) == 1 and set(row) <= set(KEYS)
        json.dumps(row, ensure_ascii=False).encode()


@inputs(150)
@given(data=files(CORPUS))
@example(data=b'{"token_ids": [1, ' + DIGITS + b"]}")
@example(data=b'{"token_ids": [true, 1]}')
def test_a_corpus_is_read_whole_or_refused_in_words(data: bytes) -> None:
    """Ids are in range and something is scored, never position 0; else MismatchError."""
    TRIED["corpora"] += 1
    with place() as root:
        (root / "ids.jsonl").write_bytes(data)
        with untouched(root):
            found = outcome(read_corpus, root / "ids.jsonl")
    if not isinstance(found, MismatchError):
        _check_corpus(found)


def _check_corpus(found: Corpus) -> None:
    assert found.scored_tokens > 0
    for ids, scored in zip(found.token_ids, found.scored, strict=True):
        assert len(ids) == len(scored) > 0 and not scored[0]
        assert ids.min() >= 0 and ids.max() <= MAX_TOKEN_ID


# ---------------------------------------------------------------- dumps


@st.composite
def a_damaged_dump(draw: st.DrawFn) -> tuple[str, bytes]:
    """A format, and a file that is nearly of it."""
    name = draw(st.sampled_from(sorted(DUMPS)))
    return name, draw(files(DUMPS[name]))


@inputs(250)
@given(dump=a_damaged_dump())
@example(dump=("jsonl", b'{"token_ids": [1, 2], "infer_logprobs": [0, ' + DIGITS + b"]}"))
def test_a_dump_is_read_whole_or_refused_in_words(dump: tuple[str, bytes]) -> None:
    """Values are at most 0 (or NaN), and as many as the ids; else MismatchError."""
    TRIED["dumps, read"] += 1
    name, data = dump
    with place() as root:
        (root / "dump.jsonl").write_bytes(data)
        with untouched(root):
            found = outcome(READERS[name], [root / "dump.jsonl"])
    if isinstance(found, MismatchError):
        return
    _check_corpus(found.corpus)
    for side in (found.infer, found.train):
        for values, scored in zip(side, found.corpus.scored, strict=True):
            assert len(values) == len(scored)
            assert not (values[scored] > LOGPROB_CEILING).any()


#: Rules that every finite measurement keeps to: what does not pass them has no evidence.
LAX = {"maximum": ["k3=1e300"], "minimum": ["exact_fraction=-1"]}


@pytest.mark.filterwarnings("error")
@inputs(40, share=0.2)
@given(dump=a_damaged_dump())
@example(dump=("jsonl", lines(DUMPS["jsonl"])))
@example(dump=("jsonl", lines(DUMPS["jsonl"][:7])))
@example(dump=("jsonl", lines(DUMPS["jsonl"]).replace(b"-0.25", b"NaN")))
@example(dump=("jsonl", lines(DUMPS["jsonl"]).replace(b"-0.25", b"-1e999")))
@example(dump=("jsonl", lines(DUMPS["jsonl"]).replace(b"-0.25", b"null")))
def test_garbage_never_passes_the_gate(dump: tuple[str, bytes]) -> None:
    """An imported dump is a run folder whose gate passes, under a limit that any number keeps, only
    if eight sequences have scored tokens and every scored value in the file is a finite number.
    """
    TRIED["dumps, imported and gated"] += 1
    name, data = dump
    with place() as root:
        (root / "here" / "dump.jsonl").write_bytes(data)
        with untouched(root, "out"):
            found = outcome(api.import_dumps, name, "dump.jsonl", root / "out")
        if isinstance(found, MismatchError):
            return
        store.dump_json(check(root / "out"))
        verdict = api.gate(root / "out", **LAX)["verdict"]
    assert verdict != "fail"
    if verdict == "pass":
        scored = [values for values in _scored(data) if values]
        assert len(scored) >= 8 and all(_finite(v) for values in scored for v in values)


def test_a_whole_dump_does_pass(tmp_path: Path) -> None:
    """Undamaged, both formats pass those rules: the fuzz begins at something that works."""
    for name, rows in DUMPS.items():
        (tmp_path / name).write_bytes(lines(rows))
        api.import_dumps(name, tmp_path / name, tmp_path / f"{name}-out")
        assert api.gate(tmp_path / f"{name}-out", **LAX)["verdict"] == "pass"


def _scored(data: bytes) -> Iterator[list[Any]]:
    """What a dump's rows hold at scored positions, read without the product."""
    for line in data.decode("utf-8-sig").split("\n"):
        if line.strip():
            row = json.loads(line)
            mask = row.get("loss_mask", [1] * len(row["token_ids"]))
            sides = [v for k, v in row.items() if k.endswith("logprobs")]
            yield [v[t] for v in sides for t in range(1, len(mask)) if mask[t]]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(np.float32(value))


@inputs(60, share=0.1)
@given(format=TEXT, names=st.lists(TEXT, max_size=2), out=TEXT)
@example(format="jsonl", names=["dump.jsonl"], out="../outside/kept")
@example(format="jsonl", names=["dump.jsonl"], out="dump.jsonl/x")
@example(format="prime-rl", names=["."], out="out")
def test_any_names_of_a_dump_and_an_output_folder(format: str, names: list[str], out: str) -> None:
    """Odd formats, file names and folders: MismatchError or a run, and a used folder is kept."""
    TRIED["names of dumps and output folders"] += 1
    with place() as root:
        (root / "here" / "dump.jsonl").write_bytes(lines(DUMPS["jsonl"][:1]))
        with untouched(root, "here"):
            outcome(api.import_dumps, format, names, "out")
        if os.path.normpath(root / "here" / out).startswith(f"{root}/"):
            with untouched(root / "outside"):
                outcome(api.import_dumps, "jsonl", "dump.jsonl", out)
