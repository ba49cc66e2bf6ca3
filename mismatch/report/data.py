"""The tokens that a page carries, for its own script to draw: which, how much, in what form.

Each pair has a block of JSON that is read when the pair is opened. In it stand numbers of the worst
sequences, and of as many of those as the page has room for their tokens: base64 of little-endian
arrays, so that 2 000 tokens cost 26 kB and one sequence can be read without the others.
"""

from __future__ import annotations

import base64
import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from mismatch.kinds import KINDS
from mismatch.report import alternatives
from mismatch.report.alternatives import Alternatives
from mismatch.report.pairs import Pair
from mismatch.report.sequences import Sequences, Tokens
from mismatch.report.vocabulary import Context, Vocabulary, embedded
from mismatch.report.words import count

#: Bytes of the page that tokens may fill: those of the pair the finding speaks of, and of all
#: other pairs together.
ROOM_OF_LEAD, ROOM_OF_OTHERS = 8_000_000, 8_000_000
#: Sequences that are listed with their numbers.
LISTED_OF_LEAD, LISTED_OF_OTHERS = 2_000, 200
#: Positions of one sequence; a longer one is cut around its worst token.
LONGEST = 20_000
#: |d| above ln of these ratios: the colour classes 1 to 5. A fixed scale, so that pages compare.
SHADES = (1.02, 1.1, 2, 5, 10)
#: Log-probabilities of alternatives are kept in steps of a nat's 2 000th, down to -32.7.
STEPS = 2000


