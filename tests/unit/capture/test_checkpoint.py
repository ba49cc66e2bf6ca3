"""What is refused before any engine starts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from mismatch.capture import checkpoint
from mismatch.engines import parse_condition
from mismatch.errors import MismatchError
from mismatch.model import make_corpus
from tests import known


def test_the_shipped_checkpoint_is_read() -> None:
    """Name, limits and a digest of what is in the files."""
    found = checkpoint.inspect(known.SHIPPED)
    assert (found.name, found.vocabulary, found.positions) == ("llama-gsm-0.8m", 1024, 1024)
    assert len(found.digest) == 16


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("tokenizer.json", True),
        ("tokenizer_config.json", True),
        ("chat_template.jinja", True),
        ("generation_config.json", True),
        ("config.json", True),
        ("README.md", False),
    ],
)
def test_what_makes_ids_or_numbers_is_in_the_digest(
    tmp_path: Path, name: str, counts: bool
) -> None:
    """Another template or tokenizer is another checkpoint: its prompts become other ids."""
    target = tmp_path / "ckpt"
    shutil.copytree(known.SHIPPED, target)
    before = checkpoint.inspect(target).digest
    with (target / name).open("a") as stream:
        stream.write("\n")
    assert (checkpoint.inspect(target).digest != before) == counts


def _damaged(folder: Path, how: str) -> Path:
    target = folder / "ckpt"
    shutil.copytree(known.SHIPPED, target)
    weights = target / "model.safetensors"
    if how == "no config":
        (target / "config.json").unlink()
    elif how == "config not json":
        (target / "config.json").write_text("{")
    elif how == "config of nothing":
        (target / "config.json").write_text(json.dumps({"a": 1}))
    elif how == "no weights":
        weights.unlink()
    elif how == "pickled":
        weights.rename(target / "pytorch_model.bin")
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif how == "not safetensors":
        weights.write_text("hello")
    return target


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("no config", "no config.json"),
        ("config not json", "cannot be read"),
        ("config of nothing", "model_type"),
        ("no weights", "no *.safetensors"),
        ("pickled", "pickled"),
        ("truncated", "truncated"),
        ("not safetensors", "not a safetensors file"),
    ],
)
def test_a_broken_folder_is_named_with_its_reason(tmp_path: Path, how: str, says: str) -> None:
    """Each way a checkpoint can be broken has its own words, exit 2, and no traceback."""
    with pytest.raises(MismatchError) as caught:
        checkpoint.inspect(_damaged(tmp_path, how))
    assert caught.value.exit_code == 2 and says in caught.value.message


def test_a_changed_weight_changes_the_digest(tmp_path: Path) -> None:
    """The digest is of content: one flipped byte is another checkpoint."""
    target = _damaged(tmp_path, "")
    before = checkpoint.inspect(target).digest
    data = bytearray((target / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (target / "model.safetensors").write_bytes(bytes(data))
    assert checkpoint.inspect(target).digest != before


def _fits(ids: list[int], spec: str = "vllm", extra: int = 0) -> None:
    found = checkpoint.inspect(known.SHIPPED)
    corpus = make_corpus([(np.array([1, 2]), None), (np.array(ids), None)])
    checkpoint.check_fits(found, corpus, "c.jsonl", [(parse_condition(spec), extra)])


@pytest.mark.parametrize("bad", [1024, 5000])
def test_an_id_outside_the_vocabulary_is_named(bad: int) -> None:
    """File, sequence and id are in the sentence."""
    with pytest.raises(MismatchError, match=rf"c\.jsonl, sequence 1: token id {bad}"):
        _fits([1, bad])


def test_length_counts_what_the_engine_needs_beyond_the_sequence() -> None:
    """1 024 positions hold 1 024 ids; a path that generates one more token needs 1 025."""
    _fits([1] * 1024)
    with pytest.raises(MismatchError, match="needs 1025 positions"):
        _fits([1] * 1024, extra=1)
    with pytest.raises(MismatchError, match="allows 512"):
        _fits([1] * 513, "vllm:arg.max_model_len=512")
