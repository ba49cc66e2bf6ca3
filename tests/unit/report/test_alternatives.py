"""The likeliest tokens on the page: each side's own, at the right token, with the right rank."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mismatch import store
from mismatch.report import alternatives, build
from mismatch.report.sequences import read_tokens
from tests.unit.report.carried import carried
from tests.unit.report.runs import pair, write_run, write_top

K = 4


@pytest.fixture
def run(tmp_path: Path) -> Path:
    root = write_run(tmp_path / "run", pair())
    for side in ("train", "infer"):
        write_top(root, pair()[side], K)
    return root


def test_alternatives_are_laid_on_their_tokens(run: Path) -> None:
    """Of some sequences alone, in their order: ids and values by rank, the token's own rank where
    it is among them.
    """
    found = read_tokens(run / "comparisons" / pair()["id"] / "tokens.parquet")
    assert found is not None
    rows = np.flatnonzero((found.sequence == 2) | (found.sequence == 7))[3:15]
    trace = store.trace_folder(run, pair()["infer"])
    top = alternatives.read(trace, K, found, rows)
    even = found.position[rows] % 2 == 0
    assert top.rank.tolist() == np.where(even, 2, 0).tolist()
    assert top.ids[:, 0].tolist() == [10] * len(rows)
    assert top.ids[:, 1].tolist() == np.where(even, found.token_id[rows], 11).tolist()
    assert np.allclose(top.logprobs, [-0.5, -1.0, -1.5, -2.0])


def test_the_sampler_s_tokens_are_no_ranks_of_the_trainer(run: Path) -> None:
    """A trainer that was asked for 1 has the sampler's behind it, which it did not choose."""
    found = read_tokens(run / "comparisons" / pair()["id"] / "tokens.parquet")
    trace = store.trace_folder(run, pair()["train"])
    assert alternatives.depth(trace, None) == K and alternatives.depth(trace, 1) == 1
    assert found is not None
    top = alternatives.read(trace, 1, found, np.arange(len(found.d)))
    assert top.ids.shape == (len(found.d), 1) and not top.rank.any()
    assert alternatives.depth(run, 3) == 0  # no table, whatever was asked


def test_the_page_says_how_many_and_cuts_what_is_too_many(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ranks stand beyond the alternatives that are shown; a share of a nat is kept of each."""
    monkeypatch.setattr(alternatives, "SHOWN", 1)
    page = build(run)[1]
    said = "The 4 likeliest tokens of infer at each position, 1 shown."
    assert said in page.read_text(encoding="utf-8")
    found = carried(page)[0]
    assert found.raw["depths"] == [K, K] and found.raw["shown"] == [1, 1]
    held = found.held(0)
    m = int(held.scored.sum())
    ids, rest = np.frombuffer(held.rest[: 4 * m], "<u2"), np.frombuffer(held.rest[4 * m :], "<u2")
    assert ids.tolist() == [10] * 2 * m
    steps, rank = rest[:m], rest[m : 2 * m]
    assert steps.tolist() == [round(0.5 * found.raw["steps"])] * m
    even = held.position[held.scored] % 2 == 0
    assert rank.tolist() == np.where(even, 2, 0).tolist()


def test_ids_that_need_four_bytes_have_them(run: Path) -> None:
    """An alternative with a large id keeps it."""
    for side in ("train", "infer"):
        path = store.trace_folder(run, pair()[side]) / "topk.parquet"
        table = {n: c.to_numpy() for n, c in zip(*_columns(path), strict=True)}
        store.write_table(path, {**table, "token_id": table["token_id"] + 100_000})
    found = carried(build(run)[1])[0]
    assert found.raw["wide"] is True
    held = found.held(0)
    m = int(held.scored.sum())
    assert np.frombuffer(held.rest[: 4 * m * K], "<u4").min() >= 100_000
    assert held.ids.max() < 6


def _columns(path: Path) -> tuple[list[str], list]:
    table = store.read_table(path)
    return table.column_names, [table[n] for n in table.column_names]
