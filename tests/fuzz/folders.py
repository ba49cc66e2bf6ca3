"""A run folder that no engine made, and ways to damage one."""

from __future__ import annotations

import contextlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import strategies as st

from mismatch import store
from mismatch.capture import plan
from mismatch.model import AttributionSpec, make_corpus
from mismatch.verbs.conclude import conclude
from tests.fuzz.garbage import HOSTILE, JSON, broken, damaged

TRACES = ("hf/score-1", "hf/score-batch", "vllm/decode-1", "vllm/decode-batch")
PAIR = plan.pair_of(
    "hf~vllm",
    ("score", "decode"),
    (TRACES[0], TRACES[2]),
    {"batch": {"train": (TRACES[1],), "infer": (TRACES[3],)}},
)
WHY = AttributionSpec("why", ("engine",), "hf", "vllm", {"0": TRACES[0], "1": TRACES[2]})


def whole_run(root: Path) -> Path:
    """Nine sequences, one pair with floors, one attribution, one failed capture, token texts."""
    corpus = make_corpus([(np.arange(1, 5 + k % 3), None) for k in range(9)])
    about = {"schema": store.SCHEMA, "source": "ids", "sampled_by": None}
    folder = store.save_corpus(root, corpus, about)
    store.write_text(folder / "texts.json", store.dump_json({"1": " the", "2": "<b>"}))
    for seed, trace in enumerate(TRACES):
        _seal(root, trace, corpus, seed)
    error = {"boundary": "load", "type": "ImportError", "message": "no sgl_kernel"}
    failure = {**error, "condition": "sglang", "capture": "decode-1"}
    store.write_text(root / "failed/sglang/decode-1/error.json", store.dump_json(failure))
    asked = {"verb": "study", "conditions": {"hf": "hf", "vllm": "vllm"}}
    run = {"schema": store.SCHEMA, "request": asked, "pairs": [asdict(PAIR)]}
    note = store.dump_json({**run, "attributions": [asdict(WHY)]})
    store.write_text(root / "run.json", note)
    conclude(root)
    return root


def _seal(root: Path, trace: str, corpus: Any, seed: int) -> None:
    condition, capture = trace.split("/")
    common, own = np.random.default_rng(0), np.random.default_rng(seed)
    values = [
        (-1 - common.exponential(1, len(ids)) + own.normal(0, 0.01, len(ids))).astype(np.float32)
        for ids in corpus.token_ids
    ]
    provenance = {
        "schema": store.SCHEMA,
        "trace": trace,
        "condition": condition,
        "engine": condition,
        "path": capture.split("-")[0],
        "capture": capture,
        "corpus": corpus.sha,
        "model": {"name": "m", "digest": "0123", "path": "m"},
        "facts": {
            "versions": {"numpy": "2"},
            "device": "cpu",
            "scored_as": {"temperature": 1.0},
            "code": None,
        },
    }

    def fill(aside: Path) -> None:
        (aside / "provenance.json").write_text(store.dump_json(provenance), encoding="utf-8")
        store.write_trace_tokens(aside / "tokens.parquet", corpus, values)

    store.seal(store.trace_folder(root, trace), fill, {"kind": "trace", "corpus": corpus.sha})


# ---------------------------------------------------------------- damage


@dataclass(frozen=True)
class Damage:
    """One thing done to a folder. file: below the folder. what: how; with: what it takes."""

    what: str
    file: str
    by: Any = None

    def do(self, root: Path, outside: Path) -> None:
        """Do it; a file that an earlier damage took away stays away."""
        path = root / self.file
        if path.exists() or path.is_symlink():
            _DAMAGES[self.what](path, self.by, outside)


