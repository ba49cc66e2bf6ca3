"""Record log-probabilities from inside a trainer: one call, rows of format `jsonl`.

    from mismatch.api import record
    record("gap.jsonl", token_ids=ids, loss_mask=mask, infer_logprobs=old, train_logprobs=new)

numpy arrays, lists and torch tensors are taken (torch is never imported here), one sequence or a
batch. Nothing is written unless the whole call is valid.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from mismatch.corpus.jsonl import MAX_TOKEN_ID
from mismatch.errors import MismatchError
from mismatch.model import LOGPROB_CEILING, given_path

Align = Literal["full", "response"]


def record(
    path: str | os.PathLike[str],
    *,
    token_ids: Any,
    loss_mask: Any,
    infer_logprobs: Any,
    train_logprobs: Any,
    align: Align = "full",
    attention_mask: Any = None,
) -> None:
    """Append one row for each sequence to `path`, in the format `import --format jsonl` reads.

    token_ids: (n,) for one sequence, (batch, n) or a list of (n_i,) for several; so the others.
    loss_mask: 1 = scored; None = every position that has values. Position 0 never is.
    infer_logprobs, train_logprobs: nats, the value at t belongs to token t given those before it.
    align: "full" = the values cover the whole sequence; "response" (verl, TRL) = they cover its
        last R columns only, and loss_mask may be R long too.
    attention_mask: shape of token_ids; drops the padding before and after each sequence. A padded
        batch without it would be recorded with its padding as tokens.

    Values are stored as float32 and only where scored. The importer reads back exactly those: NaN
    is written as null, -inf as Python's literal -Infinity (so such a file is not strict JSON).

    Several processes may append to one file: a call is a single write to a file opened O_APPEND,
    which a local POSIX file system keeps whole. NFS does not: give each rank a file of its own
    there. A disk that fills up may leave a torn last line; the importer names it.

    Raises MismatchError `bad-record` for invalid arrays and `record-failed` when writing fails.
    """
    if align not in ("full", "response"):
        raise MismatchError("bad-record", reason=f"align is {align!r}, not 'full' or 'response'")
    given = _Given(
        ids=_sequences("token_ids", token_ids),
        mask=None if loss_mask is None else _sequences("loss_mask", loss_mask),
        infer=_sequences("infer_logprobs", infer_logprobs),
        train=_sequences("train_logprobs", train_logprobs),
        keep=None if attention_mask is None else _sequences("attention_mask", attention_mask),
    )
    given.check_counts()
    _append(
        given_path(os.fspath(path)), "".join(_line(k, given, align) for k in range(len(given.ids)))
    )


@dataclass(frozen=True, slots=True)
class _Given:
    """What was passed, as one array per sequence."""

    ids: list[np.ndarray]
    mask: list[np.ndarray] | None
    infer: list[np.ndarray]
    train: list[np.ndarray]
    keep: list[np.ndarray] | None

    def check_counts(self) -> None:
        """The same number of sequences everywhere, and at least one."""
        if not self.ids:
            raise MismatchError("bad-record", reason="token_ids holds no sequence")
        for name, other in (
            ("loss_mask", self.mask),
            ("infer_logprobs", self.infer),
            ("train_logprobs", self.train),
            ("attention_mask", self.keep),
        ):
            if other is not None and len(other) != len(self.ids):
                reason = f"{name} holds {len(other)} sequences, token_ids {len(self.ids)}"
                raise MismatchError("bad-record", reason=reason)


# ---------------------------------------------------------------- from arrays, lists and tensors


def _sequences(name: str, value: Any) -> list[np.ndarray]:
    """One 1-D array per sequence, of the dtype that the name calls for."""
    if value is None:
        raise MismatchError("bad-record", reason=f"{name} is None: the trainer did not compute it")
    nested = isinstance(value, list | tuple) and any(_is_row(v) for v in value)
    arrays = [_array(name, v) for v in value] if nested else [_array(name, value)]
    if not nested and arrays[0].ndim == 2:
        arrays = list(arrays[0])
    for k, row in enumerate(arrays):
        if row.ndim != 1:
            raise MismatchError("bad-record", reason=f"{name} has shape {row.shape} in row {k}")
    return [_typed(name, k, row) for k, row in enumerate(arrays)]


def _is_row(value: Any) -> bool:
    return isinstance(value, list | tuple) or getattr(value, "ndim", 0) >= 1


def _array(name: str, value: Any) -> np.ndarray:
    """numpy from whatever it is; a tensor may sit on a device, carry a gradient, or be bfloat16."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        # numpy has no bfloat16. Ids stay whole numbers: above 2**24 float32 would change them.
        value = (value if name == "token_ids" else value.float()).numpy()
    try:
        return np.asarray(value)
    except ValueError:
        raise MismatchError("bad-record", reason=f"{name} mixes lengths within a row") from None


def _typed(name: str, k: int, row: np.ndarray) -> np.ndarray:
    """int64 ids, bool masks, float32 log-probabilities (None is NaN)."""
    if name == "token_ids":
        if row.dtype.kind not in "iu" or not len(row) or row.min() < 0 or row.max() > MAX_TOKEN_ID:
            raise _unfit(name, k, f"token ids (whole numbers from 0 to {MAX_TOKEN_ID})")
        return row.astype(np.int64)
    if name.endswith("mask"):
        if row.dtype.kind not in "biuf" or not ((row == 0) | (row == 1)).all():
            raise _unfit(name, k, "0 and 1")
        return row.astype(bool)
    try:
        if row.dtype.kind in "fiuO":
            with np.errstate(over="ignore"):
                return row.astype(np.float32)
    except (TypeError, ValueError, OverflowError):
        pass
    raise _unfit(name, k, "numbers")


