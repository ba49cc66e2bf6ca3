"""L1: is each value about the token it stands beside?

Ids and masks are compared where two traces are laid on each other (compare.align); here are the
mistakes that leave them equal: a shift, values of another row, duplicated rows, placeholders and
padding that are counted, and worst tokens that sit at the edges of the mask.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.stats import binom

from mismatch.compare.preflight.evidence import Evidence, Row, Side, failed, passed

RUNG = "L1 tokens"
SHIFTS = (-2, -1, 1, 2)
#: A sequence must be this long, and this far off in mean |d| (nats), to be said to be misplaced.
#: Rounding alone reaches 0.05 in bf16, a shift 0.3 and more.
LONG, FAR = 16, 0.15
#: Moved to its right place, the same sequence must be this much nearer.
NEARER = 0.25
WORST = 128
#: More sequences that are far off are not searched for each other's values: all against all.
MOST_ROWS = 256
#: A run of one id at the end of a row is padding from this length on.
PADDED = 4
#: A whole response drawn twice by chance is less likely than exp(-20).
SURPRISE = 20.0


def calm(e: Evidence) -> Row:
    return passed(
        RUNG,
        "no shift of -2..+2, no row swapped or twice, no placeholder or padding, worst "
        f"{_worst(e)} tokens not at the edges of the mask ({len(e.rows)} sequences)",
    )


# ---------------------------------------------------------------- a shift


def shifted(e: Evidence) -> Iterator[Row]:
    """The scan over each sequence by itself: a shift may be in some rows only."""
    best = [_best_shift(e, row) for row in e.rows]
    moved = [(k, row) for k, row in zip(best, e.rows, strict=True) if k]
    if not moved:
        return
    shifts = [k for k, _ in moved]
    k = max(set(shifts), key=shifts.count)
    rows = [row for by, row in moved if by == k]
    stands = np.mean([_off(e, row, 0) for row in rows])
    moves = np.mean([_off(e, row, k) for row in rows])
    yield failed(
        RUNG,
        "shift",
        f"shifted by {abs(k)}: in {len(rows)} of {len(e.rows)} sequences the value of "
        f"{e.right.name} that belongs to a token stands {abs(k)} {'later' if k > 0 else 'earlier'}"
        f" (mean |d| {stands:.3g} nats as it stands, {moves:.2g} moved)",
        "The value at t must be of the token at t given those before it: check the off-by-one of "
        "logits against labels, on one side alone.",
    )


def _best_shift(e: Evidence, row: slice) -> int:
    """0, or the shift at which a sequence that is far off comes near."""
    if not _is_far(e, row):
        return 0
    stands = _off(e, row, 0)
    off = {k: _off(e, row, k) for k in SHIFTS}
    k = min(off, key=lambda by: off[by])
    return k if off[k] < NEARER * stands else 0


def _is_far(e: Evidence, row: slice) -> bool:
    """Whether a sequence is long enough, finite and so far off that it may be misplaced."""
    is_whole = row.stop - row.start >= LONG and bool(e.finite[row].all())
    return is_whole and float(np.mean(np.abs(e.d[row]))) >= FAR


def _off(e: Evidence, row: slice, k: int) -> float:
    """Mean |left[t] - right[t + k]| over a sequence."""
    one, other = e.left.logprob[row], e.right.logprob[row]
    one, other = (one[: len(one) - k], other[k:]) if k >= 0 else (one[-k:], other[:k])
    return float(np.mean(np.abs(one.astype(np.float64) - other)))


# ---------------------------------------------------------------- values of another row


def rows_swapped(e: Evidence) -> Iterator[Row]:
    """Sequences that are far from their own values and near to another sequence's."""
    rows = [row for row in e.rows if _is_far(e, row)][:MOST_ROWS]
    pairs = [(i, j) for i, row in enumerate(rows) for j in [_elsewhere(e, row, i, rows)] if j >= 0]
    if not pairs:
        return
    first = rows[pairs[0][0]], rows[pairs[0][1]]
    names = [int(e.sequence[row.start]) for row in first]
    yield failed(
        RUNG,
        "rows",
        f"rows swapped: {len(pairs)} of {len(e.rows)} sequences fit another sequence's values; "
        f"those of sequence {names[0]} on {e.left.name} are those of {names[1]} on {e.right.name}",
        "Keep rows in one order from the rollout to the trainer: sort by an id, not by arrival.",
    )


def _elsewhere(e: Evidence, row: slice, own: int, rows: list[slice]) -> int:
    """The row whose right values fit this one's left values much better; -1 for none."""
    mine = e.left.logprob[row].astype(np.float64)
    stands = float(np.mean(np.abs(e.d[row])))
    off = [_apart(mine, e.right.logprob[other]) for other in rows]
    j = int(np.argmin(off))
    return j if j != own and off[j] < NEARER * stands else -1


def _apart(one: np.ndarray, other: np.ndarray) -> float:
    """Mean distance over what both have: rows that were swapped were cut to the mask's length."""
    n = min(len(one), len(other))
    return float(np.mean(np.abs(one[:n] - other[:n]))) if n >= LONG else np.inf


# ---------------------------------------------------------------- rows that are there twice


