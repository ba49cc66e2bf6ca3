"""JSON lines: one way to read them, and the corpus format {token_ids, loss_mask}.

Every reader of this package goes through `rows`, so that each complaint names a file and a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from pydantic_core import from_json

from mismatch.errors import MismatchError
from mismatch.model import Corpus, make_corpus

#: Ids are int32 everywhere: in the traces, on the wire and in the engines.
MAX_TOKEN_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Place:
    """Where a row stands, for errors."""

    file: Path
    line: int

    def bad(self, reason: str, todo: str) -> MismatchError:
        """The `bad-row` error for this place."""
        return MismatchError("bad-row", file=self.file, line=self.line, reason=reason, todo=todo)


def rows(path: Path, *, nan: bool = False) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) for each line that is not blank.

    nan: accept NaN, Infinity and -Infinity, which Python writes and JSON does not know.
    Raises `file-missing`, `file-unreadable` (not UTF-8 text), `bad-row` (not a JSON object) and,
    once the end is reached without a row, `empty-input`.
    """
    empty = True
    for number, text in _lines(path):
        yield number, _object(Place(path, number), text, nan)
        empty = False
    if empty:
        raise MismatchError("empty-input", file=path)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open("rb") as stream:
            yield from _decoded(path, stream)
    except FileNotFoundError:
        raise MismatchError("file-missing", what="File", file=path) from None
    except OSError as reason:
        raise _unreadable(path, reason.strerror or str(reason)) from None


def _decoded(path: Path, stream: BinaryIO) -> Iterator[tuple[int, str]]:
    # Bytes split at \n alone; str.splitlines would cut at U+2028 too, which JSON text may hold.
    for number, raw in enumerate(stream, 1):
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError:
            raise _unreadable(path, f"line {number} is not UTF-8 text") from None
        text = text.removeprefix("\ufeff") if number == 1 else text
        if text.strip(" \t\r\n"):
            yield number, text


def _unreadable(path: Path, reason: str) -> MismatchError:
    return MismatchError(
        "file-unreadable", file=path, reason=reason, todo="Give a file of JSON lines in UTF-8."
    )


def _refuse(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is not a JSON value")


_LENIENT = json.JSONDecoder()
_STRICT = json.JSONDecoder(parse_constant=_refuse)


def _object(place: Place, text: str, nan: bool) -> dict[str, Any]:
    try:
        # Five times faster than json, which still reads and explains what this one refuses.
        value = from_json(text, allow_inf_nan=nan)
    except ValueError:
        value = _explained(place, text, _LENIENT if nan else _STRICT)
    if not isinstance(value, dict):
        raise place.bad(f"{shown(value)} is not an object", ONE_OBJECT)
    return value


ONE_OBJECT = "Write one JSON object on each line."
TORN = (
    "Write one JSON object on each line; drop a torn one or write it again: a program that stops "
    "or a full disk leaves such a line."
)


def _explained(place: Place, text: str, decoder: json.JSONDecoder) -> Any:
    """The value if json can read it, else why not, in its words, and whether the line was torn."""
    line = text.rstrip(" \t\r\n")  # or a string that is cut short would hold a control character
    try:
        return decoder.decode(line)
    except json.JSONDecodeError as reason:
        why = f"not JSON ({reason.msg}, column {reason.colno})"
        if reason.pos >= len(line) or reason.msg.startswith("Unterminated string"):
            raise place.bad(f"the line ends before its JSON does; {why}", TORN) from None
    except ValueError as reason:
        why = f"not JSON ({str(reason).partition(';')[0]})"
    except RecursionError:
        why = "not JSON that can be read (nested too deeply)"
    raise place.bad(why, ONE_OBJECT)


def shown(value: Any) -> str:
    """A value as it stands in the file, in ASCII and short enough for an error."""
    if isinstance(value, list | dict):
        return "a list" if isinstance(value, list) else "an object"
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


# ---------------------------------------------------------------- fields


def array(place: Place, row: dict[str, Any], field: str, length: int | None = None) -> list[Any]:
    """A field that must be a list, of `length` entries (those of token_ids) where one is given."""
    if field not in row:
        fields = ", ".join(map(shown, row)) or "no field"
        raise place.bad(f"field '{field}' is missing", f"The row has {fields}.")
    value = row[field]
    if not isinstance(value, list):
        raise place.bad(f"{field} is {shown(value)}, not a list", "Give one entry for each token.")
    if length is not None and len(value) != length:
        reason = f"{field} has {len(value)} entries, token_ids has {length}"
        raise place.bad(reason, "Align it to the whole sequence: entry t belongs to token t.")
    return value


def token_ids(place: Place, row: dict[str, Any]) -> np.ndarray:
    """The row's `token_ids`, (n,) int32, n >= 1."""
    values = array(place, row, "token_ids")
    todo = f"Token ids are whole numbers from 0 to {MAX_TOKEN_ID}."
    if not values:
        raise place.bad("token_ids is empty", "Drop the row, or give it at least one token.")
    # set(map(type)) is the quickest test in plain Python, and the only one that tells True from 1.
    if set(map(type, values)) != {int} or min(values) < 0 or max(values) > MAX_TOKEN_ID:
        at, value = next((t, v) for t, v in enumerate(values) if not _is_id(v))
        raise place.bad(f"token_ids[{at}] is {shown(value)}", todo)
    return np.array(values, np.int32)


def _is_id(value: Any) -> bool:
    return type(value) is int and 0 <= value <= MAX_TOKEN_ID


def loss_mask(place: Place, row: dict[str, Any], length: int) -> np.ndarray:
    """The row's `loss_mask`, (length,) bool: 1 and true are scored."""
    values = array(place, row, "loss_mask", length)
    if not (set(map(type, values)) <= {int, bool} and set(values) <= {0, 1}):
        at, value = next((t, v) for t, v in enumerate(values) if not _is_flag(v))
        todo = "It takes 1 or true (scored), 0 or false (not scored)."
        raise place.bad(f"loss_mask[{at}] is {shown(value)}", todo)
    return np.array(values, bool)


def _is_flag(value: Any) -> bool:
    return type(value) in (int, bool) and value in (0, 1)


# ---------------------------------------------------------------- the corpus format


def read_corpus(path: Path) -> Corpus:
    """Rows {"token_ids": [...], "loss_mask": [...]}; without a mask all but position 0 is scored.

    Sequences without a scored token are kept (they still share a batch with the others); a file
    without any is `nothing-scored`.
    """
    found: list[tuple[np.ndarray, np.ndarray | None]] = []
    for number, row in rows(path):
        place = Place(path, number)
        ids = token_ids(place, row)
        found.append((ids, loss_mask(place, row, len(ids)) if "loss_mask" in row else None))
    return scored_corpus(path, found)


def scored_corpus(source: Path, found: list[tuple[np.ndarray, np.ndarray | None]]) -> Corpus:
    """A Corpus with at least one scored token, else `nothing-scored` naming its source."""
    corpus = make_corpus(found)
    if not corpus.scored_tokens:
        raise MismatchError("nothing-scored", file=source)
    return corpus
