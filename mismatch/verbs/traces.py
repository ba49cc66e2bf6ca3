"""compare A B: two sealed traces from anywhere, copied into a folder of their own.

They are copied, with the captures beside them that serve as floors, because report and gate must be
able to check hashes when the machine they came from is gone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mismatch import store
from mismatch.capture import plan
from mismatch.capture.claim import claimed
from mismatch.compare.align import align, read_tokens
from mismatch.model import PairSpec, side_of
from mismatch.verbs.conclude import conclude


@dataclass(frozen=True, slots=True)
class End:
    """A sealed trace somewhere on this machine."""

    folder: Path
    condition: str
    capture: str
    path: str
    corpus: str
    digest: str

    @property
    def run_name(self) -> str:
        """The run folder's name, made safe; empty where the trace was copied out of its run."""
        inside = self.folder.parents[1].name == "traces"
        return re.sub(r"[^A-Za-z0-9._-]+", "_", self.folder.parents[2].name) if inside else ""

    def floors(self) -> dict[str, tuple[str, ...]]:
        """Captures beside a capture 1 that repeat it; another capture has none."""
        if not self.capture.endswith("-1"):
            return {}
        found = {
            "repeat": self._sealed(plan.repeat_names(self.path, 9)),
            "batch": self._sealed((plan.batch_name(self.path),)),
        }
        return {name: others for name, others in found.items() if others}

    def _sealed(self, names: Sequence[str]) -> tuple[str, ...]:
        return tuple(n for n in names if store.is_sealed(self.folder.parent / n))


def compare_traces(left: Path, right: Path, out: Path) -> dict[str, Any]:
    """d is train minus infer whichever is named first; else left minus right."""
    ends = [_read(left), _read(right)]
    if [side_of(e.path) for e in ends] == ["infer", "train"]:
        ends.reverse()
    align(*(read_tokens(e.folder) for e in ends))  # before the folder is claimed for them
    places = _places(ends)
    request = {
        "verb": "compare",
        **{
            slot: {"trace": f"{e.condition}/{e.capture}", "manifest": e.digest}
            for slot, e in zip(("left", "right"), ends, strict=True)
        },
    }
    with claimed(out, request, [_pair(ends, places)]) as root:
        for end, place in zip(ends, places, strict=True):
            _bring(root, end, place)
        return conclude(root)


def _read(folder: Path) -> End:
    manifest = store.verified(folder, "trace")
    provenance = store.read_json(folder / "provenance.json")
    digest = store.sha256(folder / store.MANIFEST)
    condition, _, capture = str(provenance["trace"]).rpartition("/")
    corpus = str(manifest["corpus"])
    return End(folder.absolute(), condition, capture, str(provenance["path"]), corpus, digest)


def _places(ends: Sequence[End]) -> list[str]:
    """The two conditions; where they are one, with the folder each run lies in (a100, h100)."""
    names = [e.condition for e in ends]
    if names[0] != names[1]:
        return names
    marks = [e.run_name for e in ends]
    if marks[0] == marks[1] or not all(marks):
        marks = ["a", "b"]
    return [f"{name}@{mark}" for name, mark in zip(names, marks, strict=True)]


def _pair(ends: Sequence[End], places: Sequence[str]) -> PairSpec:
    floors: dict[str, dict[str, tuple[str, ...]]] = {}
    for slot, end, place in zip(("train", "infer"), ends, places, strict=True):
        for name, others in end.floors().items():
            floors.setdefault(name, {})[slot] = tuple(f"{place}/{n}" for n in others)
    traces = [f"{place}/{end.capture}" for place, end in zip(places, ends, strict=True)]
    return plan.pair_of("~".join(places), [e.path for e in ends], traces, floors)


def _bring(root: Path, end: End, place: str) -> None:
    """Copy the trace, its floors, and its corpus (for texts and who sampled it)."""
    names = [end.capture, *(n for others in end.floors().values() for n in others)]
    for name in dict.fromkeys(names):
        _copy(end.folder.parent / name, store.trace_folder(root, f"{place}/{name}"), "trace")
    corpus = end.folder.parents[2] / "corpus" / end.corpus
    if store.is_sealed(corpus):
        _copy(corpus, store.inside(root, "corpus", end.corpus), "corpus")


def _copy(source: Path, target: Path, kind: str) -> None:
    if not store.is_sealed(target):
        store.verified(source, kind)
        store.copy_artifact(source, target)
