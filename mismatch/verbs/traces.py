"""compare A B: two sealed traces from anywhere, copied into a folder of their own.

They are copied, with the captures beside them that serve as floors, because report and gate must be
able to check hashes when the machine they came from is gone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mismatch import store
from mismatch.capture import plan
from mismatch.capture.claim import claimed
from mismatch.compare.align import align, read_tokens
from mismatch.model import PairSpec, side_of
from mismatch.shapes import Named
from mismatch.verbs.conclude import conclude


@dataclass(frozen=True, slots=True)
class End:
    """A sealed trace somewhere on this machine, in a folder of any name."""

    folder: Path
    condition: str
    capture: str
    path: str
    corpus: str
    digest: str
    floors: dict[str, dict[str, Path]]  # name -> capture -> folder

    @property
    def root(self) -> Path | None:
        """The run folder it lies in; None where it was copied out of one."""
        above = self.folder.parents
        return above[2] if len(above) > 2 and above[1].name == "traces" else None

    @property
    def run_name(self) -> str:
        """The run folder's name, made safe; empty where there is none."""
        return re.sub(r"[^A-Za-z0-9._-]+", "_", self.root.name) if self.root else ""


def compare_traces(
    left: Path,
    right: Path,
    out: Path,
    notify: Callable[[dict[str, Any]], None] = lambda event: None,
) -> dict[str, Any]:
    """d is train minus infer whichever is named first; else left minus right."""
    notify({"stage": "read"})
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
        return conclude(root, notify)


def _read(folder: Path) -> End:
    manifest = store.verified(folder, "trace")
    provenance = store.read_provenance(folder, Named)
    digest = store.sha256(folder / store.MANIFEST)
    condition, _, capture = str(provenance["trace"]).rpartition("/")
    corpus, path = str(manifest["corpus"]), str(provenance["path"])
    floors = _floors(folder.absolute().parent, provenance) if capture.endswith("-1") else {}
    return End(folder.absolute(), condition, capture, path, corpus, digest, floors)


def _floors(beside: Path, first: Mapping[str, Any]) -> dict[str, dict[str, Path]]:
    """Name -> capture -> folder of those that repeat a capture 1. A folder's place and name prove
    nothing: what it says of itself does.
    """
    path, found = str(first["path"]), {}
    for floor, names in (
        ("repeat", plan.repeat_names(path, 9)),
        ("batch", (plan.batch_name(path),)),
    ):
        folders = {n: beside / n for n in names if store.is_sealed(beside / n)}
        said = {n: store.read_provenance(folder, Named) for n, folder in folders.items()}
        alike = [n for n, s in said.items() if s["capture"] == n and _made(s) == _made(first)]
        if alike:
            found[floor] = {n: folders[n] for n in alike}
    return found


def _made(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """How a trace was made, as far as a floor must be made alike."""
    return {
        "condition": provenance.get("condition"),
        "model": (provenance.get("model") or {}).get("digest"),
        "corpus": provenance.get("corpus"),
        "versions": (provenance.get("facts") or {}).get("versions"),
    }


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
        for name, others in end.floors.items():
            floors.setdefault(name, {})[slot] = tuple(f"{place}/{n}" for n in others)
    traces = [f"{place}/{end.capture}" for place, end in zip(places, ends, strict=True)]
    return plan.pair_of("~".join(places), [e.path for e in ends], traces, floors)


def _bring(root: Path, end: End, place: str) -> None:
    """Copy the trace, its floors, and its corpus (for texts and who sampled it)."""
    captures = {end.capture: end.folder}
    for others in end.floors.values():
        captures |= others
    for name, folder in captures.items():
        _copy(folder, store.trace_folder(root, f"{place}/{name}"), "trace")
    corpus = end.root / "corpus" / end.corpus if end.root else None
    if corpus is not None and store.is_sealed(corpus):
        _copy(corpus, store.inside(root, "corpus", end.corpus), "corpus")


def _copy(source: Path, target: Path, kind: str) -> None:
    if not store.is_sealed(target):
        store.verified(source, kind)
        store.copy_artifact(source, target)
