"""The same command again in an output folder that somebody changed: nothing outside is touched."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mismatch import api
from tests import known
from tests.fuzz import folders
from tests.fuzz.fence import TRIED, inputs, outcome, place, untouched
from tests.fuzz.folders import Damage
from tests.fuzz.test_rows import DUMPS, lines
from tests.fuzz.test_study_files import STUDY, written

#: A study without its third condition and what names it: the failure of that one is then dropped.
LESS = {k: v for k, v in STUDY.items() if k not in ("condition", "attribute")}
BASE: dict[str, Path] = {}


@pytest.fixture(autouse=True)
def laid(no_engine: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A folder for each command, after it ran: an import, and a study whose engines all died."""
    if BASE:
        return
    root = tmp_path_factory.mktemp("reruns")
    known.write_checkpoint(root / "ckpt", attention=False)
    (root / "whole.toml").write_bytes(written(STUDY))
    (root / "study.toml").write_bytes(written(LESS))
    (root / "ids.jsonl").write_text('{"token_ids": [1, 2, 3]}\n' * 3)
    (root / "dump.jsonl").write_bytes(lines(DUMPS["jsonl"]))
    api.run_study(root / "whole.toml", root / "study")
    api.import_dumps("jsonl", root / "dump.jsonl", root / "import")
    assert api.failures(root / "study")
    for sub in (".work", ".work/left", ".seal-left"):
        (root / "import" / sub).mkdir(exist_ok=True)
    BASE.update({name: root / name for name in ("study", "import")})


@st.composite
def harms(draw: st.DrawFn) -> tuple[str, list[Damage]]:
    """Which folder, and what was done to it."""
    verb = draw(st.sampled_from(["study", "import"]))
    return verb, draw(folders.damages(BASE[verb]))


@inputs(40, share=0.5)
@given(harm=st.deferred(harms))
@example(harm=("study", [Damage("link", "failed", "folder/failed")]))
@example(harm=("study", [Damage("link", ".work", "folder/.work")]))
@example(harm=("import", [Damage("link", ".work", "folder/.work")]))
@example(harm=("study", [Damage("link", "failed/stale", "folder")]))
def test_a_rerun_touches_nothing_outside(harm: tuple[str, list[Damage]]) -> None:
    """MismatchError or a summary, and what a link in the folder leads to is kept."""
    verb, damages = harm
    TRIED[f"reruns of an {verb}" if verb == "import" else "reruns of a study"] += 1
    with place() as root:
        here, out = root / "here", root / "out"
        shutil.copytree(BASE[verb].parent, here, dirs_exist_ok=True)
        shutil.move(here / verb, out)
        for one in damages:
            one.do(out, root / "outside")
        with untouched(root, "out"):
            if verb == "study":
                outcome(api.run_study, "study.toml", out)
            else:
                outcome(api.import_dumps, "jsonl", "dump.jsonl", out)