def _remove(path: Path, by: Any, outside: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _write(path: Path, by: Any, outside: Path) -> None:
    if not path.is_dir():
        path.unlink()
        path.write_bytes(by)


def _write_and_seal(path: Path, by: Any, outside: Path) -> None:
    """As somebody would who means to deceive: the manifest is written anew."""
    _write(path, by, outside)
    manifest = path.parent / store.MANIFEST
    if path.is_file() and manifest.is_file() and path != manifest:
        # It may have been damaged before.
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            said = json.loads(manifest.read_text())
            said["files"][path.name] = store.sha256(path)
            manifest.write_text(json.dumps(said))


def _link(path: Path, by: Any, outside: Path) -> None:
    _remove(path, None, outside)
    aim, _, below = by.partition("/")
    aims = {"folder": outside, "file": outside / "kept/file", "nothing": outside / "none"}
    path.symlink_to(aims[aim] / below if aim in aims else path.parent / by)


def _moved_out(path: Path, by: Any, outside: Path) -> None:
    """The same bytes, but through a link that leads out."""
    target = outside / "moved"
    if not target.exists():
        shutil.move(path, target)
        path.symlink_to(target)


def _file_for_folder(path: Path, by: Any, outside: Path) -> None:
    _remove(path, None, outside)
    path.write_bytes(by) if path.suffix else path.mkdir()


def _swap(path: Path, by: Any, outside: Path) -> None:
    other = path.parents[len(Path(by).parts) - 1] / Path(by).name
    if other != path and other.exists() and not other.is_relative_to(path):
        aside = path.with_name("aside")
        path.rename(aside)
        other.rename(path)
        aside.rename(other)


def _add(path: Path, by: Any, outside: Path) -> None:
    folder = path if path.is_dir() else path.parent
    (folder / by[0]).write_bytes(by[1])


_DAMAGES = {
    "remove": _remove,
    "write": _write,
    "write and seal": _write_and_seal,
    "link": _link,
    "moved out": _moved_out,
    "other kind": _file_for_folder,
    "add": _add,
}


def damages(root: Path) -> st.SearchStrategy[list[Damage]]:
    """One or two things done to the files and folders that `root` has."""
    entries = sorted(str(p.relative_to(root)) for p in root.rglob("*"))
    return st.lists(_damage(root, entries), min_size=1, max_size=2)


#: Where a link may lead: out of the folder, to each thing that a write could hurt there.
AIMS = ("folder", "folder/.work", "folder/failed", "folder/kept", "file", "nothing")


@st.composite
def _damage(draw: st.DrawFn, root: Path, entries: list[str]) -> Damage:
    name = draw(st.sampled_from(entries))
    path = root / name
    if path.is_file() and draw(st.booleans()):
        how = draw(st.sampled_from(["write", "write and seal"]))
        return Damage(how, name, draw(_content(path)))
    what = draw(st.sampled_from(["remove", "link", "moved out", "other kind", "add"]))
    by = {
        "link": st.sampled_from([*AIMS, path.name, "..", "../.."]),
        "other kind": st.binary(max_size=5),
        "add": st.tuples(
            st.sampled_from(["topk.parquet", "recorded.parquet", "x", ".seal-x", "texts.json"]),
            st.sampled_from([b"", b"x", (root / name).read_bytes() if path.is_file() else b"{}"]),
        ),
    }
    return Damage(what, name, draw(by.get(what, st.none())))


def _content(path: Path) -> st.SearchStrategy[bytes]:
    """Other bytes for a file; a JSON file also with another value somewhere in it."""
    if path.suffix != ".json":
        return broken(path.read_bytes())
    value = json.loads(path.read_text(encoding="utf-8"))
    hostile = st.sampled_from(sorted(_texts(value))).flatmap(
        lambda old: st.sampled_from([h for h in HOSTILE if "\ud800" not in h]).map(
            lambda new: _replaced(value, old, new)
        )
    )
    others = [damaged(value), JSON] + ([hostile] if _texts(value) else [])
    return st.one_of(st.one_of(*others).map(_json), broken(path.read_bytes()))


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def _texts(value: Any) -> set[str]:
    """Every text in a nested value."""
    if isinstance(value, str):
        return {value}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {text for v in inner for text in _texts(v)}


def _replaced(value: Any, old: str, new: str) -> Any:
    """The value with one text replaced throughout: a trace by another name, say."""
    if isinstance(value, dict):
        return {k: _replaced(v, old, new) for k, v in value.items()}
    if isinstance(value, list):
        return [_replaced(v, old, new) for v in value]
    return new if value == old else value
