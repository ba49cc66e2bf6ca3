"""The shipped notebooks are what their sources say, and hold nothing of the machine they ran on."""

from __future__ import annotations

import re
from pathlib import Path

import jupytext
import nbformat
import pytest

from mismatch import store

FOLDER = Path(__file__).parents[2] / "notebooks"
SOURCES = sorted(FOLDER.glob("[0-9]*.py"))
#: What is shipped; a report that a reader made there is not.
DATA = sorted(
    p
    for p in (FOLDER / "data").rglob("*")
    if p.is_file() and p.suffix != ".pyc" and p.stem != "report"
)
#: Where a home, a temporary folder or a checkout would stand.
OF_A_MACHINE = re.compile(rb"/(tmp|work|root|home|Users|var|mnt)/")


def book(source: Path) -> nbformat.NotebookNode:
    return nbformat.read(source.with_suffix(".ipynb"), as_version=4)


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_a_notebook_has_the_cells_of_its_source(source: Path) -> None:
    """Whoever edits one and forgets `make notebooks` is told."""
    written, shown = ([(c.cell_type, c.source) for c in one.cells]
                      for one in (jupytext.read(source), book(source)))  # fmt: skip
    assert shown == written


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_a_notebook_was_run_in_order_without_an_error(source: Path) -> None:
    """Every code cell ran once, from the top; there are pictures; nothing failed or warned."""
    code = [cell for cell in book(source).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    assert any("image/png" in output.get("data", {}) for output in outputs)


@pytest.mark.parametrize("source", SOURCES, ids=lambda p: p.stem)
def test_a_notebook_imports_what_a_reader_has(source: Path) -> None:
    """The api, pandas and matplotlib: no notebook reaches into the package."""
    line = re.compile(r"^(?:from|import) (\S+)(?: import (.+))?$", re.MULTILINE)
    found = line.findall(source.read_text(encoding="utf-8"))
    allowed = {"html", "json", "tempfile", "pathlib", "numpy", "pandas", "matplotlib", "IPython"}
    for module, names in found:
        assert module.split(".")[0] in allowed or (module, names) == ("mismatch", "api")


@pytest.mark.parametrize("file", [*DATA, *(s.with_suffix(".ipynb") for s in SOURCES)],
                         ids=lambda p: str(p.relative_to(FOLDER)))  # fmt: skip
def test_no_path_of_a_machine_is_shipped(file: Path) -> None:
    """Neither in data, nor in what a cell printed."""
    assert not OF_A_MACHINE.search(file.read_bytes())


def test_the_data_are_small_and_sealed() -> None:
    """Under 2 MB, each file under 1 MB, and every trace still has its hashes."""
    sizes = [file.stat().st_size for file in DATA]
    assert max(sizes) < 1_000_000 and sum(sizes) < 2_000_000
    traces = [p.parent for p in (FOLDER / "data" / "study" / "traces").rglob(store.MANIFEST)]
    assert len(traces) == 8
    for trace in traces:
        store.verified(trace, "trace")
