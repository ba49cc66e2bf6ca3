"""A trainer's own code through the whole program, with scorers in numpy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mismatch import api, store
from mismatch.errors import MismatchError
from tests.pipeline.conftest import Probe

SCORER = """
import numpy as np
class Scorer:
    def __init__(self, model_path, options):
        self.value = float(options.get("value", -2.0))
    def score(self, sequences):
        return [np.full(len(s), self.value, np.float32) for s in sequences]
"""


def _file(folder: Path, text: str = SCORER, name: str = "mine.py") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def _run(model: Path, corpus: Path, out: Path, train: str, **more: Any) -> dict[str, Any]:
    more = {"paths": ["prefill"], **more}
    return api.run(model=model, train=train, infer="toy", corpus=corpus, out=out, **more)


def _own(file: Path, more: str = "") -> str:
    return f"python:file={file},object=Scorer{more}"


def _gap(summary: dict[str, Any]) -> float:
    return float(summary["pairs"][0]["metrics"]["logprob_diff_mean"]["value"])


def test_a_file_of_the_users_own_is_a_trainer(
    probe: Probe, bigram: Path, corpus: Path, tmp_path: Path
) -> None:
    """A relative path from where the user stands; values, floors and provenance as of any other;
    nothing is left beside the file, and the summary names no place."""
    file = _file(tmp_path / "code")
    done = probe(
        "run", "--model", bigram, "--corpus", corpus, "--infer", "toy", "--paths", "prefill",
        "--train", "python:file=./code/mine.py,object=Scorer,arg.value=-3", "--out", "o", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    pair = done.json["pairs"][0]
    assert pair["id"] == "python-arg.value-3-mine-object_Scorer~toy.prefill" and pair["tokens"]
    assert pair["floor"]["batch"]["train"]["k3"]["value"] == 0
    trace = tmp_path / "o" / "traces" / "python-arg.value-3-mine-object_Scorer" / "score-1"
    code = store.read_provenance(trace)["facts"]["code"]
    assert code["files"] == {"mine.py": store.sha256(file)}
    assert str(tmp_path) not in (tmp_path / "o" / "summary.json").read_text()
    assert [p.name for p in file.parent.iterdir()] == ["mine.py"]


#: file text by condition id, with what its failure says; empty: it is sealed.
CELLS = {
    "good": (SCORER, ""),
    "nan": (SCORER.replace("self.value, np", "np.nan, np"), ""),
    "absent": (SCORER.replace("Scorer", "Other"), "has no Scorer: it has Other"),
    "late": (SCORER.replace("Scorer", "Other") + "# Scorer", "has no Scorer: it has Other"),
    "broken": ("class Scorer(:", "does not import: SyntaxError"),
    "raises": (SCORER.replace("return [", "return 1 / 0 or ["), "ZeroDivisionError"),
    "exits": (SCORER.replace("return [", "import sys; sys.exit(4); return ["), "SystemExit: 4"),
    "none": (SCORER.replace("return [np", "return None; return [np"), "gave a NoneType"),
    "shape": (SCORER.replace("len(s), self", "(len(s), 1), self"), "has the shape"),
    "few": (SCORER.replace("len(s), self", "len(s) - 1, self"), "values for 20 ids"),
    "many": (SCORER.replace("len(s), self", "len(s) + 1, self"), "has 21 values for 20 ids"),
    "whole": (SCORER.replace("np.float32", "int"), "holds int64"),
    "positive": (SCORER.replace("-2.0", "0.5"), "log-probability 0.5 is above 0"),
    "dies": (SCORER.replace("return [", "import os; os.kill(os.getpid(), 9); return ["), "SIGKILL"),
}


def test_each_mistake_is_its_own_failed_cell_and_siblings_go_on(
    probe: Probe, bigram: Path, corpus: Path, tmp_path: Path
) -> None:
    """One sentence a cell; a missing file is one, too; NaN is recorded as NaN. Paths in a study are
    relative to its file."""
    folder = tmp_path / "study"
    lines = [f'model = "{bigram}"\ncorpus = "{corpus}"\npaths = ["prefill"]\nfloor = "none"\n']
    lines.append('infer = {engine = "toy"}\n')
    specs = {name: f"file=code/{name}.py,object=Scorer" for name in CELLS}
    specs["gone"] = "file=code/gone.py,object=Scorer"
    for name, spec in specs.items():
        cell = f'[[condition]]\nside = "train"\nid = "{name}"\nspec = "python:{spec}"\n'
        lines.append(cell)
    folder.mkdir()
    for name, (text, _) in CELLS.items():
        _file(folder / "code", text, f"{name}.py")
    (folder / "s.toml").write_text("".join(lines))
    done = probe("run", "study/s.toml", "--out", "o")
    assert done.code == 7, done.err
    failed = {
        p.parent.parent.name: store.read_json(p)
        for p in (tmp_path / "o").glob("failed/*/*/error.json")
    }
    expected = {name: says for name, (_, says) in CELLS.items() if says}
    expected["gone"] = "there is no file"
    assert sorted(failed) == sorted(expected)
    for name, says in expected.items():
        assert says in failed[name]["message"] and "\n" not in failed[name]["message"], name
    assert failed["gone"]["boundary"] == failed["absent"]["boundary"] == "unsupported"
    assert failed["few"]["boundary"] == "score"
    pairs = {
        p["train"].split("/")[0]: p for p in store.read_json(tmp_path / "o/summary.json")["pairs"]
    }
    assert pairs["good"]["tokens"] and pairs["nan"]["nan_tokens"] == pairs["good"]["tokens"]


def test_a_plugin_that_nobody_offers_is_refused_before_anything_starts(
    probe: Probe, bigram: Path, corpus: Path, tmp_path: Path
) -> None:
    """It is told at once, not by the guest after a whole rollout; no folder is made."""
    done = probe("run", "--model", bigram, "--train", "python:plugin=nobody-has-this",
                 "--infer", "toy", "--corpus", corpus, "--out", "o")  # fmt: skip
    assert done.code == 2 and "no entry point nobody-has-this" in done.err, done.err
    assert not (tmp_path / "o").exists()


def test_a_missing_file_is_refused_before_anything_starts(
    probe: Probe, bigram: Path, corpus: Path, tmp_path: Path
) -> None:
    """Exit 2 and no output folder."""
    done = probe(
        "run", "--model", bigram, "--corpus", corpus, "--infer", "toy", "--out", "o",
        "--train", "python:file=nowhere.py,object=Scorer",
    )  # fmt: skip
    assert done.code == 2 and "there is no file" in done.err
    assert not (tmp_path / "o").exists()


def test_a_changed_file_never_joins_earlier_captures(
    bigram: Path, corpus: Path, tmp_path: Path
) -> None:
    """A finished folder, and one whose floor is missing, refuse the command, and so for a module
    that the file imports; the file as it was is taken again as before."""
    text = "import beside\n" + SCORER
    file, out = _file(tmp_path / "code", text), tmp_path / "o"
    beside = _file(file.parent, "x = 1\n", "beside.py")
    first = _run(bigram, corpus, out, _own(file))
    for changed, was in ((file, text), (beside, "x = 1\n")):
        changed.write_text(was + "# another\n")
        with pytest.raises(MismatchError, match=f"{changed.name} has changed"):
            _run(bigram, corpus, out, _own(file))
        changed.write_text(was)
    assert _run(bigram, corpus, out, _own(file)) == first
    (floor,) = out.glob("traces/python-*/score-batch/MANIFEST.json")
    floor.unlink()
    file.write_text(text + "# another\n")
    with pytest.raises(MismatchError, match="has changed"):
        _run(bigram, corpus, out, _own(file))


STOPS = SCORER.replace(
    "        return [",
    "        self.calls = getattr(self, 'calls', 0) + 1\n"
    "        if self.calls == 3: raise RuntimeError('third call')\n"
    "        return [",
)


def test_calls_of_an_earlier_state_of_the_file_are_made_again(
    bigram: Path, corpus: Path, tmp_path: Path
) -> None:
    """Mending a scorer that broke half-way and giving the same command mixes nothing."""
    file, out = _file(tmp_path / "code", STOPS), tmp_path / "o"
    _run(bigram, corpus, out, _own(file), floor="none")
    assert "third call" in api.failures(out)[0]["message"]
    assert list((out / ".work").glob("*/parts/*/*/*.npz"))
    file.write_text(SCORER.replace("-2.0", "-5.0"))
    mended = _run(bigram, corpus, out, _own(file), floor="none")
    fresh = _run(bigram, corpus, tmp_path / "fresh", _own(file), floor="none")
    assert mended["pairs"] == fresh["pairs"] and not api.failures(out)


def test_two_files_of_one_name_are_two_trainers(
    probe: Probe, bigram: Path, corpus: Path, tmp_path: Path
) -> None:
    """They have one text, and share no load; a study wants an id for one of them."""
    for name, value in (("a", "-2.0"), ("b", "-4.0")):
        _file(tmp_path / name, SCORER.replace("-2.0", value))
    text = f'model = "{bigram}"\ncorpus = "{corpus}"\npaths = ["prefill"]\nfloor = "none"\n'
    text += '[infer]\nengine = "toy"\n[train]\nengine = "python"\nobject = "Scorer"\n'
    (tmp_path / "s.toml").write_text(text + 'file = ["a/mine.py", "b/mine.py"]\n')
    done = probe("plan", "s.toml")
    assert done.code == 2 and "two conditions have the id" in done.err
    text += 'file = "a/mine.py"\n[[condition]]\nside = "train"\nid = "b"\n'
    (tmp_path / "s.toml").write_text(text + 'spec = "python:file=b/mine.py,object=Scorer"\n')
    assert probe("run", "s.toml", "--out", "o").code == 0
    gaps = [p["metrics"]["logprob_diff_mean"]["value"] for p in
            store.read_json(tmp_path / "o" / "summary.json")["pairs"]]  # fmt: skip
    assert gaps[0] - gaps[1] == pytest.approx(2.0)


def _plugin(folder: Path, version: str, text: str = SCORER) -> None:
    """What an installer leaves of a plug-in."""
    _file(folder, text, "plug_in.py")
    for old in folder.glob("plug_in-*.dist-info/*"):
        old.unlink()
    about = folder / "plug_in-1.dist-info"
    _file(about, f"Metadata-Version: 2.1\nName: plug-in\nVersion: {version}\n", "METADATA")
    _file(about, "[mismatch.trainers]\nmine = plug_in:Scorer\n", "entry_points.txt")


def test_an_installed_plugin_is_held_to_one_state(
    bigram: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version, or another file under the same one, fails what was still to be captured: it
    would be a floor of the earlier one."""
    monkeypatch.setenv("PYTHONPATH", os.fspath(tmp_path / "site"))
    out = tmp_path / "o"
    _plugin(tmp_path / "site", "1.0")
    first = _run(bigram, corpus, out, "python:plugin=mine")
    assert first["pairs"][0]["tokens"] and _gap(first) < 10
    (floor,) = out.glob("traces/python-plugin_mine/score-batch/MANIFEST.json")
    for version, text in (("1.1", SCORER), ("1.0", SCORER + "# another\n")):
        floor.unlink(missing_ok=True)
        _plugin(tmp_path / "site", version, text)
        _run(bigram, corpus, out, "python:plugin=mine")
        (error,) = api.failures(out)
        assert "score-1 came from other code" in error["message"], error
    _plugin(tmp_path / "site", "1.0")
    assert _run(bigram, corpus, out, "python:plugin=mine") == first


def test_calls_of_an_earlier_version_are_not_completed(
    bigram: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plug-in that broke half-way and is installed anew must start in a new folder."""
    monkeypatch.setenv("PYTHONPATH", os.fspath(tmp_path / "site"))
    _plugin(tmp_path / "site", "1.0", STOPS)
    _run(bigram, corpus, tmp_path / "o", "python:plugin=mine", floor="none")
    _plugin(tmp_path / "site", "1.1")
    _run(bigram, corpus, tmp_path / "o", "python:plugin=mine", floor="none")
    (error,) = api.failures(tmp_path / "o")
    assert "not the one that gave what is kept" in error["message"]
