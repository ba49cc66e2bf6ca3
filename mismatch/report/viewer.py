"""The worst sequences of a pair as tokens: which ones, which window of them, what was left out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from markupsafe import Markup

from mismatch import store
from mismatch.report.words import number, token_text

#: Positions shown of a sequence; the window is centred on its worst token.
WINDOW = 121

#: Sequences that stand open on the page; the others are folded.
UNFOLDED = 5

#: |d| above ln of these ratios: the colour classes 1 to 5. A fixed scale, so that pages compare.
SHADES = (1.02, 1.1, 2, 5, 10)


@dataclass(frozen=True, slots=True)
class Tokens:
    """A comparison's tokens.parquet as arrays of one length, sorted by sequence and position."""

    sequence: np.ndarray
    position: np.ndarray
    token_id: np.ndarray
    left: np.ndarray
    right: np.ndarray
    d: np.ndarray


@dataclass(frozen=True, slots=True)
class Context:
    """What a corpus folder adds: whole sequences (for unscored tokens) and token texts."""

    token_ids: pa.ChunkedArray | None
    texts: Mapping[str, str] | None


@dataclass(frozen=True, slots=True)
class Token:
    """One box: what is written, its CSS class, and the words of its tooltip."""

    text: str
    shade: str
    about: Markup
    breaks: bool
    worst: bool = False


@dataclass(frozen=True, slots=True)
class Excerpt:
    """A window of one sequence; `cut` says what is not shown."""

    number: int
    heading: str
    cut: str
    tokens: list[Token]


def read_tokens(path: Path) -> Tokens:
    table = store.read_table(path)
    names = ("sequence_id", "position", "token_id", "lp_train", "lp_infer", "d")
    columns = [table[name].to_numpy() for name in names]
    order = columns[0].astype(np.int64) << 32 | columns[1].astype(np.int64)
    if np.all(order[1:] >= order[:-1]):
        return Tokens(*columns)
    by = np.argsort(order, kind="stable")
    return Tokens(*(column[by] for column in columns))


def read_context(folder: Path | None) -> Context:
    """A corpus folder that is absent or partial gives less to show, not an error."""
    if folder is None or not folder.is_dir():
        return Context(None, None)
    texts = store.read_texts(folder)
    path = folder / "sequences.parquet"
    ids = store.read_table(path)["token_ids"] if path.is_file() else None
    return Context(ids, texts)


def worst(tokens: Tokens, context: Context, limit: int, sides: tuple[str, str]) -> list[Excerpt]:
    """The `limit` sequences with the largest |d|; those with a value that is not finite first."""
    if not len(tokens.d):
        return []
    starts = np.flatnonzero(np.diff(tokens.sequence, prepend=tokens.sequence[0] - 1))
    stops = np.append(starts[1:], len(tokens.d))
    size = np.abs(tokens.d)
    size[~np.isfinite(size)] = np.inf
    largest = np.maximum.reduceat(size, starts)
    order = np.argsort(-largest, kind="stable")[:limit]
    return [
        _sequence(tokens, slice(int(starts[k]), int(stops[k])), size, context, sides) for k in order
    ]


def _sequence(
    tokens: Tokens, rows: slice, size: np.ndarray, context: Context, sides: tuple[str, str]
) -> Excerpt:
    number_ = int(tokens.sequence[rows.start])
    spot = rows.start + int(np.argmax(size[rows]))
    whole = _ids(context, number_, tokens, rows)
    low, high = _window(int(tokens.position[spot]), min(whole), max(whole) + 1)
    scored = {int(tokens.position[k]): k for k in range(rows.start, rows.stop)}
    shown = [
        _token(whole[p], p, scored.get(p), tokens, context.texts, sides, scored.get(p) == spot)
        for p in range(low, high)
        if p in whole
    ]
    heading = _heading(number_, size[rows], int(tokens.position[spot]))
    return Excerpt(number_, heading, _cut(low, high, whole), shown)


def _ids(context: Context, sequence: int, tokens: Tokens, rows: slice) -> dict[int, int]:
    """position -> token id: of the whole sequence where the corpus is there, else the scored."""
    ids = dict(zip(tokens.position[rows].tolist(), tokens.token_id[rows].tolist(), strict=True))
    if context.token_ids is None or sequence >= len(context.token_ids):
        return ids
    whole = context.token_ids[sequence].as_py() or []
    return dict(enumerate(whole)) | ids


def _window(spot: int, first: int, stop: int) -> tuple[int, int]:
    """WINDOW positions around spot, moved inwards at the ends."""
    low = max(first, min(spot - WINDOW // 2, stop - WINDOW))
    return low, min(stop, low + WINDOW)


def _heading(sequence: int, size: np.ndarray, position: int) -> str:
    finite = size[np.isfinite(size)]
    lost = len(size) - len(finite)
    said = f"{lost:,} tokens are not finite" if lost else f"max |d| {number(float(size.max()))}"
    mean = number(float(finite.mean()) if len(finite) else None)
    return f"sequence {sequence}: {said} at position {position}, mean |d| {mean}, n={len(size):,}"


def _cut(low: int, high: int, whole: Mapping[int, int]) -> str:
    first, last = min(whole), max(whole)
    if (low, high) == (first, last + 1):
        return f"all positions {first}–{last}"
    hidden = sum(p < low or p >= high for p in whole)
    return f"positions {low}–{high - 1} of {first}–{last}; {hidden:,} tokens not shown"


def _token(
    token_id: int,
    position: int,
    row: int | None,
    tokens: Tokens,
    texts: Mapping[str, str] | None,
    sides: tuple[str, str],
    worst: bool,
) -> Token:
    raw = (texts or {}).get(str(token_id))
    text = token_text(raw) if raw else f"‹{token_id}›"
    place = f"position {position}, id {token_id}"
    breaks = bool(raw) and "\n" in str(raw)
    if row is None:
        return Token(text, "off", lines([place, "not scored"]), breaks)
    values = (float(tokens.left[row]), float(tokens.right[row]))
    said = [f"{side}: {probability(lp)}" for side, lp in zip(sides, values, strict=True)]
    d = float(tokens.d[row])
    return Token(text, _shade(d), lines([place, *said, f"d = {_signed(d)}"]), breaks, worst)


def lines(said: list[str]) -> Markup:
    """Line breaks that survive an attribute; escapes each line."""
    return Markup("&#10;").join(said)


def probability(lp: float) -> str:
    """A log-probability in nats, and what it is the log of."""
    if not np.isfinite(lp):
        return f"ln p = {lp}"
    return f"p = {number(float(np.exp(lp)))} (ln p = {lp + 0.0:.4g})"


def _signed(d: float) -> str:
    return str(d) if not np.isfinite(d) else f"{d:+.4g}"


def _shade(d: float) -> str:
    """n1..n5 where the left side is lower, p1..p5 where it is higher, nan where not finite."""
    if not np.isfinite(d):
        return "nan"
    level = int(np.searchsorted(np.log(SHADES), abs(d), side="right"))
    return "" if level == 0 else f"{'n' if d < 0 else 'p'}{level}"
