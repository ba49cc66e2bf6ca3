"""The user's own code as a trainer: what the host refuses, and what the guest makes of answers."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mismatch import store, wire
from mismatch.engines import ENGINES, parse_condition, parse_option
from mismatch.engines.base import Machine
from mismatch.engines.python import source
from mismatch.engines.python.source import PluginError
from mismatch.engines.python.worker import Worker, read
from mismatch.errors import MismatchError

PYTHON = ENGINES["python"]


@pytest.fixture(autouse=True)
def as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The guest's changes of its process are undone."""
    before = set(sys.modules)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", sys.dont_write_bytecode)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def _file(folder: Path, text: str, name: str = "mine.py") -> Path:
    path = folder / name
    path.write_text(text)
    return path


GOOD = """
import numpy as np
class Scorer:
    def __init__(self, model_path, options):
        self.model_path, self.options = model_path, options
    def score(self, sequences):
        self.seen = sequences
        return [np.full(len(s), -1.5) for s in sequences]
"""


# ---------------------------------------------------------------- the host's half


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("python", "names no code"),
        ("python:object=Scorer", "names no code"),
        ("python:file=mine.py", "needs the name of an object"),
        ("python:file=gone.py,object=Scorer", "there is no file"),
        ("python:file=.,object=Scorer", "there is no file"),
        ("python:file=notes.txt,object=Scorer", "is not a Python file"),
        ("python:file=mine.py,object=Scorr", "mine.py has no Scorr: it has Scorer"),
        ("python:file=empty.py,object=Scorer", "empty.py has no Scorer"),
        ("python:plugin=x,file=mine.py,object=Scorer", "plugin names the code, and file does too"),
        ("python:plugin=x,object=Scorer", "plugin names the code, and object does too"),
    ],
)
def test_what_names_no_code_is_refused(spec: str, says: str, tmp_path: Path) -> None:
    """Before anything starts, with the reason."""
    _file(tmp_path, GOOD)
    _file(tmp_path, "", "notes.txt")
    _file(tmp_path, "", "empty.py")
    reason = PYTHON.refuse(parse_condition(spec, tmp_path), Machine())
    assert reason is not None and says in reason


@pytest.mark.parametrize("spec", ["python:file=mine.py,object=Scorer", "python:plugin=some-name"])
def test_what_names_code_is_not_refused(spec: str, tmp_path: Path) -> None:
    """A file with an object, or a plug-in, which the guest alone can look for."""
    _file(tmp_path, GOOD)
    assert PYTHON.refuse(parse_condition(spec, tmp_path), Machine()) is None


@pytest.mark.parametrize(
    "text", ["from elsewhere import *", "Scorer = make()", "import x as Scorer", "class Scorer(:"]
)
def test_what_only_running_the_file_can_tell_is_left_to_the_guest(
    text: str, tmp_path: Path
) -> None:
    """A name that may be bound, however, and text that the guest's own Python must judge."""
    _file(tmp_path, text)
    condition = parse_condition("python:file=mine.py,object=Scorer", tmp_path)
    assert PYTHON.refuse(condition, Machine()) is None


@pytest.mark.parametrize("spec", ["python:object=a-b", "python:object=a.b", "python:plugin=a/b"])
def test_names_are_names(spec: str) -> None:
    """No path and no expression can stand where a name is due."""
    with pytest.raises(MismatchError, match="does not take"):
        parse_condition(spec)


@pytest.mark.parametrize("option", ["topk=5", "entropy=true", "temperature=0.7"])
def test_what_a_plugin_cannot_give_is_no_option(option: str) -> None:
    """Nothing beyond the token's own value is asked of a user's code."""
    with pytest.raises(MismatchError, match="has no option"):
        parse_condition(f"python:plugin=x,{option}")