@dataclass(frozen=True, slots=True)
class Carried:
    """A pair's block. said: which sequences it holds, as sentences. kinds: those that occur."""

    block: Markup
    said: str
    kinds: list[tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Source:
    """One pair as it lies in the folder; traces of both sides, and how many alternatives each
    has."""

    pair: Pair
    tokens: Tokens
    sequences: Sequences
    context: Context
    traces: tuple[Path, Path]
    depths: tuple[int, int]


# ---------------------------------------------------------------- which sequences


def carry(source: Source, room: int, listed: int, vocabulary: Vocabulary) -> Carried:
    """The worst sequences of a pair: `listed` with their numbers, as many as `room` bytes hold with
    their tokens."""
    order = source.sequences.order[:listed]
    spans = _chosen(source, order, room)
    rows = [np.arange(s.start, s.stop) for s in spans]
    tops = _tops(source, np.concatenate(rows) if rows else np.zeros(0, int))
    wide = _is_wide([*(s.ids for s in spans), *(t.ids for t in tops if t is not None)])
    held, done = [], 0
    for span in spans:
        part = slice(done, done + span.stop - span.start)
        done = part.stop
        held.append(_packed(source, span, [t and _part(t, part) for t in tops], wide))
    kinds = vocabulary.add(source.context, [s.ids for s in spans])
    vocabulary.add(source.context, [t.ids for t in tops if t is not None])
    return Carried(
        embedded(_block(source, order, held, wide)),
        _said(source, room, len(order), spans),
        [(k, KINDS[k]) for k in kinds],
    )


@dataclass(frozen=True, slots=True)
class _Span:
    """What is shown of a sequence. start, stop: rows of its scored tokens. positions, ids, scored:
    of every token shown. hidden: how many are not.
    """

    start: int
    stop: int
    positions: np.ndarray
    ids: np.ndarray
    scored: np.ndarray
    hidden: int


def _is_wide(ids: list[np.ndarray]) -> bool:
    """Whether ids take 4 bytes; the largest of 2 says that there is none."""
    return any(int(one.max(initial=0)) >= 0xFFFF for one in ids)


def _chosen(source: Source, order: np.ndarray, room: int) -> list[_Span]:
    """From the worst on while there is room; the worst one is cut to what there is."""
    width = 4 if any(source.depths) or _is_wide([source.tokens.token_id]) else 2
    each = 8 + sum(2 + min(k, alternatives.SHOWN) * (width + 2) for k in source.depths if k)
    room = room * 3 // 4  # base64
    found: list[_Span] = []
    for k in order.tolist():
        span = _span(source, k, LONGEST if found else min(LONGEST, room // (each + width)))
        room -= each * (span.stop - span.start) + width * len(span.ids)
        if room < 0:
            break
        found.append(span)
    return found


def _span(source: Source, k: int, longest: int) -> _Span:
    tokens, found = source.tokens, source.sequences
    start, stop = int(found.start[k]), int(found.stop[k])
    position, ids = tokens.position[start:stop], tokens.token_id[start:stop]
    whole = _whole(source.context, int(found.number[k]))
    if whole is None or len(whole) <= int(position[-1]):
        places, shown = position.astype(np.int64), ids.astype(np.int64)
    else:
        places, shown = np.arange(len(whole)), whole.astype(np.int64)
        shown[position] = ids
    low, high = _window(places, int(tokens.position[found.worst[k]]), longest)
    first, last = np.searchsorted(position, (places[low], places[high - 1] + 1))
    hidden = len(places) - (high - low)
    places, shown = places[low:high], shown[low:high]
    scored = np.isin(places, position[first:last])
    return _Span(start + int(first), start + int(last), places, shown, scored, hidden)


def _whole(context: Context, sequence: int) -> np.ndarray | None:
    if context.token_ids is None or sequence >= len(context.token_ids):
        return None
    ids = context.token_ids[sequence].values
    return None if ids is None else np.asarray(ids.to_numpy(zero_copy_only=False))


def _window(places: np.ndarray, worst: int, longest: int) -> tuple[int, int]:
    """At most `longest` tokens around the worst, moved inwards at the ends."""
    longest = max(longest, 1)
    at = int(np.searchsorted(places, worst))
    low = max(0, min(at - longest // 2, len(places) - longest))
    return low, min(len(places), low + longest)


def _tops(source: Source, rows: np.ndarray) -> list[Alternatives | None]:
    """Of both sides, for all that is shown at once; None where it was not captured."""
    return [
        alternatives.read(trace, k, source.tokens, rows) if k and len(rows) else None
        for trace, k in zip(source.traces, source.depths, strict=True)
    ]


def _part(top: Alternatives, at: slice) -> Alternatives:
    return Alternatives(top.k, top.ids[at], top.logprobs[at], top.rank[at])


# ---------------------------------------------------------------- in what form


def _packed(
    source: Source, span: _Span, tops: list[Alternatives | None], wide: bool
) -> dict[str, Any]:
    """segments: [first position, tokens, whether they are scored]. data: float32 left and right of
    the scored; then ids of all tokens; then, of each side that has them, ids of the alternatives
    (2 or 4 bytes); then their -ln p in steps and the token's own rank (2 bytes).
    """
    rows = slice(span.start, span.stop)
    kind = "<u4" if wide else "<u2"
    parts = [np.asarray(side[rows], "<f4") for side in (source.tokens.left, source.tokens.right)]
    parts.append(span.ids.astype(kind))
    known = [t for t in tops if t is not None]
    parts += [t.ids.astype(kind) for t in known]
    for top in known:
        steps = np.clip(np.round(-top.logprobs * STEPS), 0, 0xFFFF)
        parts += [steps.astype("<u2"), np.minimum(top.rank, 0xFFFF).astype("<u2")]
    data = b"".join(part.tobytes() for part in parts)
    return {
        "segments": _segments(span),
        "hidden": span.hidden,
        "data": base64.b64encode(data).decode("ascii"),
    }


def _segments(span: _Span) -> list[list[int]]:
    breaks = (np.diff(span.positions) != 1) | (np.diff(span.scored.astype(int)) != 0)
    starts = np.concatenate([[0], np.flatnonzero(breaks) + 1, [len(span.positions)]])
    return [
        [int(span.positions[a]), b - a, int(span.scored[a])]
        for a, b in itertools.pairwise(starts.tolist())
    ]


def _block(
    source: Source, order: np.ndarray, held: list[dict[str, Any]], wide: bool
) -> dict[str, Any]:
    """Columns of the listed sequences, the worst first; `held` are the first of them. of: how many
    the pair has.
    """
    found = source.sequences
    return {
        "sides": source.pair.sides,
        "corpus": source.context.name,
        "kinds": KINDS,
        "shades": [float(np.log(ratio)) for ratio in SHADES],
        "wide": wide,
        "steps": STEPS,
        "depths": source.depths,
        "shown": [min(k, alternatives.SHOWN) for k in source.depths],
        "of": len(found.number),
        "number": found.number[order].tolist(),
        "tokens": (found.stop - found.start)[order].tolist(),
        "lost": found.lost[order].tolist(),
        "worst": source.tokens.position[found.worst[order]].tolist(),
        "total": _digits(found.total[order]),
        "mean": _digits(found.mean[order]),
        "largest": _digits(found.largest[order]),
        "held": held,
    }


def _digits(values: np.ndarray) -> list[float | None]:
    """Six of them; null where not finite."""
    return [float(f"{v:.6g}") if np.isfinite(v) else None for v in values.tolist()]


def _said(source: Source, room: int, listed: int, spans: list[_Span]) -> str:
    """The rule and what it left out, with the numbers."""
    total = len(source.sequences.number)
    bad = source.pair.nan_tokens or source.pair.inf_tokens
    first = "those with values that are not finite first, then " if bad else ""
    if len(spans) == total:
        said = f"All {count(total, 'sequence')}, {first}those with the largest |d| first."
    else:
        said = (
            f"{len(spans):,} of {count(total, 'sequence')} with their tokens, {first}those with "
            f"the largest |d| first, {_limit(room, listed - len(spans))}, "
            f"{total - listed:,} are not listed."
        )
    cut = sum(s.hidden > 0 for s in spans)
    if cut:
        most = max(len(s.ids) for s in spans if s.hidden)
        said += f" {count(cut, 'long sequence')} cut to {most:,} positions around the worst token."
    return said + "".join(
        _of_top(*asked) for asked in zip(source.pair.sides, source.depths, strict=True)
    )


def _limit(room: int, bare: int) -> str:
    """What ended it: the room, or the list, of which then every sequence has its tokens."""
    if not bare:
        return "as many as the list has"
    held = f"as many as {room / 1e6:.3g} MB of this page hold"
    return f"{held}; {bare:,} more are listed with their numbers alone"


def _of_top(side: str, depth: int) -> str:
    if not depth:
        return ""
    shown = f", {alternatives.SHOWN} shown" if depth > alternatives.SHOWN else ""
    return f" The {depth} likeliest tokens of {side} at each position{shown}."