def _unfit(name: str, k: int, wanted: str) -> MismatchError:
    return MismatchError("bad-record", reason=f"{name} of row {k} does not hold {wanted}")


# ---------------------------------------------------------------- one row


def _line(k: int, given: _Given, align: Align) -> str:
    """Row k as a line of JSON."""
    ids, infer, train = given.ids[k], given.infer[k], given.train[k]
    covered = _covered(k, len(ids), infer, train, align)
    scored = _scored(k, len(ids), covered, None if given.mask is None else given.mask[k], align)
    part = slice(0, len(ids)) if given.keep is None else _inside(k, given.keep[k], len(ids))
    if given.mask is not None:
        _check_kept(k, scored, part)
    scored = scored[part].copy()
    scored[0] = False
    values = {
        name: _whole(side, len(ids))[part]
        for name, side in (("infer_logprobs", infer), ("train_logprobs", train))
    }
    for name, side in values.items():
        _check_ceiling(k, name, side, scored)
    row = {"token_ids": ids[part].tolist(), "loss_mask": scored.astype(int).tolist()}
    columns = {name: _nullable(side, scored) for name, side in values.items()}
    return json.dumps({**row, **columns}, separators=(",", ":")) + "\n"


def _covered(k: int, length: int, infer: np.ndarray, train: np.ndarray, align: Align) -> int:
    """How many of the last columns have values: all of them unless aligned to the response."""
    if len(infer) != len(train):
        reason = f"row {k} has {len(infer)} infer_logprobs and {len(train)} train_logprobs"
        raise MismatchError("bad-record", reason=reason)
    if len(infer) > length or (align == "full" and len(infer) < length):
        reason = f"row {k} has {len(infer)} log-probabilities for {length} token_ids"
        more = "; align='response' takes values of the last tokens only"
        raise MismatchError("bad-record", reason=reason + (more if len(infer) < length else ""))
    return len(infer)


def _scored(k: int, length: int, covered: int, mask: np.ndarray | None, align: Align) -> np.ndarray:
    """(length,) bool; no scored position may lie outside the covered columns."""
    scored = np.zeros(length, bool)
    scored[length - covered :] = True
    if mask is None:
        return scored
    if align == "response" and len(mask) == covered:
        scored[length - covered :] = mask
        return scored
    if len(mask) != length:
        reason = f"loss_mask of row {k} has {len(mask)} entries for {length} token_ids"
        raise MismatchError("bad-record", reason=reason)
    bare = np.flatnonzero(mask & ~scored)
    if len(bare):
        reason = f"loss_mask of row {k} scores position {bare[0]}, which has no log-probability"
        raise MismatchError("bad-record", reason=reason)
    return mask


def _inside(k: int, keep: np.ndarray, length: int) -> slice:
    """The stretch of ones: padding may stand before and after it, never within."""
    ones = np.flatnonzero(keep)
    if len(keep) != length:
        reason = f"attention_mask of row {k} has {len(keep)} entries for {length} token_ids"
    elif not len(ones):
        reason = f"row {k} is padding alone"
    elif ones[-1] - ones[0] + 1 != len(ones):
        reason = f"attention_mask of row {k} has a hole: padding between tokens"
    else:
        return slice(int(ones[0]), int(ones[-1]) + 1)
    raise MismatchError("bad-record", reason=reason)


def _check_kept(k: int, scored: np.ndarray, part: slice) -> None:
    """A token that the loss counts and the padding swallows is a mask that belongs elsewhere."""
    lost = [t for t in np.flatnonzero(scored) if not part.start <= t < part.stop]
    if lost:
        reason = f"loss_mask of row {k} scores position {lost[0]}, which attention_mask drops"
        raise MismatchError("bad-record", reason=reason)


def _whole(side: np.ndarray, length: int) -> np.ndarray:
    full = np.full(length, np.nan, np.float32)
    full[length - len(side) :] = side
    return full


def _check_ceiling(k: int, name: str, side: np.ndarray, scored: np.ndarray) -> None:
    above = np.flatnonzero(scored & (side > LOGPROB_CEILING))
    if len(above):
        reason = f"{name} of row {k} is {side[above[0]]} at token {above[0]}, above 0"
        raise MismatchError("bad-record", reason=reason)


def _nullable(side: np.ndarray, scored: np.ndarray) -> list[float | None]:
    """A float32 is exact as a float64, whose repr json writes: it survives the round trip."""
    kept = np.where(scored, side, np.nan).astype(np.float64)
    return [None if value != value else value for value in kept.tolist()]


def _append(path: Path, text: str) -> None:
    """One write. After a torn last line it begins with a newline, or that would swallow a row."""
    data = text.encode("utf-8")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            size = os.fstat(file).st_size
            if size and os.pread(file, 1, size - 1) != b"\n":
                data = b"\n" + data
            written = os.write(file, data)
        finally:
            os.close(file)
    except OSError as reason:
        raise MismatchError("record-failed", file=path, reason=reason.strerror) from None
    if written != len(data):
        torn = f"{written} of {len(data)} bytes fitted, so its last line is torn"
        raise MismatchError("record-failed", file=path, reason=torn)
