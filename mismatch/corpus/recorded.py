"""Log-probabilities a trainer already recorded: token ids with both sides' values.

All formats align to the whole sequence: the value at index t is the log-probability (nats) of
token t given the tokens before it. Index 0 has nothing before it and is never read; neither is a
value at a position that loss_mask leaves out. At a scored position null and NaN both mean NaN, and
are kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np

from mismatch.corpus import jsonl, nemo_rl
from mismatch.corpus.jsonl import Place, shown
from mismatch.errors import MismatchError
from mismatch.model import LOGPROB_CEILING, Corpus


@dataclass(frozen=True, slots=True)
class Recorded:
    """A dump: ids and mask, and both sides' values.

    infer, train: one (n,) float32 array per sequence, in nats, NaN where not scored.
    about: format, schema_version (None where the format has none), files, rows, alignment, notes.
    """

    corpus: Corpus
    infer: list[np.ndarray]
    train: list[np.ndarray]
    about: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How one exporter names things. plain: its row -> one with token_ids and loss_mask."""

    format: str
    infer: str
    train: str
    schema_version: int | None
    mask_required: bool
    alignment: str
    plain: Callable[[Place, dict[str, Any]], dict[str, Any]] = lambda _, row: row


JSONL = Dialect(
    "jsonl",
    "infer_logprobs",
    "train_logprobs",
    None,
    False,
    "Full sequence: the value at t is the log-probability of token t given those before it.",
)
PRIME_RL = Dialect(
    "prime-rl",
    "inference_logprobs",
    "trainer_logprobs",
    1,
    True,
    "Full sequence, as prime-rl's token export writes it: the value at t is the log-probability of "
    "token t given those before it; index 0 holds a filler.",
)

NEMO_RL = Dialect(
    "nemo-rl",
    "generation_logprobs",
    "prev_logprobs",
    None,
    True,
    "Full sequence, as NeMo-RL logs its training data: the value at t is the log-probability of "
    "token t given those before it; index 0 holds 0, and padding was cut off.",
    nemo_rl.plain,
)


def read_jsonl(files: list[Path]) -> Recorded:
    """Our own format, as `recorder.record` writes it: {token_ids, loss_mask, infer_logprobs,
    train_logprobs}. Without loss_mask everything but position 0 is scored."""
    return _read(JSONL, files)


def read_prime_rl(files: list[Path]) -> Recorded:
    """prime-rl's token export (`trainer.enable_token_export`), schema_version 1.

    files: rank_R.jsonl files, or folders that hold step_N/rank_R.jsonl somewhere beneath.
    """
    return _read(PRIME_RL, _found(files, "rank_R.jsonl", r"rank_\d+"))


def read_nemo_rl(files: list[Path]) -> Recorded:
    """NeMo-RL's train_data_step{N}.jsonl, which it writes into its log folder by default.

    files: such files, or folders that hold them somewhere beneath.
    """
    return _read(NEMO_RL, _found(files, "train_data_stepN.jsonl", r"train_data_step\d+"))


READERS: dict[str, Callable[[list[Path]], Recorded]] = {
    "jsonl": read_jsonl,
    "prime-rl": read_prime_rl,
    "nemo-rl": read_nemo_rl,
}


def _found(given: list[Path], name: str, stem: str) -> list[Path]:
    """Files as they are; of a folder those beneath with such a name, step 2 before step 10."""
    return [file for one in given for file in _files(one, name, stem)]


def _files(given: Path, name: str, stem: str) -> list[Path]:
    if not given.is_dir():
        return [given]
    found = [p for p in given.rglob("*.jsonl") if re.fullmatch(stem, p.stem)]
    if not found:
        raise MismatchError("file-missing", what=f"A file {name} beneath", file=given)
    return sorted(found, key=_reading_order)


def _reading_order(path: Path) -> list[tuple[str, int]]:
    pieces = re.findall(r"(\D*)(\d*)", path.as_posix())
    return [(text, int(digits or -1)) for text, digits in pieces]


# ---------------------------------------------------------------- rows


@dataclass(slots=True)
class _Tally:
    """What was left out, for the notes."""

    rows: int = 0
    values_at_0: int = 0
    mask_at_0: int = 0