def test_a_file_lies_where_its_writer_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative to the current folder on a command line, to the study file in a study."""
    monkeypatch.chdir(tmp_path)
    here = parse_condition("python:file=./a/../mine.py,object=Scorer").options["file"]
    assert here == tmp_path / "mine.py"
    there = parse_option(PYTHON, "file", "code/mine.py", tmp_path / "studies")
    assert there == tmp_path / "studies" / "code" / "mine.py"
    assert parse_option(PYTHON, "file", "/x/mine.py", tmp_path) == Path("/x/mine.py")


def test_an_id_is_readable_and_names_no_place() -> None:
    """The file's name and the object's; equal on every machine."""
    one = parse_condition("python:file=/a/b/mine.py,object=Scorer,arg.x=1")
    two = parse_condition("python:file=mine.py,object=Scorer,arg.x=1", Path("/c"))
    assert one.id == two.id == "python-arg.x1-mine-object_Scorer"
    assert one.spec == two.spec == "python:arg.x=1,file=mine.py,object=Scorer"
    odd = parse_condition("python:file=/a/my trainer (1).py,object=Scorer").id
    assert odd.startswith("python-my_trainer_1_-object_Scorer-") and "/" not in odd


def test_a_changed_file_is_told_from_the_one_that_ran(tmp_path: Path) -> None:
    """Each file that a capture ran, the main one and what it imported, is compared with its digest
    of then; of a plug-in the host knows nothing."""
    main, helper = _file(tmp_path, "a = 1\n"), _file(tmp_path, "b = 1\n", "helper.py")
    condition = parse_condition("python:file=mine.py,object=Scorer", tmp_path)
    code = {"files": {p.name: store.sha256(p) for p in (main, helper)}}
    assert PYTHON.changed(condition, code) is None
    assert PYTHON.changed(condition, {}) is None
    helper.write_text("b = 2\n")
    assert "helper.py has changed (sha256 " in (PYTHON.changed(condition, code) or "")
    helper.unlink()
    assert PYTHON.changed(condition, code) == "helper.py is not there any more"
    assert PYTHON.changed(parse_condition("python:plugin=x"), code) is None
    assert ENGINES["hf"].changed(parse_condition("hf"), code) is None


# ---------------------------------------------------------------- the guest's half


def _worker(tmp_path: Path, text: str = GOOD, name: str = "Scorer", **extra: Any) -> Worker:
    options = {"file": str(_file(tmp_path, text)), "object": name}
    job = wire.Job("python", "/the/model", options, [], extra=extra)
    worker = Worker(job, wire.Events(tmp_path / "events", silent=True))
    worker.load()
    worker.configure({})
    return worker


def _score(worker: Worker, *sequences: list[int]) -> list[wire.Values]:
    ids = [np.array(s, np.int32) for s in sequences]
    return worker.score("score", ids, [1] * len(ids), [np.zeros((len(s), 0)) for s in sequences])


def test_the_object_gets_the_checkpoint_its_options_and_copies_of_the_ids(tmp_path: Path) -> None:
    """arg.NAME arrives by name; ids are int64 and the plug-in's own to change."""
    worker = _worker(tmp_path, lr=0.5, name_="x")
    scorer: Any = worker.scorer
    assert (scorer.model_path, scorer.options) == ("/the/model", {"lr": 0.5, "name_": "x"})
    ids = np.array([3, 4, 5], np.int32)
    values = worker.score("score", [ids], [1], [np.zeros((3, 0))])
    scorer.seen[0][:] = 0
    assert ids.tolist() == [3, 4, 5] and scorer.seen[0].dtype == np.int64
    np.testing.assert_array_equal(values[0].logprobs, np.float32([np.nan, -1.5, -1.5]))


@pytest.mark.parametrize("extra", ["", "    def facts(self): return {'dtype': 'bf16', 'n': 1}\n"])
def test_what_the_plugin_says_stands_apart_from_what_was_seen(tmp_path: Path, extra: str) -> None:
    """Its own statement has a key of its own; file digest, dtypes, calls and versions are seen."""
    worker = _worker(tmp_path, GOOD + extra)
    _score(worker, [1, 2, 3])
    _score(worker, [1, 2], [3, 4])
    facts = worker.facts()
    assert facts["stated_by_the_plugin"] == ({"dtype": "bf16", "n": 1} if extra else {})
    assert facts["observed"] == {} and facts["scored_as"] == {}
    assert facts["code"]["files"] == {"mine.py": store.sha256(tmp_path / "mine.py")}
    assert facts["values_dtype"] == "float64" and facts["sequences_per_call"] == [1, 2]
    assert facts["imported"]["numpy"] == facts["versions"]["numpy"] == np.__version__
    assert wire.finite(facts) and facts["device"]