def duplicated(e: Evidence) -> Iterator[Row]:
    """Equal ids are chance only where the response is likely enough to be drawn twice."""
    seen: dict[tuple[bytes, bytes], int] = {}
    copies = []
    starts = {int(e.sequence[row.start]): row for row in e.rows}
    for k, row in starts.items():
        key = e.ids[k].tobytes(), e.position[row].tobytes()  # a turn each is no copy
        surprise = -float(np.sum(e.right.logprob[row][e.finite[row]], dtype=np.float64))
        if key in seen and surprise > SURPRISE:
            copies.append((seen[key], k))
        seen.setdefault(key, k)
    if copies:
        one, other = copies[0]
        yield failed(
            RUNG,
            "duplicates",
            f"duplicated sequences: {len(copies)} of {len(e.rows)} are there before with the same "
            f"ids, sequence {other} is sequence {one}; intervals would take them for evidence",
            "Import each rollout once: a resumed trainer appends to the file of its first run. A "
            "greedy rollout (top_k=1) is the same each time: draw one sample of a prompt.",
        )


# ---------------------------------------------------------------- placeholders and padding


def filled_in(e: Evidence) -> Iterator[Row]:
    """Values that no model gave: a tail of one id with one number under it, or one number that is
    repeated where the other side has real ones.
    """
    for side in e.sides:
        bad = _constant_tails(e, side)
        if bad.any():
            yield failed(
                RUNG,
                "padding",
                f"padding counted: {int(bad.sum())} scored tokens at the ends of rows repeat one "
                f"id and have the placeholder {side.logprob[bad][0]:g} on {side.name}",
                "Take the attention mask into the loss mask: padding was never drawn.",
            )
            return
    for side in e.sides:
        bad = _placeholders(e, side)
        if bad.any():
            place = "before the response" if _at_the_head(e, bad) else "in the mask"
            yield failed(
                RUNG,
                "mask",
                f"mask contamination: {int(bad.sum())} scored tokens {place} have the placeholder "
                f"{side.logprob[bad][0]:g} on {side.name} and real values on the other side",
                "Score only tokens that the rollout drew: shift and cut the loss mask with the "
                "log-probabilities.",
            )
            return


def _placeholders(e: Evidence, side: Side) -> np.ndarray:
    """(n,) tokens that have the side's commonest value, while the other side is over 1 nat off.

    A value is a placeholder where such tokens are common at it and rare at all others.
    """
    nothing = np.zeros(len(e.d), bool)
    far = e.finite & (np.abs(e.d) > 1)
    if far.sum() < 8:
        return nothing
    values, counts = np.unique(side.logprob[far], return_counts=True)
    at = side.logprob == values[np.argmax(counts)]
    bad = far & at
    elsewhere = (far & ~at).sum() / max(1, (~at).sum())
    few = bad.sum() < 8 or bad.sum() < 0.5 * far.sum() or bad.sum() / at.sum() < 5 * elsewhere
    return nothing if few else np.asarray(bad)


def _at_the_head(e: Evidence, bad: np.ndarray) -> bool:
    """Whether most rows with such a token begin with one."""
    return int(sum(bad[row.start] for row in e.rows)) > 0.5 * sum(bad[row].any() for row in e.rows)


def _constant_tails(e: Evidence, side: Side) -> np.ndarray:
    """(n,) runs of one id that end a row and have one and the same value; the first of a run may be
    the row's own last token (an end of text, with which trainers pad too).

    A model that loops needs a few tokens to become certain; padding has its value at once.
    """
    found: dict[int, list[slice]] = {}
    for row in e.rows:
        ids, values = e.token_id[row], side.logprob[row]
        run = _run(ids)
        run -= bool(run and values[-run] != values[-1])
        if PADDED <= run < len(ids) and np.ptp(values[-run:]) == 0:
            found.setdefault(int(ids[-1]), []).append(slice(row.stop - run, row.stop))
    bad = np.zeros(len(e.d), bool)
    for places in found.values():
        if len(places) > 1:
            for place in places:
                bad[place] = True
    return bad


def _run(ids: np.ndarray) -> int:
    """How long the last id is repeated at the end."""
    other = np.flatnonzero(ids != ids[-1])
    return len(ids) - (int(other[-1]) + 1 if len(other) else 0)


# ---------------------------------------------------------------- the edges of the mask


def _worst(e: Evidence) -> int:
    """How many tokens are looked at: 128; less where there are few tokens, or few edges."""
    return min(WORST, len(e.d) // 20, max(8, int(_edges(e).sum()) // 2))


def _edges(e: Evidence) -> np.ndarray:
    """(n,) tokens that begin or end a stretch of scored ones."""
    return np.asarray(e.run_starts | np.append(e.run_starts[1:], True))


def at_the_edges(e: Evidence) -> Iterator[Row]:
    """Do the worst tokens sit where a stretch of scored tokens begins or ends?"""
    count = _worst(e)
    if count < 8:
        return
    edge, size = _edges(e), np.abs(e.d)
    worst = np.argsort(-size, kind="stable")[:count]
    worst = worst[size[worst] > 0]
    hits, base = int(edge[worst].sum()), float(edge.mean())
    inner = float(np.sqrt(np.mean(e.d[~edge] ** 2))) if (~edge).any() else 0.0
    typical = float(np.median(size[worst[edge[worst]]])) if hits else 0.0
    unlikely = binom.sf(hits - 1, len(worst), base) < 1e-6
    if hits > 0.5 * len(worst) and unlikely and typical > max(10 * inner, 0.1):
        yield failed(
            RUNG,
            "edges",
            f"mask contamination: {hits} of the worst {len(worst)} tokens begin or end a scored "
            f"stretch, where {base:.1%} of all tokens lie; median |d| there {typical:.3g} nats, "
            f"root mean square elsewhere {inner:.2g}",
            "Look at the mask's first and last tokens: an off-by-one, a turn's header, padding.",
        )