def _read(dialect: Dialect, files: list[Path]) -> Recorded:
    if not files:
        raise MismatchError("usage", what="No file was given to import.", todo="Name at least one.")
    found: list[tuple[np.ndarray, np.ndarray | None]] = []
    infer, train = [], []
    tally = _Tally()
    for file in files:
        for number, row in jsonl.rows(file, nan=True):
            ids, mask, left, right = _row(dialect, Place(file, number), row, tally)
            found.append((ids, mask))
            infer.append(left)
            train.append(right)
    corpus = jsonl.scored_corpus(files[0], found)
    return Recorded(corpus, infer, train, _about(dialect, len(files), tally))


def _row(
    dialect: Dialect, place: Place, row: dict[str, Any], tally: _Tally
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(ids, mask, infer, train) of one row, each of the same length."""
    _check_schema(dialect, place, row)
    row = dialect.plain(place, row)
    ids = jsonl.token_ids(place, row)
    if "loss_mask" in row or dialect.mask_required:
        mask = jsonl.loss_mask(place, row, len(ids))
    else:
        mask = np.ones(len(ids), bool)
    sides = [_side(place, row, field, len(ids)) for field in (dialect.infer, dialect.train)]
    tally.rows += 1
    tally.values_at_0 += any(values[0] is not None for values in sides)
    tally.mask_at_0 += "loss_mask" in row and bool(mask[0])
    mask[0] = False
    infer = _logprobs(place, dialect.infer, sides[0], mask)
    train = _logprobs(place, dialect.train, sides[1], mask)
    return ids, mask, infer, train


def _check_schema(dialect: Dialect, place: Place, row: dict[str, Any]) -> None:
    if dialect.schema_version is None or ("schema_version" not in row and _speaks(JSONL, row)):
        return  # a row in another format's form is told so by _side
    found = row.get("schema_version")
    if type(found) is not int or found != dialect.schema_version:
        raise MismatchError(
            "unknown-schema",
            file=place.file,
            line=place.line,
            name=f"{dialect.format} schema_version",
            found=shown(found) if "schema_version" in row else "(none given)",
            known=dialect.schema_version,
        )


def _speaks(dialect: Dialect, row: dict[str, Any]) -> bool:
    return {dialect.infer, dialect.train} <= row.keys()


def _side(place: Place, row: dict[str, Any], field: str, length: int) -> list[Any]:
    """One side's raw values; a row in the other format's form is told so."""
    for other in (JSONL, PRIME_RL, NEMO_RL):
        if field not in row and _speaks(other, row):
            todo = f"The row is in {other.format}'s form: import it as that format."
            raise place.bad(f"field '{field}' is missing", todo)
    return jsonl.array(place, row, field, length)


def _logprobs(place: Place, field: str, values: list[Any], scored: np.ndarray) -> np.ndarray:
    """float32 nats where scored, NaN elsewhere. `values` outside `scored` are not looked at."""
    numbers = _floats(list(compress(values, scored.tolist())))
    positions = np.flatnonzero(scored)
    if numbers is None:
        at = next(t for t in positions if not _is_number(values[t]))
        raise place.bad(f"{field}[{at}] is {shown(values[at])}, not a number", NATS)
    too_high = positions[numbers > LOGPROB_CEILING]
    if len(too_high):
        at = too_high[0]
        raise place.bad(f"{field}[{at}] is {shown(values[at])}, above 0", NATS)
    full = np.full(len(scored), np.nan, np.float32)
    with np.errstate(over="ignore"):  # below float32's range: -inf, which the gate refuses
        full[scored] = numbers
    return full


NATS = "Log-probabilities are natural logs: numbers of at most 0, or null for one that is missing."


def _floats(values: list[Any]) -> np.ndarray | None:
    """float64, null as NaN; None when something is not a number."""
    if not set(map(type, values)) <= {float, int, NoneType}:
        return None
    try:
        return np.array(values, np.float64)
    except OverflowError:
        return None


def _is_number(value: Any) -> bool:
    whole = type(value) is int and abs(value) < 2**1000
    return value is None or type(value) is float or whole


def _about(dialect: Dialect, files: int, tally: _Tally) -> dict[str, Any]:
    notes = []
    if tally.values_at_0:
        notes.append(
            f"Values at index 0 were ignored in {tally.values_at_0} of {tally.rows} rows: "
            "nothing precedes position 0."
        )
    if tally.mask_at_0:
        notes.append(
            f"loss_mask scored position 0 in {tally.mask_at_0} of {tally.rows} rows: it never is."
        )
    return {
        "format": dialect.format,
        "schema_version": dialect.schema_version,
        "files": files,
        "rows": tally.rows,
        "alignment": dialect.alignment,
        "notes": notes,
    }