def test_modules_beside_the_file_can_be_imported_and_are_digested(tmp_path: Path) -> None:
    """At load, or as late as a call; what lies deeper or elsewhere is no part of the code. A module
    of the same name as a library does not hide the library."""
    _file(tmp_path, "value = -2.0\n", "beside.py")
    (tmp_path / "pack").mkdir()
    _file(tmp_path / "pack", "late = 1\n", "late.py")
    _file(tmp_path, "raise RuntimeError('shadowed')\n", "json.py")
    text = GOOD + "    def facts(self):\n        import pack.late\n        return {}\n"
    worker = _worker(tmp_path, "import json, beside\n" + text)
    identity = worker.identity()
    assert sorted(identity["files"]) == ["beside.py", "mine.py"]
    facts = worker.facts()
    assert sorted(facts["code"]["files"]) == ["beside.py", "mine.py", "pack/late.py"]
    assert facts["code"]["digest"] == identity["digest"]


def test_no_bytecode_is_left_or_believed(tmp_path: Path) -> None:
    """The bytes that were digested are those that ran, whatever a cache beside the file says."""
    import os
    import py_compile

    old, new = GOOD.replace("-1.5", "-8.5"), GOOD
    path = _file(tmp_path, old)
    py_compile.compile(str(path))
    stamp = path.stat()
    path.write_text(new)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    worker = _worker_of(path, tmp_path)
    assert _score(worker, [1, 2])[0].logprobs[1] == -1.5


def _worker_of(path: Path, tmp_path: Path) -> Worker:
    job = wire.Job("python", "/m", {"file": str(path), "object": "Scorer"}, [])
    worker = Worker(job, wire.Events(tmp_path / "events", silent=True))
    worker.load()
    worker.configure({})
    return worker


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("class Scorer(:\n", r"mine\.py does not import: SyntaxError: .*line 1"),
        ("import nowhere_at_all\n", "does not import: ModuleNotFoundError: .*mine.py, line 1.*"
         f"{re.escape(sys.executable)}: python="),
        ("import sys\nsys.exit(3)\n", "does not import: SystemExit: 3 .mine.py, line 2"),
        ("class Scorers: ...\n", "mine.py has no Scorer: it has Scorers"),
        ("Scorer = 5\n", "Scorer of mine.py is a int: it must be called"),
        ("class Scorer: ...\n", r"Scorer\(model_path, options\) failed: TypeError"),
        ("def Scorer(m, o): return None\n", r"gave a NoneType without score\(sequences\)"),
        ("def Scorer(m, o):\n    raise ValueError\n", "failed: ValueError .mine.py, line 2"),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    """A file that does not import, no such object, one that is nothing to call, no score."""
    with pytest.raises(PluginError, match=says) as raised:
        _worker(tmp_path, text)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (None, "gave a NoneType where a list"),
        (np.zeros((2, 3)), "gave a ndarray where a list"),
        ({0: 1}, "gave a dict where a list"),
        ([np.zeros(3)], "gave 1 arrays for 2 sequences"),
        ([np.zeros(3), np.zeros(4), np.zeros(3)], "gave 3 arrays for 2 sequences"),
        ([np.zeros(3), np.zeros(3)], "array 2 of the call has 3 values for 4 ids"),
        ([np.zeros(4), np.zeros(4)], "array 1 of the call has 4 values for 3 ids"),
        ([np.zeros(3), np.zeros((4, 1))], r"has the shape \(4, 1\) where \(4,\) is due"),
        ([np.zeros(3), 0.0], r"has the shape \(\) where"),
        ([np.zeros(3), None], r"has the shape \(\) where"),
        ([[0.0, None, 0.0], np.zeros(4)], "holds object where floating-point"),
        ([np.zeros(3, int), np.zeros(4)], "holds int64 where floating-point"),
        ([["a", "b", "c"], np.zeros(4)], "holds <U1 where floating-point"),
        ([np.zeros(3), [[0.0], [0.0, 1.0]]], "numpy cannot read the list"),
    ],
)
def test_what_is_no_answer_is_one_sentence(given: Any, says: str) -> None:
    """Another type, another count, another shape, fewer or more values, no floats."""
    with pytest.raises(PluginError, match=says) as raised:
        read(given, [3, 4])
    assert "\n" not in str(raised.value)


