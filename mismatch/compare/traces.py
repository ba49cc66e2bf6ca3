"""The sealed traces of a run folder, by trace id."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mismatch import store
from mismatch.compare.align import Tokens, read_tokens
from mismatch.model import IS_UNSUPPORTED, UNSUPPORTED
from mismatch.shapes import Failure


class Traces:
    """The traces of one pair, each read once. Not kept for the next pair: memory must not grow with
    the number of cells.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._read: dict[str, Tokens] = {}

    def is_sealed(self, trace: str) -> bool:
        return store.is_sealed(store.trace_folder(self._root, trace))

    def __getitem__(self, trace: str) -> Tokens:
        if trace not in self._read:
            self._read[trace] = read_tokens(store.trace_folder(self._root, trace))
        return self._read[trace]

    def hashes(self, traces: Iterable[str]) -> dict[str, str]:
        """The manifest's sha256 of each trace that is sealed: what an artifact was made from."""
        return {
            trace: store.sha256(store.trace_folder(self._root, trace) / store.MANIFEST)
            for trace in dict.fromkeys(traces)
            if self.is_sealed(trace)
        }


def why_missing(root: Path, trace: str) -> str:
    error = store.failed_folder(root, trace) / "error.json"
    if not error.is_file():
        return f"{trace} was never captured"
    found = store.read_json(error, Failure)
    if found["boundary"] == UNSUPPORTED:
        return f"{trace}{IS_UNSUPPORTED}{found['message']}"
    if found["type"] in OUR_WORDS:
        return f"{trace} failed at {found['boundary']}: {found['message']}"
    # An engine's own words may hold a path, a pid or a log line of this machine.
    return f"{trace} failed at {found['boundary']} ({found['type']}): see failed/{trace}"


#: Failures that this program words itself.
OUR_WORDS = ("SealRefused", "NoCorpus", "OtherVersions", "Timeout")
