"""Sealed folders: whole or absent, and never believed after an edit."""

from __future__ import annotations

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mismatch import store
from mismatch.errors import MismatchError
from mismatch.model import make_corpus


def _seal(folder: Path) -> None:
    store.seal(
        folder, lambda aside: (aside / "a.txt").write_text("one") and None, {"kind": "trace"}
    )


def test_a_sealed_folder_verifies(tmp_path: Path) -> None:
    """The manifest names each file's hash and comes last."""
    _seal(tmp_path / "t")
    manifest = store.verified(tmp_path / "t", "trace")
    assert list(manifest["files"]) == ["a.txt"] and manifest["schema"] == store.SCHEMA


@pytest.mark.parametrize("damage", ["edit", "truncate", "remove", "manifest", "kind"])
def test_damage_is_found_before_a_number_is_read(tmp_path: Path, damage: str) -> None:
    """An edited, truncated or missing file, or a broken manifest, is an error with exit 2."""
    _seal(tmp_path / "t")
    file, manifest = tmp_path / "t" / "a.txt", tmp_path / "t" / store.MANIFEST
    if damage == "edit":
        file.write_text("two")
    elif damage == "truncate":
        file.write_text("on")
    elif damage == "remove":
        file.unlink()
    elif damage == "manifest":
        manifest.write_text("{")
    else:
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "kind": "corpus"}))
    with pytest.raises(MismatchError) as caught:
        store.verified(tmp_path / "t", "trace")
    assert caught.value.exit_code == 2


def test_a_file_that_was_added_is_refused_and_never_copied(tmp_path: Path) -> None:
    """No hash vouches for it: not for what it says, and not for where a link in its place leads."""
    _seal(tmp_path / "t")
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "t" / "topk.parquet").symlink_to(tmp_path / "secret")
    with pytest.raises(MismatchError, match=r"topk.parquet was changed .* \(it was added\)"):
        store.verified(tmp_path / "t", "trace")
    store.copy_artifact(tmp_path / "t", tmp_path / "copy")
    assert sorted(p.name for p in (tmp_path / "copy").iterdir()) == [store.MANIFEST, "a.txt"]


def test_a_folder_that_fails_half_way_is_not_there(tmp_path: Path) -> None:
    """A full disk while writing leaves neither the artifact nor the half of it."""

    def full(aside: Path) -> None:
        (aside / "a.txt").write_text("one")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(MismatchError) as caught:
        store.seal(tmp_path / "x" / "t", full, {"kind": "trace"})
    assert caught.value.code == "out-of-space"
    assert list((tmp_path / "x").iterdir()) == []


def test_a_path_cannot_leave_its_root(tmp_path: Path) -> None:
    """Names that climb out of the output folder are refused."""
    with pytest.raises(MismatchError):
        store.inside(tmp_path, "..", "elsewhere")
    with pytest.raises(MismatchError):
        store.inside(tmp_path, "/etc/passwd")


def test_a_corpus_folder_gives_back_what_was_put_in(tmp_path: Path) -> None:
    """Ids, masks and recorded values survive bit for bit, NaN and -inf included."""
    corpus = make_corpus([(np.array([1, 2, 3]), np.array([0, 1, 1])), (np.array([7, 8]), None)])
    values = [np.array([0, -1.5, np.nan], np.float32), np.array([0, -np.inf], np.float32)]
    folder = store.save_corpus(tmp_path, corpus, {"sampled_by": None}, {"infer": values})
    again, about, recorded = store.load_corpus(folder)
    assert again.sha == corpus.sha == folder.name and about == {"sampled_by": None}
    for a, b in zip(recorded["infer"], values, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_corpus_keeps_the_samplers_likeliest_tokens(tmp_path: Path) -> None:
    """(n, K) ids of ragged sequences come back in shape, also of the first sequences alone."""
    corpus = make_corpus([(np.array([1, 2, 3]), None), (np.array([7, 8]), None)])
    top = tuple(np.arange(len(i) * 2, dtype=np.int32).reshape(-1, 2) - 1 for i in corpus.token_ids)
    folder = store.save_corpus(tmp_path, replace(corpus, top_ids=top), {})
    again = store.load_corpus(folder)[0]
    assert again.top_ids is not None
    for got, given in zip(again.top_ids, top, strict=True):
        np.testing.assert_array_equal(got, given)
    assert again.first(1).top_ids == again.top_ids[:1]


def test_a_corpus_keeps_the_rollouts_routes(tmp_path: Path) -> None:
    """(n, L, K) experts of ragged sequences come back in shape; without them there are none."""
    corpus = make_corpus([(np.array([1, 2, 3]), None), (np.array([7, 8]), None)])
    routes = tuple(
        np.arange(len(i) * 6, dtype=np.int16).reshape(-1, 3, 2) - 1 for i in corpus.token_ids
    )
    folder = store.save_corpus(tmp_path / "with", replace(corpus, routes=routes), {})
    again = store.load_corpus(folder)[0]
    assert again.routes is not None
    for got, given in zip(again.routes, routes, strict=True):
        np.testing.assert_array_equal(got, given)
    assert again.first(1).routes == again.routes[:1]
    assert store.load_corpus(store.save_corpus(tmp_path / "without", corpus, {}))[0].routes is None


def test_null_is_not_scored_and_nan_is_said(tmp_path: Path) -> None:
    """In tokens.parquet null means not scored; an engine's NaN stays NaN."""
    corpus = make_corpus([(np.array([1, 2, 3]), np.array([0, 0, 1]))])
    store.write_trace_tokens(
        tmp_path / "t.parquet", corpus, [np.array([np.nan, -1, np.nan], np.float32)]
    )
    column = store.read_table(tmp_path / "t.parquet")["logprob"].combine_chunks()
    assert column.is_null().to_pylist() == [True, True, False]
    assert np.isnan(column[2].as_py())


def test_json_refuses_nan() -> None:
    """NaN in an artifact is a bug, not a number."""
    with pytest.raises(ValueError, match="Out of range"):
        store.dump_json({"x": float("nan")})
