"""Artifact folders: written aside, hashed, renamed once, never edited.

A folder is an artifact when it has a MANIFEST.json, which is written last and names the sha256 of
every other file. Reading goes through `verified`, so an edited or truncated file is found before a
number is taken from it.

    <out>/run.json                        what was asked: the plan a rerun must repeat
    <out>/corpus/<sha>/                   sequences.parquet corpus.json [recorded.parquet]
                                          [routes.parquet] [texts]
    <out>/traces/<condition>/<capture>/   tokens.parquet provenance.json job.json worker.log
                                          [topk.parquet] [routes.parquet]
    <out>/failed/<condition>/<capture>/   error.json worker.log
    <out>/comparisons/<pair id>/          tokens.parquet comparison.json
    <out>/.work/                          unfinished captures, for resume
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel

from mismatch.errors import MismatchError
from mismatch.model import Corpus, given_path
from mismatch.shapes import CorpusNote, Manifest, Provenance, Texts, shaped

SCHEMA = 1
MANIFEST = "MANIFEST.json"
#: Token texts, which the first engine that has a tokenizer puts beside a sealed corpus.
TEXTS = "texts.json"
#: The experts of each position, in a trace and in the corpus of a rollout that captured them.
ROUTES = "routes.parquet"


def dump_json(value: Any) -> str:
    """JSON text, stable and strict: NaN is a bug here, not a number."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def dump_line(value: Any) -> str:
    """One line of a JSONL file."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False) + "\n"


def parse_json(text: str) -> Any:
    """JSON as `dump_json` writes it: NaN is no value."""
    return json.loads(text, parse_constant=_no_json)


def _no_json(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is not JSON")


def read_json(path: Path, shape: type[BaseModel] | None = None) -> Any:
    """Parse a JSON file of ours; one that is damaged or has another shape is `artifact-changed`."""
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MismatchError("file-missing", what="File", file=path) from None
    except RecursionError:
        raise MismatchError("artifact-changed", file=path, reason="nested too deeply") from None
    except (OSError, ValueError) as reason:
        why = str(reason).partition(";")[0]
        raise MismatchError("artifact-changed", file=path, reason=why) from None
    return found if shape is None else shaped(path, found, shape)


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_text(path: Path, text: str) -> None:
    """Write a whole file or nothing: aside, then one rename."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """The same of bytes."""
    if not path.name:
        raise MismatchError("not-writable", file=path, reason="it is a folder")
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)  # never write through a link that was laid there
        aside.write_bytes(data)
        aside.replace(path)
    except OSError as reason:
        with contextlib.suppress(OSError):  # its folder may be a file
            aside.unlink(missing_ok=True)
        raise writing_failed(path, reason) from None


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NO_PLACE = (
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.EEXIST,
    errno.ENAMETOOLONG, errno.EBUSY, errno.ENOTEMPTY,
)  # fmt: skip


def writing_failed(path: Path, reason: OSError) -> Exception:
    """The user's error for a write that the system refused; whatever else went wrong stays what it
    is.
    """
    if reason.errno in _NO_SPACE:
        return MismatchError("out-of-space", file=path, reason=reason.strerror or reason)
    if reason.errno in _NO_PLACE:
        return MismatchError("not-writable", file=path, reason=reason.strerror or reason)
    return reason


def text_digest(text: str) -> str:
    """16 hex digits that name a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def values_digest(rows: Sequence[np.ndarray]) -> str:
    """16 hex digits that name arrays of log-probabilities, bit for bit."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(np.ascontiguousarray(row, "<f4").tobytes())
    return digest.hexdigest()[:16]


def copy_artifact(source: Path, target: Path) -> None:
    """Copy a sealed folder whole: aside, then one rename."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=".seal-", dir=target.parent))
    try:
        for name in _parts(source):  # an artifact is flat
            shutil.copyfile(source / name, aside / name)
        aside.chmod(0o755)
        aside.rename(target)
    except OSError as reason:
        raise writing_failed(target, reason) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _parts(artifact: Path) -> list[str]:
    """The files of a sealed folder, the manifest last; whatever else lies there is not of it."""
    manifest = read_json(artifact / MANIFEST)
    beside = [name for name in _beside(manifest["kind"]) if inside(artifact, name).is_file()]
    return [*manifest["files"], *beside, MANIFEST]


