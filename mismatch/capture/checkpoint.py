"""What the host reads of a checkpoint folder before any engine starts. No tensor is loaded."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mismatch import store
from mismatch.engines import observe
from mismatch.errors import MismatchError
from mismatch.model import Condition, Corpus

#: Files beside config and weights that decide which ids a prompt becomes and how ids are drawn.
TEXT_FILES = (
    "added_tokens.json", "chat_template*", "generation_config.json", "merges.txt",
    "special_tokens_map.json", "tokenizer*", "vocab.*", "*.model", "*.tiktoken",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A Hugging Face checkpoint folder: its name, the digest of what makes its numbers (config,
    weights, tokenizer, chat template, sampling defaults), and the limits of its config. experts: 0
    for a dense model.
    """

    path: Path
    name: str
    digest: str
    vocabulary: int | None
    positions: int | None
    experts: int


def inspect(path: Path) -> Checkpoint:
    """Check config and weights, and digest them; else `not-a-checkpoint` with the reason."""
    if not path.is_dir():
        raise _refuse(path, "there is no such folder")
    config = _config(path)
    weights = sorted(path.glob("*.safetensors"))
    if not weights:
        pickled = any(path.glob("*.bin")) or any(path.glob("*.pt"))
        more = ", only pickled ones, which are never opened" if pickled else ""
        raise _refuse(path, f"it has no *.safetensors weights{more}")
    for file in weights:
        _check_whole(path, file)
    return Checkpoint(
        path.absolute(),
        path.resolve().name,
        _digest([path / "config.json", *weights, *_texts(path)]),
        _limit(config, "vocab_size"),
        _limit(config, "max_position_embeddings"),
        max(_limit(config, name) or 0 for name in observe.EXPERTS),
    )


def _refuse(path: Path, reason: str) -> MismatchError:
    return MismatchError("not-a-checkpoint", folder=path, reason=reason)


def _config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise _refuse(path, "it has no config.json") from None
    except (OSError, ValueError) as reason:
        raise _refuse(path, f"its config.json cannot be read ({reason})") from None
    if not isinstance(config, dict) or not (config.get("model_type") or config.get("auto_map")):
        raise _refuse(path, "its config.json names no model_type")
    return config


def _texts(path: Path) -> list[Path]:
    return sorted({file for name in TEXT_FILES for file in path.glob(name) if file.is_file()})


def _limit(config: dict[str, Any], key: str) -> int | None:
    """A limit at the top, or in the text part of a multimodal config; None where unstated."""
    for part in (config, config.get("text_config") or {}):
        if isinstance(part.get(key), int):
            return int(part[key])
    return None


def _check_whole(path: Path, file: Path) -> None:
    """A safetensors header names the byte range of each tensor: a shorter file is truncated."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(min(length, 1 << 28)))
        ends = [e["data_offsets"][1] for n, e in header.items() if n != "__metadata__"]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise _refuse(path, f"{file.name} is not a safetensors file") from None
    if file.stat().st_size < 8 + length + max(ends, default=0):
        raise _refuse(path, f"{file.name} is truncated")


def _digest(files: list[Path]) -> str:
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.name} {store.sha256(file)}\n".encode())
    return whole.hexdigest()[:16]


def check_fits(
    checkpoint: Checkpoint, corpus: Corpus, source: str, conditions: list[tuple[Condition, int]]
) -> None:
    """Refuse ids outside the vocabulary and sequences longer than any engine will take.

    conditions: each with the positions it needs beyond the sequence (vllm's prefill: 1).
    """
    for row, ids in enumerate(corpus.token_ids):
        bad = ids[(ids < 0) | (ids >= (checkpoint.vocabulary or 1 << 31))]
        if len(bad):
            raise MismatchError(
                "id-outside-vocabulary",
                file=source,
                row=row,
                token_id=int(bad[0]),
                size=checkpoint.vocabulary,
            )
        for condition, extra in conditions:
            check_length(checkpoint, condition, len(ids) + extra, source, row)


def check_length(
    checkpoint: Checkpoint, condition: Condition, length: int, source: str, row: int
) -> None:
    """Positions needed against the config's limit and the condition's own arg.max_model_len."""
    limits = {"the checkpoint": checkpoint.positions}
    stated = condition.options.get("arg.max_model_len")
    if isinstance(stated, int):
        limits = {f"{condition.spec}": stated}
    for limiter, limit in limits.items():
        if limit is not None and length > limit:
            raise MismatchError(
                "sequence-too-long",
                file=source,
                row=row,
                length=length,
                limiter=limiter,
                limit=limit,
            )
