"""One pair as arrays, and the run folder that shows it to the detector.

What the detector gets is two sealed traces under the names of clean conditions: no word of what was
done to them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import store
from mismatch.capture.claim import claimed
from mismatch.capture.plan import pair_of
from mismatch.compare.align import read_tokens
from mismatch.compare.compare import compare
from mismatch.errors import MismatchError
from mismatch.model import Corpus

Rows = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Exhibit:
    """ids, scored: (n,) per sequence. left, right: (n,) float32 nats, NaN where nobody scored.

    left_ids, left_scored: of the left side where they differ. about: what
    corpus.json says of who drew the ids.
    """

    ids: Rows
    scored: Rows
    left: Rows
    right: Rows
    left_about: Mapping[str, Any]
    right_about: Mapping[str, Any]
    about: Mapping[str, Any]
    left_ids: Rows | None = None
    left_scored: Rows | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def only(self, rows: Sequence[int]) -> Exhibit:
        """Some of the sequences."""
        return self._each(lambda column: tuple(column[k] for k in rows))

    def cut(self, count: int) -> Exhibit:
        """Every sequence without its last tokens."""
        return self._each(lambda column: tuple(row[:-count] for row in column))

    def _each(self, change: Callable[[Rows], Rows]) -> Exhibit:
        columns: dict[str, Any] = {
            n: change(getattr(self, n)) for n in ("ids", "scored", "left", "right")
        }
        return replace(self, **columns)


def read_values(root: Path, trace: str) -> tuple[Rows, Rows, dict[str, Any]]:
    """(ids, log-probabilities with NaN where not scored, provenance) of a sealed trace."""
    folder = store.trace_folder(root, trace)
    tokens = read_tokens(folder)
    values = np.where(tokens.scored, tokens.logprob, np.nan).astype(np.float32)
    ids, rows = (tuple(tokens.each(column)) for column in (tokens.token_id, values))
    return ids, rows, store.read_provenance(folder)


def shown(exhibit: Exhibit, root: Path) -> dict[str, Any]:
    """Seal the pair in a run folder of its own and compare it: the pair as summary.json has it.

    Ids that differ end as the error that `compare A B` gives, in the place of the rows.
    """
    paths = [str(exhibit.left_about["path"]), str(exhibit.right_about["path"])]
    traces = [f"left/{paths[0]}-1", f"right/{paths[1]}-1"]
    pair = pair_of("left~right", paths, traces, {})
    store.discard(root)  # of an earlier run of the same captures
    with claimed(root, {"verb": "selftest"}, [pair]):
        for side, trace in zip(("left", "right"), traces, strict=True):
            _seal(root, exhibit, side, trace)
        try:
            element: dict[str, Any] = compare(root)["pairs"][0]
        except MismatchError as error:
            if error.code != "not-comparable":
                raise
            fault = "template" if "template" in error.message else "ids"
            row = {"rung": "L1 tokens", "verdict": "fail", "fault": fault}
            return {"preflight": [{**row, "evidence": error.message}], "tokens": 0}
    return element


def _seal(root: Path, exhibit: Exhibit, side: str, trace: str) -> None:
    left = side == "left"
    ids = (left and exhibit.left_ids) or exhibit.ids
    corpus = Corpus(ids, (left and exhibit.left_scored) or exhibit.scored)
    store.save_corpus(root, corpus, exhibit.about)
    about = exhibit.left_about if left else exhibit.right_about
    values = exhibit.left if left else exhibit.right
    provenance = {**about, "trace": trace, "corpus": corpus.sha}

    def fill(aside: Path) -> None:
        (aside / "provenance.json").write_text(store.dump_json(provenance), encoding="utf-8")
        store.write_trace_tokens(aside / "tokens.parquet", corpus, list(values))

    store.seal(store.trace_folder(root, trace), fill, {"kind": "trace", "corpus": corpus.sha})
