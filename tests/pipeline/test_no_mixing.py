"""Data of two requests, two interpreters or two corpora never meet in one trace."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from mismatch import api, store
from mismatch.errors import MismatchError
from tests.pipeline.conftest import Probe, toy_run


def _run(model: Path, out: Path, **more: Any) -> dict[str, Any]:
    return api.run(
        model=model, train="toy:noise=0.05", infer="toy", max_tokens=8, out=out, **more
    )  # fmt: skip


def test_leftovers_of_a_forgotten_request_are_not_sealed(
    attention: Path, bigram: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`rm -rf out/*` leaves the hidden work folder: another checkpoint must not get its parts."""
    out = tmp_path / "o"
    monkeypatch.setenv("MISMATCH_TOY_FAULT", "score:die@2")
    _run(attention, out, corpus=corpus)
    assert list((out / ".work").glob("*/parts/*/*"))
    monkeypatch.delenv("MISMATCH_TOY_FAULT")
    for path in out.glob("[!.]*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert _run(bigram, out, corpus=corpus) == _run(bigram, tmp_path / "fresh", corpus=corpus)


def test_a_refused_rollout_is_a_failure_and_is_mended_by_a_rerun(
    attention: Path, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rollout with an impossible value draws no ids: cause and consequence are stored, nothing
    that replayed it is kept, and the same command takes it anew.
    """
    out = tmp_path / "o"
    monkeypatch.setenv("MISMATCH_TOY_FAULT", "rollout:positive@1")
    summary = _run(attention, out, prompts=prompts)
    assert not any(p["tokens"] for p in summary["pairs"])
    assert api.failures(out)[0]["boundary"] == "seal" and not list(out.glob("traces/*/*"))
    monkeypatch.delenv("MISMATCH_TOY_FAULT")
    again = _run(attention, out, prompts=prompts)
    assert all(p["tokens"] for p in again["pairs"]) and not api.failures(out)


STUDY = """
model = "{model}"
corpus = "{corpus}"
paths = ["decode"]
floor = "none"
[[condition]]
side = "train"
spec = "toy:noise=0.05"
[[condition]]
side = "infer"
spec = "toy:dtype=fp64"
"""


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ('[[condition]]\nside = "infer"\nid = ".."\nspec = "toy"\n', "condition.2.id"),
        ('[[condition]]\nside = "infer"\nid = ".seal-x"\nspec = "toy"\n', "condition.2.id"),
        ('[[attribute]]\nid = ".."\nleft = "a"\nright = "b"\npath = "decode"\n', "attribute.0.id"),
        (2 * '[[attribute]]\nleft = "toy-fp64"\nright = "toy-noise_0.05"\npath = "decode"\n',
         "two attributions have the id 'attribution'"),
        ('[[condition]]\nside = "infer"\nid = "toy-fp16-infer"\nspec = "toy:dtype=fp32"\n'
         '[[condition]]\nside = "infer"\nid = "end"\nspec = "toy:dtype=fp16,noise=1"\n'
         '[[attribute]]\nleft = "toy-fp64"\nright = "end"\npath = "decode"\n',
         "has the id of toy:dtype=fp32"),
    ],
)  # fmt: skip
def test_ids_are_plain_names_and_mean_one_thing(
    attention: Path, corpus: Path, tmp_path: Path, probe: Probe, more: str, says: str
) -> None:
    """An id that leaves its folder, a doubled one, a corner with another's id: exit 2."""
    (tmp_path / "s.toml").write_text(STUDY.format(model=attention, corpus=corpus) + more)
    done = probe("plan", "s.toml")
    assert done.code == 2 and says in done.err, done.err


def test_two_interpreters_are_two_loads(
    attention: Path, corpus: Path, tmp_path: Path, probe: Probe
) -> None:
    """The same condition in two interpreters is compared with itself in the other one."""
    import sys

    (tmp_path / "other").symlink_to(Path(sys.prefix))
    text = STUDY.format(model=attention, corpus=corpus)
    text += f'[[condition]]\nside = "infer"\nid = "other"\nspec = "toy:dtype=fp64,python={tmp_path}/other/bin/python"\n'  # noqa: E501
    (tmp_path / "s.toml").write_text(text)
    assert probe("run", "s.toml", "--out", "o").code == 0
    seen = {
        store.read_json(p)["interpreter"]
        for p in (tmp_path / "o").glob("traces/*/decode-1/provenance.json")
    }
    assert len(seen) == 2


def test_options_beside_a_study_are_refused_not_ignored(
    attention: Path, corpus: Path, tmp_path: Path, probe: Probe
) -> None:
    """Even where the value given is the default: --seed 0."""
    (tmp_path / "s.toml").write_text(STUDY.format(model=attention, corpus=corpus))
    done = probe("run", "s.toml", "--seed", "0")
    assert done.code == 2 and "--seed cannot stand beside" in done.err


def test_comparing_nothing_is_no_pass(
    attention: Path, corpus: Path, probe: Probe, tmp_path: Path
) -> None:
    """`compare DIR` of a folder without one measured token exits 4."""
    fault = {"MISMATCH_TOY_FAULT": "load:die@1"}
    assert probe(*toy_run(attention, "--corpus", corpus, "--out", "o"), env=fault).code == 6
    assert probe("compare", "o").code == 4


def test_half_a_copied_trace_does_not_block_a_run(
    attention: Path, corpus: Path, tmp_path: Path
) -> None:
    """A trace folder without its manifest (an interrupted copy) is taken again."""
    half = tmp_path / "o" / "traces" / "toy" / "decode-1"
    _run(attention, tmp_path / "o", corpus=corpus)
    (half / "MANIFEST.json").unlink()
    assert all(p["tokens"] for p in _run(attention, tmp_path / "o", corpus=corpus)["pairs"])


def test_other_recorded_values_are_another_request(
    attention: Path, prompts: Path, tmp_path: Path
) -> None:
    """The same ids with other recorded log-probabilities do not resume the folder."""
    _run(attention, tmp_path / "a", prompts=prompts)
    (folder,) = (tmp_path / "a" / "corpus").iterdir()
    values, about, recorded = store.load_corpus(folder)
    moved = {"infer": [v - 1 for v in recorded["infer"]]}
    other = store.save_corpus(tmp_path / "x", values, about, moved)
    _run(attention, tmp_path / "b", corpus=folder, paths=["rollout"])
    with pytest.raises(MismatchError, match="contents differ"):
        _run(attention, tmp_path / "b", corpus=other, paths=["rollout"])


def test_the_batch_floor_is_never_the_same_batch(
    attention: Path, corpus: Path, tmp_path: Path
) -> None:
    """With batch above the number of sequences the floor still takes another composition."""
    out = tmp_path / "o"
    api.run(model=attention, train="toy:batch=64", infer="toy", corpus=corpus, out=out)
    facts = {
        p.parent.name: store.read_json(p)["batch"]
        for p in out.glob("traces/toy-batch64/*/provenance.json")
    }
    assert facts["score-1"] != facts["score-batch"], json.dumps(facts)
