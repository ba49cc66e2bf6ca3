"""Run folders that somebody changed: refused in words, or the verdict they had before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mismatch import api, store
from mismatch.errors import MismatchError
from tests.fuzz import folders
from tests.fuzz.fence import TRIED, inputs, outcome, place, untouched
from tests.fuzz.folders import Damage

#: A rule that any number keeps: what fails here is the folder.
LAX = {"maximum": ["k3=1e300"]}

BASE: dict[str, Path] = {}


@pytest.fixture(scope="module", autouse=True)
def whole(cheap: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder whose gate passes."""
    BASE["whole"] = folders.whole_run(tmp_path_factory.mktemp("whole") / "run")
    return BASE["whole"]


def test_the_folder_that_is_damaged_passes(whole: Path) -> None:
    """Undamaged it passes, reports, and compares to the same summary."""
    before = store.read_json(whole / "summary.json")
    assert api.gate(whole, **LAX)["verdict"] == "pass"
    assert api.compare(whole) == before
    assert api.attribute(whole)["attributions"][0]["tokens"]


def _damaged(root: Path, whole: Path, harm: list[Damage]) -> Path:
    shutil.copytree(whole, root / "out")
    for one in harm:
        one.do(root / "out", root / "outside")
    return root / "out"


PROVENANCE = f"traces/{folders.TRACES[0]}/provenance.json"
DAMAGES = st.deferred(lambda: folders.damages(BASE["whole"]))

#: What a verdict rests on. No key signs a folder: who writes a comparison's manifest anew may
#: change what it alone vouches for (its own tokens.parquet), not the numbers, nor the traces.
EVIDENCE = [f"traces/{t}/{f}" for t in folders.TRACES for f in ("tokens.parquet", store.MANIFEST)]
#: The tokens that are compared, whatever became of the floors.
ENDS = [f"traces/{t}/tokens.parquet" for t in (folders.PAIR.left, folders.PAIR.right)]
NUMBERS = f"comparisons/{folders.PAIR.id}/comparison.json"


@inputs(150)
@given(harm=DAMAGES)
@example(harm=[Damage("link", "attributions", "attributions")])
@example(harm=[Damage("write", "run.json", b"[]")])
@example(harm=[Damage("write", "run.json", b"[" * 5000)])
@example(harm=[Damage("write", "summary.json", b'{"schema": 1, "pairs": [{}]}')])
@example(harm=[Damage("write and seal", PROVENANCE, b"null")])
def test_a_changed_folder_is_refused_or_judged_as_before(harm: list[Damage], whole: Path) -> None:
    """The gate passes only where all that it rests on has its bytes; it changes nothing at all."""
    TRIED["run folders, gated"] += 1
    with place() as root:
        out = _damaged(root, whole, harm)
        with untouched(root):
            found = outcome(api.gate, out, **LAX)
        if isinstance(found, MismatchError) or found["verdict"] != "pass":
            return
        for name in EVIDENCE:
            assert (out / name).read_bytes() == (whole / name).read_bytes(), name
        assert store.read_json(out / NUMBERS) == store.read_json(whole / NUMBERS)


VERBS: dict[str, Callable[[Path], Any]] = {
    "report": api.report,
    "compare": api.compare,
    "attribute": api.attribute,
    "failures": api.failures,
    "captures asked": api.captures_asked,
}


@inputs(60)
@example(verb="compare", harm=[Damage("write and seal", PROVENANCE, b"{}")])
@example(verb="compare", harm=[Damage("link", f"comparisons/{folders.PAIR.id}", "..")])
@example(verb="failures", harm=[Damage("write", "failed/sglang/decode-1/error.json", b"[]")])
@example(verb="report", harm=[Damage("write", "failed/sglang/decode-1/error.json", b"1")])
@given(verb=st.sampled_from(sorted(VERBS)), harm=DAMAGES)
def test_no_verb_stumbles_or_writes_outside(verb: str, harm: list[Damage], whole: Path) -> None:
    """MismatchError or an answer; nothing beside the folder changes, and what is then in the folder
    passes only if its tokens are those that were sealed.
    """
    TRIED[f"run folders, {verb}"] += 1
    with place() as root:
        out = _damaged(root, whole, harm)
        with untouched(root, "out"):
            outcome(VERBS[verb], out)
        found = outcome(api.gate, out, **LAX)
        if isinstance(found, MismatchError) or found["verdict"] != "pass":
            return
        if not any(one.what == "write and seal" for one in harm):
            for name in ENDS:
                assert (out / name).read_bytes() == (whole / name).read_bytes(), name


@inputs(80)
@example(harm=[Damage("write and seal", PROVENANCE, b"{}")], ends=list(folders.TRACES))
@given(harm=DAMAGES, ends=st.permutations(folders.TRACES))
def test_two_traces_of_changed_folders(harm: list[Damage], ends: list[str], whole: Path) -> None:
    """Comparing two of its traces: MismatchError or a summary; the folder they lie in is kept."""
    TRIED["run folders, two traces"] += 1
    with place() as root:
        out = _damaged(root, whole, harm)
        with untouched(root, "both"):
            sides = [out / "traces" / end for end in ends[:2]]
            outcome(api.compare_traces, *sides, root / "both")


@pytest.mark.parametrize("harm", ["a trace", "its corpus"])
def test_a_comparison_that_names_no_traces_vouches_for_none(harm: str, whole: Path) -> None:
    """With the names taken out of its manifest, and without: what it was made from is held to."""
    with place() as root:
        out = _damaged(root, whole, [])
        manifest = out / "comparisons" / folders.PAIR.id / store.MANIFEST
        if harm == "a trace":
            said = json.loads(manifest.read_text())
            manifest.write_text(json.dumps({**said, "traces": {}}))
            (out / ENDS[0]).write_bytes(b"")
        else:
            (next((out / "corpus").iterdir()) / "corpus.json").write_text("{}")
        with pytest.raises(MismatchError, match=r"was changed after it was sealed"):
            api.gate(out, **LAX)