def _beside(kind: str) -> tuple[str, ...]:
    """What may lie in a sealed folder and is not sealed with it."""
    return (TEXTS,) if kind == "corpus" else ()


def inside(root: Path, *parts: str) -> Path:
    """`root/parts...`, refused if a part is not a plain name, or a link leads out of root."""
    path = root.joinpath(*parts)
    plain = all(p not in ("", ".", "..") and "/" not in p for p in parts)
    if not plain or not _stays_in(root, given_path(path)):
        raise MismatchError("usage", what=f"{path} leaves {root}.", todo="Use a plain name.")
    return path


def _stays_in(root: Path, path: Path) -> bool:
    """Whether links lead nowhere else; a link to itself leads nowhere."""
    try:
        return path.resolve().is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return False


def trace_folder(root: Path, trace: str) -> Path:
    """Where a run folder holds the trace `<condition>/<capture>`."""
    return inside(root, "traces", *trace.split("/"))


def failed_folder(root: Path, trace: str) -> Path:
    """Where it says why that trace is not there."""
    return inside(root, "failed", *trace.split("/"))


def read_provenance(trace: Path, shape: type[Provenance] = Provenance) -> dict[str, Any]:
    """What a trace's folder says of how it was made."""
    return dict(read_json(trace / "provenance.json", shape))


def read_texts(corpus: Path) -> dict[str, str] | None:
    """Token id -> its text, where an engine with a tokenizer laid it beside the corpus."""
    file = corpus / TEXTS
    return dict(read_json(file, Texts)) if file.is_file() else None


def comparison_folder(root: Path, pair: str) -> Path:
    """Where it holds the pair's comparison: the id with what is unsafe in a name replaced."""
    return inside(root, "comparisons", re.sub(r"[^A-Za-z0-9._~@+-]", "_", pair))


