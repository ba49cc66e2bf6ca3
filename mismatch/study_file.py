"""study.toml as it is written: its tables, and the sentence for what is wrong with one."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mismatch.errors import MismatchError, suggest
from mismatch.model import Floor

Scalar = str | int | float | bool
Axes = dict[str, Scalar | list[Scalar]]


class _Table(BaseModel):
    """An unknown key is an error, and a number is not text."""

    model_config = ConfigDict(extra="forbid", strict=True)


class ConditionTable(_Table):
    side: Literal["train", "infer"]
    spec: str
    id: str = Field(default="", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,79})?$")


class PairTable(_Table):
    left: str
    right: str
    path: str | None = None


class AttributionTable(_Table):
    id: str = Field(default="attribution", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,79}$")
    left: str
    right: str
    path: str
    knobs: list[str] | None = None


class StudyFile(_Table):
    """study.toml as it is written."""

    model: str
    models: dict[str, str] = {}
    prompts: str | None = None
    corpus: str | None = None
    paths: list[str] | None = None
    repeats: int = Field(default=1, ge=1, le=9)
    floor: Floor = "batch"
    samples: int = Field(default=1, ge=1)
    max_tokens: int = Field(default=256, ge=1)
    seed: int = Field(default=0, ge=0)
    limit: int | None = Field(default=None, ge=1)
    timeout: float | int = Field(default=1800, ge=1)
    trust_remote_code: bool = False
    rollout: str | None = None
    train: Axes | list[Axes] = []
    infer: Axes | list[Axes] = []
    condition: list[ConditionTable] = []
    exclude: list[dict[str, Scalar]] = []
    pair: list[PairTable] = []
    attribute: list[AttributionTable] = []


def bad_study(path: Path, what: str, hint: str = "") -> MismatchError:
    """What is wrong with a study file, as the error to raise."""
    return MismatchError("bad-study", file=path, reason=what, hint_extra=hint)


def parse(path: Path) -> StudyFile:
    """Read a study file as far as its own shape tells; `bad-study` names what does not fit."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MismatchError("file-missing", what="Study", file=path) from None
    except (OSError, UnicodeDecodeError) as reason:
        raise bad_study(path, f"it cannot be read ({reason})") from None
    try:
        return StudyFile.model_validate(_toml(path, text))
    except ValidationError as found:
        raise _said(path, found) from None


def _toml(path: Path, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except ValueError as reason:  # also of a number of more digits than Python reads
        why = str(reason).partition(";")[0]
        raise bad_study(path, f"it is not TOML: {why}") from None
    except RecursionError:
        raise bad_study(path, "it is nested too deeply") from None


def _said(path: Path, found: ValidationError) -> MismatchError:
    """pydantic's first complaint as one sentence, with a suggestion for an unknown key."""
    complaints = found.errors()
    unknown = (e for e in complaints if e["type"] == "extra_forbidden")  # why another is missing
    first = next(unknown, complaints[0])
    place = ".".join(str(p) for p in first["loc"])
    if first["loc"][0] in ("train", "infer"):
        what = f"{_axis(complaints)} takes text, a number, true or false, or a list of these"
        return bad_study(path, what)
    if first["type"] == "extra_forbidden":
        known = _fields_at(first["loc"])
        hint = suggest(str(first["loc"][-1]), known)
        return bad_study(
            path, f"it has an unknown key '{place}'", f" Known: {', '.join(known)}.{hint}"
        )
    return bad_study(path, f"'{place}': {first['msg']}")


def _axis(complaints: Sequence[Any]) -> str:
    """Which axis of a side pydantic complains of: the deepest place has its name, and between the
    names the types that were tried.
    """
    side, *tried = max((e["loc"] for e in complaints), key=len)
    names = [p for p in tried if isinstance(p, str) and "[" not in p and p not in _SCALARS]
    return f"{names[0]} of [{side}]" if names else f"[{side}] is no table: an axis"


_SCALARS = ("str", "int", "float", "bool")


def _fields_at(place: Sequence[Any]) -> list[str]:
    tables: dict[str, type[BaseModel]] = {
        "condition": ConditionTable,
        "pair": PairTable,
        "attribute": AttributionTable,
    }
    table = tables.get(str(place[0]), StudyFile) if len(place) > 1 else StudyFile
    return sorted(table.model_fields)