def test_a_nan_is_recorded_and_entry_0_is_ignored(tmp_path: Path) -> None:
    """As of every other engine: NaN says that the trainer said NaN."""
    text = GOOD.replace("np.full(len(s), -1.5)", "np.array([9.0] + [np.nan] * (len(s) - 1))")
    assert np.isnan(_score(_worker(tmp_path, text), [1, 2, 3])[0].logprobs).all()


def test_an_exception_in_score_says_where(tmp_path: Path) -> None:
    """Type, text and the line of the user's own file."""
    worker = _worker(tmp_path, GOOD.replace("self.seen = sequences", "sequences['a']"))
    with pytest.raises(PluginError, match=r"score failed: TypeError: .*\(mine.py, line 7\)"):
        _score(worker, [1, 2])


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ("None", "facts gave a NoneType where a dict"),
        ("{'x': {1, 2}}", "facts gave what JSON cannot hold"),
        ("{'scored_as': {'temprature': 1}}", "scored_as takes numbers by name"),
        ("{'scored_as': {'temperature': '1'}}", "scored_as takes numbers by name"),
        ("1 / 0", "facts failed: ZeroDivisionError"),
    ],
)
def test_facts_that_are_none_are_one_sentence(tmp_path: Path, facts: str, says: str) -> None:
    """A statement that cannot be kept is not dropped in silence."""
    worker = _worker(tmp_path, GOOD + f"    def facts(self): return {facts}\n")
    with pytest.raises(PluginError, match=says):
        worker.facts()


def test_a_temperature_in_the_values_is_the_plugins_to_say(tmp_path: Path) -> None:
    """It reaches the check of whether both sides scored one distribution."""
    text = GOOD + "    def facts(self): return {'scored_as': {'temperature': 0.7}}\n"
    assert _worker(tmp_path, text).facts()["scored_as"] == {"temperature": 0.7}


# ---------------------------------------------------------------- plug-ins


def _install(folder: Path, name: str, module: str, value: str, text: str = GOOD) -> None:
    """What an installer leaves: a module, and its distribution's metadata."""
    _file(folder, text, f"{module}.py")
    about = folder / f"{module}-1.0.dist-info"
    about.mkdir()
    _file(about, f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", "METADATA")
    _file(about, f"[mismatch.trainers]\n{value}\n", "entry_points.txt")


def test_a_plugin_is_found_by_its_entry_point(tmp_path: Path) -> None:
    """With distribution, version, entry point and the digest of its own module alone."""
    sys.path.insert(0, str(tmp_path))
    _file(tmp_path, "x = 1\n", "plug_other.py")
    _install(tmp_path, "plug-one", "plug_one", "one = plug_one:Scorer",
             "import plug_other\n" + GOOD)  # fmt: skip
    found = source.from_plugin("one")
    assert found.look() == {"plug_one.py": store.sha256(tmp_path / "plug_one.py")}
    assert found.about == {
        "plugin": "one", "entry_point": "plug_one:Scorer", "distribution": "plug-one",
        "version": "1.0",
    }  # fmt: skip


def test_no_such_entry_point_names_those_there_are(tmp_path: Path) -> None:
    """None of that name, two of that name, one whose object is not there, one that fails."""
    with pytest.raises(PluginError, match=r"has no entry point one in the .*: there is none"):
        source.from_plugin("one")
    sys.path.insert(0, str(tmp_path))
    _install(tmp_path, "plug-a", "plug_a", "a = plug_a:Scorer\ntwo = plug_a:Scorer")
    _install(tmp_path, "plug-b", "plug_b", "b = plug_b:Nobody\ntwo = plug_b:Scorer")
    with pytest.raises(PluginError, match=r"no entry point one .*: there are a, b, two"):
        source.from_plugin("one")
    with pytest.raises(PluginError, match=r"more than one \(plug-[ab] 1.0, plug-[ab] 1.0\)"):
        source.from_plugin("two")
    with pytest.raises(PluginError, match=r"plug-in b .* does not load: AttributeError"):
        source.from_plugin("b")
