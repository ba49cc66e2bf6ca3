"""The notebooks run from a copy of their folder, as a reader's would."""

from __future__ import annotations

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).parents[2] / "notebooks"


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(p.name for p in FOLDER.glob("*.ipynb")))
def test_every_cell_runs(name: str, tmp_path: Path) -> None:
    """An error in any cell is an error here; the shipped data are left as they were."""
    folder = Path(shutil.copytree(FOLDER, tmp_path / "notebooks"))
    data = _bytes(folder / "data")
    book = nbformat.read(folder / name, as_version=4)
    NotebookClient(book, timeout=300, resources={"metadata": {"path": str(folder)}}).execute()
    assert any(cell.outputs for cell in book.cells if cell.cell_type == "code")
    assert _bytes(folder / "data") == data


def _bytes(folder: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
