"""One browser for each worker; without one the tests are skipped, and say so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from mismatch import store
from mismatch.report import build
from tests.browser.chromium import PROGRAM, PROGRAMS, Browser, Tab, browsing
from tests.unit.report import runs


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if PROGRAM is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(PROGRAMS)})")
    with browsing() as found:
        yield found


@pytest.fixture
def tab(browser: Browser) -> Iterator[Tab]:
    """An empty page. Whatever a test does with it: it must not complain, nor ask for anything."""
    found = Tab(browser)
    yield found
    assert found.complaints() == []
    assert found.requests() == []
    found.close()


#: d of 100 tokens: the largest |d| is 0.9, in sequence 4 at position 7; one of -0.5 in sequence 9.
D = np.linspace(-0.01, 0.01, 100)
D[45], D[92] = 0.9, -0.5

TOP = 3


def run_of(root: Path, **changes: object) -> Path:
    """decode and prefill of one engine against another, with the likeliest tokens of both."""
    pairs = [runs.pair("decode", forks=runs.forks_with_floors()), runs.pair("prefill", 2e-3)]
    runs.write_run(root, *pairs, d=D, **changes)  # type: ignore[arg-type]
    for trace in (pairs[0]["train"], pairs[0]["infer"]):
        runs.write_top(root, trace, TOP)
    return root


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a run with hostile token texts."""
    return build(run_of(tmp_path_factory.mktemp("browser") / "run"))[1]


Made = Callable[..., Path]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """The report of pairs of one's own."""

    def make(*pairs: runs.Summary, d: np.ndarray | None = None, texts: bool = True) -> Path:
        return build(runs.write_run(tmp_path / "run", *pairs, d=d, texts=texts))[1]

    return make


def tokens_of(page: Path, pair: str) -> dict[str, np.ndarray]:
    """A comparison's columns."""
    table = store.read_table(page.parent / "comparisons" / pair / "tokens.parquet")
    return {name: table[name].to_numpy() for name in table.column_names}
