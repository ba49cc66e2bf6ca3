"""Turn the notebooks' sources (*.py, jupytext's percent form) into .ipynb with their outputs.

    make notebooks                                # all of them
    .venv/bin/python notebooks/make.py 01-first-look.py

The source is what is edited; the .ipynb is what is read. Nothing of the run's time, machine or
random cell ids is kept, so that a rerun changes a file only where an output changes.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent
KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}


def converted(source: Path) -> nbformat.NotebookNode:
    """The source's cells as a notebook without outputs."""
    book = jupytext.read(source)
    for number, cell in enumerate(book.cells):
        cell.metadata.clear()
        cell.id = f"cell-{number}"
    book.metadata = nbformat.from_dict({"kernelspec": KERNEL, "language_info": {"name": "python"}})
    return book


def executed(source: Path) -> nbformat.NotebookNode:
    """With outputs; raises on an error, and where a cell writes to stderr."""
    book = converted(source)
    client = NotebookClient(book, timeout=300, record_timing=False, resources=_at(source.parent))
    client.execute()
    book.metadata = converted(source).metadata  # the kernel adds its version
    for cell in (c for c in book.cells if c.cell_type == "code"):
        for output in cell.outputs:
            if output.get("name") == "stderr":
                raise SystemExit(f"{source.name} writes to stderr: {output.text}")
    return book


def _at(folder: Path) -> dict[str, dict[str, str]]:
    return {"metadata": {"path": str(folder)}}


def main(sources: list[Path]) -> None:
    for source in sources:
        begun = time.monotonic()
        nbformat.write(executed(source), source.with_suffix(".ipynb"))
        print(f"{source.with_suffix('.ipynb').name}: {time.monotonic() - begun:.1f} s")


if __name__ == "__main__":
    given = [HERE / name for name in sys.argv[1:]]
    main(given or sorted(HERE.glob("[0-9]*.py")))
