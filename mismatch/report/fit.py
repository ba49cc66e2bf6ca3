"""Blocks of Markdown within a number of characters: rows are cut, and what was cut is said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

#: A comment on GitHub holds no more characters.
COMMENT = 65_536
#: Of one cell, and of one sentence outside of tables.
CELL, SENTENCE = 400, 2000

#: Room for the line that says how many rows are cut.
_SAID = 160


@dataclass(frozen=True, slots=True)
class Block:
    """Text that is never cut, or a table between a line above and a note below.

    title: folded under it, where there is one. first: numbers of rows in the order in which they
    are worth keeping; the table's own order where empty. cut: 0 is cut last.
    """

    above: str = ""
    head: Sequence[str] = ()
    rows: Sequence[str] = ()
    note: str = ""
    title: str = ""
    cut: int = 0
    first: Sequence[int] = ()

    def text(self, keep: int | None = None) -> str:
        """With so many of its rows."""
        kept = self._kept(len(self.rows) if keep is None else keep)
        said = _said(len(self.rows) - len(kept), len(self.rows))
        table = "\n".join([_row(self.head), _row(["---"] * len(self.head)), *kept]) if kept else ""
        body = "\n\n".join(part for part in (self.above, table, said, self.note) if part)
        return folded(self.title, body) if self.title and body else body

    def _kept(self, keep: int) -> list[str]:
        return [self.rows[k] for k in sorted(self._order[:keep])]

    @property
    def _order(self) -> Sequence[int]:
        """Rows, those that stay longest first."""
        return self.first or range(len(self.rows))

    def shorter(self, by: int) -> int:
        """How many rows stay where the block must lose `by` characters, as far as it can."""
        order, spared = self._order, -_SAID
        for keep in range(len(order), 0, -1):
            if spared >= by:
                return keep
            spared += len(self.rows[order[keep - 1]]) + 1
        return 0


def table(head: Sequence[str], rows: Sequence[Sequence[str]], **more: Any) -> Block:
    """A block of cells; more: what else a Block takes."""
    return Block(head=head, rows=[_row(row) for row in rows], **more)


def folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _said(cut: int, of: int) -> str:
    return f"*{cut:,} of {of:,} rows are left out here; report.html has them.*" if cut else ""


def fitted(blocks: Sequence[Block], limit: int = COMMENT) -> str:
    """The blocks as one text of at most `limit` characters: the most dispensable table loses rows
    first, the next one only when that one has none left."""
    shown = {k: block.text() for k, block in enumerate(blocks)}
    for k in sorted(shown, key=lambda k: -blocks[k].cut):
        over = len(_joined(shown.values())) - limit
        if over > 0 and blocks[k].rows:
            shown[k] = blocks[k].text(blocks[k].shorter(over))
    return _joined(shown.values())


def _joined(texts: Iterable[str]) -> str:
    return "\n\n".join(text for text in texts if text) + "\n"


def clipped(text: str, size: int) -> str:
    """The text, or its beginning and how much more there is."""
    more = len(text) - size
    return text if more <= 0 else f"{text[:size]}… ({more:,} more characters)"
