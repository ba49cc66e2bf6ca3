"""The cells of a study at 80 columns: words are whole, and nothing is only in --json."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from mismatch.report.cells import plan


def cell(name: str, load: int | None, status: str, **more: Any) -> dict[str, Any]:
    return {
        "id": name, "side": "train", "load": load, "loads": "hf:attention=sdpa,dtype=bf16",
        "ranks": 1, "captures": ["score-1", "score-batch"], "sealed": 0, "status": status, **more,
    }  # fmt: skip


def shown(*cells: dict[str, Any], refused: tuple[str, ...] = ()) -> str:
    out = io.StringIO()
    found = {"cells": cells, "loads": 1, "pairs": ["a~b.decode"], "refused": refused}
    plan(found, Console(file=out, width=80, force_terminal=False))
    return out.getvalue()


LONG = "hf-bf16-flash_attention_2-batch4-noise_0.05-repetition_penalty_1.2-temperature_1"


def test_words_are_whole_beside_the_longest_id() -> None:
    """No header and no status is broken or cut, and an id that is too long is folded whole."""
    text = shown(cell(LONG, 1, "cached", sealed=2), cell("b", 1, "to do"))
    for said in ("side", "load", "ranks", "sealed", "status", "train", "2 of 2", "cached", "to do"):
        assert said in text, text
    assert "…" not in text
    lines = text.split("\n\n")[0].splitlines()
    assert max(map(len, lines)) <= 80
    assert "".join(line.split()[0] for line in lines[2:-1]) == LONG


def test_a_load_is_told_by_its_text() -> None:
    """Its number in the table is explained once, with its ranks where torchrun starts several."""
    text = shown(cell("a", 1, "to do"), cell("b", 1, "to do"), cell("c", 2, "to do", ranks=4))
    assert text.count("load 1: hf:attention=sdpa,dtype=bf16 (train)\n") == 1
    assert "load 2: hf:attention=sdpa,dtype=bf16 (train, 4 torchrun ranks)" in text


def test_reasons_stand_below_the_table() -> None:
    """The table has one word; why a cell or the run cannot be is one line each."""
    text = shown(cell("a", None, "unsupported: it needs a GPU"), refused=("no ids",))
    table, _, below = text.partition("\n\n")
    assert "unsupported" in table and "GPU" not in table
    assert "a is unsupported: it needs a GPU\n" in below
    assert "run would stop here: no ids" in below