def seal(
    folder: Path, fill: Callable[[Path], None], about: Mapping[str, Any], replace: bool = False
) -> str:
    """Make an artifact folder: `fill(aside)` writes its files, the manifest comes last.

    about: extra manifest entries (kind, trace hashes). Returns the manifest's sha256.
    Without `replace` an existing folder is an error of the caller.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = Path(tempfile.mkdtemp(prefix=".seal-", dir=folder.parent))
    except OSError as reason:
        raise writing_failed(folder, reason) from None
    try:
        fill(aside)
        files = {p.name: sha256(p) for p in sorted(aside.iterdir())}
        manifest = {"schema": SCHEMA, **about, "files": files}
        (aside / MANIFEST).write_text(dump_json(manifest), encoding="utf-8")
        aside.chmod(0o755)
        if replace or not is_sealed(folder):  # half a copy is no artifact
            discard(folder)
        aside.rename(folder)
    except OSError as reason:
        raise writing_failed(folder, reason) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return sha256(folder / MANIFEST)


def discard(folder: Path) -> None:
    """Remove an artifact whose sources are gone, or what stands in its place: nothing may be read
    from it any more. Of a link the link alone.
    """
    if folder.is_symlink() or folder.is_file():
        folder.unlink(missing_ok=True)
    else:
        shutil.rmtree(folder, ignore_errors=True)


def is_sealed(folder: Path) -> bool:
    return (folder / MANIFEST).is_file()


def verified(folder: Path, kind: str) -> dict[str, Any]:
    """The manifest of an artifact whose files all still have their hashes; else an error."""
    if not is_sealed(folder):
        raise MismatchError("not-an-artifact", folder=folder, kind=kind, reason="no MANIFEST.json")
    manifest = read_json(folder / MANIFEST)
    check_schema(folder / MANIFEST, manifest)
    shaped(folder / MANIFEST, manifest, Manifest)
    if manifest["kind"] != kind:
        raise MismatchError(
            "not-an-artifact", folder=folder, kind=kind, reason=f"it is a {manifest['kind']}"
        )
    for name, expected in manifest["files"].items():
        path = inside(folder, name)
        if not path.is_file():
            raise MismatchError("artifact-changed", file=path, reason="it is gone")
        if sha256(path) != expected:
            raise MismatchError("artifact-changed", file=path, reason="its sha256 differs")
    known = {*manifest["files"], *_beside(kind), MANIFEST}
    for name in sorted(p.name for p in folder.iterdir() if p.name not in known):
        if not name.startswith("."):  # what a system lays down beside; nothing of ours
            raise MismatchError("artifact-changed", file=folder / name, reason="it was added")
    return manifest  # type: ignore[no-any-return]


def check_schema(path: Path, found: Any) -> None:
    """Refuse a file of another schema version, and one that has none."""
    schema = found.get("schema") if isinstance(found, dict) else None
    if type(schema) is not int or schema != SCHEMA:
        raise MismatchError("artifact-too-new", file=path, found=schema, known=SCHEMA)


# ---------------------------------------------------------------- tables


def write_table(path: Path, columns: Mapping[str, Any]) -> None:
    """Columns (numpy or arrow) to zstd parquet."""
    pq.write_table(pa.table(dict(columns)), path, compression="zstd")


def read_table(
    path: Path, columns: Sequence[str] | None = None, only: pc.Expression | None = None
) -> pa.Table:
    """columns, only: which columns and which rows; the others are never all in memory."""
    try:
        return pq.read_table(path, columns=columns, filters=only)
    except FileNotFoundError:
        raise MismatchError("file-missing", what="File", file=path) from None
    except (OSError, pa.ArrowException) as reason:
        raise MismatchError("artifact-changed", file=path, reason=reason) from None


def logprob_column(values: np.ndarray, scored: np.ndarray) -> pa.Array:
    """float32 with null = not scored; NaN stays NaN (the engine said so)."""
    return pa.array(np.asarray(values, np.float32), mask=~np.asarray(scored, bool))


def write_trace_tokens(
    path: Path,
    corpus: Corpus,
    logprobs: list[np.ndarray],
    beside: Mapping[str, list[np.ndarray]] | None = None,
) -> None:
    """A trace's tokens.parquet: one row for each position of each sequence.

    logprobs: one float array per sequence, same length as its ids; unscored entries are ignored.
    beside: more such columns by name.
    """
    scored = np.concatenate(corpus.scored)
    columns = {
        **_positions(corpus),
        "token_id": np.concatenate(corpus.token_ids).astype(np.int32),
        "logprob": logprob_column(np.concatenate(logprobs), scored),
    }
    for name, values in (beside or {}).items():
        columns[name] = logprob_column(np.concatenate(values), scored)
    write_table(path, columns)


def _positions(corpus: Corpus) -> dict[str, np.ndarray]:
    lengths = [len(ids) for ids in corpus.token_ids]
    return {
        "sequence_id": np.repeat(np.arange(len(corpus), dtype=np.int32), lengths),
        "position": np.concatenate([np.arange(n, dtype=np.int32) for n in lengths]),
    }


def write_topk(
    path: Path, corpus: Corpus, top_ids: list[np.ndarray], logprobs: list[np.ndarray]
) -> None:
    """A trace's topk.parquet: the likeliest tokens at each scored position, rank 0 first.

    top_ids, logprobs: (n, K) per sequence, nats; id -1 marks a rank that the engine did not give,
    which has no row.
    """
    ids, values = np.concatenate(top_ids), np.concatenate(logprobs)
    keep = np.concatenate(corpus.scored)[:, None] & (ids >= 0)
    row, rank = np.nonzero(keep)
    write_table(
        path,
        {
            **{name: column[row] for name, column in _positions(corpus).items()},
            "rank": rank.astype(np.int32),
            "token_id": ids[keep].astype(np.int32),
            "logprob": values[keep].astype(np.float32),
        },
    )


def write_routes(path: Path, corpus: Corpus, routes: Sequence[np.ndarray]) -> None:
    """routes.parquet: the experts of every position of every sequence, scored or not.

    routes: (n, L, K) int16 per sequence. The type of the column keeps L and K.
    """
    whole = np.concatenate(routes).astype(np.int16)
    _, layers, experts = whole.shape
    chosen = pa.FixedSizeListArray.from_arrays(pa.array(whole.ravel()), experts)
    by_layer = pa.FixedSizeListArray.from_arrays(chosen, layers)
    write_table(path, {**_positions(corpus), "experts": by_layer})


def read_routes(path: Path) -> np.ndarray | None:
    """(rows, L, K) int16 in the order of tokens.parquet; None where they were not captured."""
    if not path.is_file():
        return None
    column = read_table(path, ["experts"])["experts"].combine_chunks()
    layers, experts = column.type.list_size, column.type.value_type.list_size
    flat = column.flatten().flatten().to_numpy()
    return np.asarray(flat, np.int16).reshape(-1, layers, experts)


# ---------------------------------------------------------------- corpus folders


def save_corpus(
    root: Path,
    corpus: Corpus,
    about: Mapping[str, Any],
    recorded: Mapping[str, list[np.ndarray]] | None = None,
) -> Path:
    """Write `<root>/corpus/<sha>/`; one that is already there is kept (its name is its content).

    recorded: log-probabilities that came with the ids, {"infer": [...], "train": [...]}, full
    length; they make path `rollout` available without an engine.
    """
    folder = inside(root, "corpus", corpus.sha)
    if is_sealed(folder):
        return folder

    def fill(aside: Path) -> None:
        ids = pa.array([i.tolist() for i in corpus.token_ids], pa.list_(pa.int32()))
        scored = pa.array([s.tolist() for s in corpus.scored], pa.list_(pa.bool_()))
        numbers = np.arange(len(corpus), dtype=np.int32)
        columns = {"sequence_id": numbers, "token_ids": ids, "scored": scored}
        if corpus.top_ids is not None:
            columns["top_ids"] = pa.array([t.ravel() for t in corpus.top_ids], pa.list_(pa.int32()))
        write_table(aside / "sequences.parquet", columns)
        if recorded:
            sides = {
                side: pa.array([np.asarray(v, np.float32) for v in values], pa.list_(pa.float32()))
                for side, values in recorded.items()
            }
            write_table(aside / "recorded.parquet", {"sequence_id": numbers, **sides})
        if corpus.routes is not None:
            write_routes(aside / ROUTES, corpus, corpus.routes)
        (aside / "corpus.json").write_text(dump_json(dict(about)), encoding="utf-8")

    seal(folder, fill, {"kind": "corpus"})
    return folder


def load_corpus(folder: Path) -> tuple[Corpus, dict[str, Any], dict[str, list[np.ndarray]]]:
    """A verified corpus folder -> corpus, what corpus.json says of it, recorded values by side."""
    verified(folder, "corpus")
    table = read_table(folder / "sequences.parquet")
    ids = tuple(np.array(v.values, np.int32) for v in table["token_ids"])
    scored = (np.array(v.values.to_numpy(zero_copy_only=False), bool) for v in table["scored"])
    corpus = Corpus(ids, tuple(scored), _top_ids(table, ids), _routes(folder, ids))
    recorded: dict[str, list[np.ndarray]] = {}
    if (folder / "recorded.parquet").is_file():
        values = read_table(folder / "recorded.parquet")
        for side in (c for c in values.column_names if c != "sequence_id"):
            recorded[side] = [np.array(v.values, np.float32) for v in values[side]]
    return corpus, read_json(folder / "corpus.json", CorpusNote), recorded


def _top_ids(table: pa.Table, ids: Sequence[np.ndarray]) -> tuple[np.ndarray, ...] | None:
    """(n, K) per sequence; None where the sampler's likeliest tokens were not captured."""
    if "top_ids" not in table.column_names:
        return None
    flat = (np.array(v.values, np.int32) for v in table["top_ids"])
    return tuple(top.reshape(len(row), -1) for top, row in zip(flat, ids, strict=True))


def _routes(folder: Path, ids: Sequence[np.ndarray]) -> tuple[np.ndarray, ...] | None:
    """(n, L, K) per sequence; None where the sampler's routes were not captured."""
    whole = read_routes(folder / ROUTES)
    if whole is None:
        return None
    return tuple(np.split(whole, np.cumsum([len(row) for row in ids])[:-1]))
