"""Texts of the tokens that a page shows, and how data is put into a page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from mismatch import store
from mismatch.kinds import kind_of
from mismatch.report.words import token_text

#: Letters of a token's text.
LETTERS = 200


@dataclass(frozen=True, slots=True)
class Context:
    """What a corpus folder adds: whole sequences (for unscored tokens) and token texts."""

    name: str
    token_ids: pa.ChunkedArray | None
    texts: Mapping[str, str] | None


def read_context(folder: Path | None) -> Context:
    """A corpus folder that is absent or partial gives less to show, not an error."""
    if folder is None or not folder.is_dir():
        return Context("", None, None)
    texts = store.read_texts(folder)
    path = folder / "sequences.parquet"
    ids = store.read_table(path)["token_ids"] if path.is_file() else None
    return Context(folder.name, ids, texts)


class Vocabulary:
    """Texts of the tokens that the page shows, by corpus: another one may have other texts."""

    def __init__(self) -> None:
        self._ids: dict[str, set[int]] = {}
        self._texts: dict[str, Mapping[str, str]] = {}

    def add(self, context: Context, ids: Sequence[np.ndarray]) -> list[int]:
        """Take in ids of a corpus, -1 for none; returns the kinds of token among them."""
        found = {k for one in ids for k in np.unique(one).tolist() if k >= 0}
        self._ids.setdefault(context.name, set()).update(found)
        texts = self._texts.setdefault(context.name, context.texts or {})
        return sorted({kind_of(texts[str(k)]) for k in found if str(k) in texts})

    def block(self) -> Markup:
        """{corpus: {id: [text as it is shown, kind, whether a line ends in it]}}."""
        return embedded(
            {
                name: {str(k): _word(self._texts[name][str(k)]) for k in sorted(ids)
                       if str(k) in self._texts[name]}
                for name, ids in self._ids.items()
            }
        )  # fmt: skip


def _word(text: str) -> list[Any]:
    shown = token_text(text[:LETTERS]) + ("…" if len(text) > LETTERS else "")
    return [shown, kind_of(text), int("\n" in text)]


def embedded(value: Any) -> Markup:
    """JSON that cannot end its script element, nor be anything but text where it is shown: it is
    ASCII alone, without <, > and &.
    """
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text)
