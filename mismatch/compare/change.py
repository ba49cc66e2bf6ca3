"""Is a gap another one than before? One pair in two runs, say before and after an upgrade.

Where both runs replayed the same ids, a sequence's difference is taken inside that sequence: the
sequences are resampled together and what they have in common cancels. Where the ids were drawn
anew, the sequences of both runs stand side by side in one bootstrap, each run's means over its own
alone: the variances add, as for any two independent samples.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from mismatch.compare import stats, trust
from mismatch.compare.metrics import (
    DEFINITIONS,
    DOMINATED,
    MAX_SHARE,
    Aligned,
    Tokens,
    finite,
    rows_of,
)
from mismatch.compare.stats import Estimate, Mean, Smooth, Statistic
from mismatch.glossary import MIN_SEQUENCES, NOT_TRUSTED, WHY_NOT_TRUSTED

#: What is compared, and which way is worse: +1 up, -1 down, 0 neither.
KEYS = {
    "abs_logprob_diff_mean": 1,
    "k3": 1,
    "excess.k3": 1,
    "logprob_diff_mean": 0,
    "prob_diff_mean": 1,
    "extreme_fraction_1.1": 1,
    "extreme_fraction_2": 1,
    "ess_token": -1,
    "ess_seq": -1,
}
WORSE, BETTER = "more than noise: worse", "more than noise: better"
CHANGED, CALM, UNKNOWN = "more than noise: changed", "not more than noise", "no evidence"

_FEW = f"an interval takes {MIN_SEQUENCES} sequences in each run"
_HEAVY = f"one sequence carries over {MAX_SHARE:.0%} of the weight"
_NO_FLOOR = (
    "a side has no floor in one of the runs, or lost tokens in it, or repeats itself bit for bit"
)

#: A difference is more than noise where chance alone makes one as large no more often.
MOST_CHANCE = 0.05


@dataclass(frozen=True, slots=True)
class Run:
    """One run's pair. floors: name -> side -> capture 1 against its other captures."""

    gap: Aligned
    floors: Mapping[str, Mapping[str, Sequence[Aligned]]]


def same_tokens(old: Aligned, new: Aligned) -> bool:
    """Whether both scored the same positions; that the ids are the same is told by the corpus."""
    return np.array_equal(old.sequence, new.sequence) and np.array_equal(old.position, new.position)


def change(
    old: Run, new: Run, *, paired: bool, seed: int = 0, resamples: int = 2000, draws: int = 2000
) -> dict[str, dict[str, Any]]:
    """key of KEYS -> {difference, ratio, chance, verdict, reason}: new - old and new / old.

    paired: both runs scored the same tokens of the same ids. The ratio is null where a metric may
    be negative, and without an interval where a run never showed the event. chance: of a difference
    as large where nothing changed. reason: why there is no evidence, else empty; a difference whose
    interval is not trusted is shown with it, and is no evidence.
    """
    if not paired:
        new = _apart(old, new)
    sides = _sides(old, new)
    wanted: dict[tuple[str, str], Statistic] = {}
    for key in KEYS:
        parts = [side.means(key) for side in sides]
        if all(parts):
            smooth, means = _smooth(key), tuple(m for part in parts for m in part or ())
            wanted[key, "difference"] = Statistic(means, _difference(smooth))
            wanted[key, "ratio"] = Statistic(means, _ratio(smooth))
    found = stats.bootstrap_t(wanted, seed=seed, resamples=resamples)

    def chance(key: str) -> float:
        return _chance(key, sides, paired, seed, draws)

    return {key: _told(key, found, sides, chance) for key in KEYS}


def _apart(old: Run, new: Run) -> Run:
    """New ids for the new run's sequences, none of which the old one has."""
    parts = [old.gap, *(a for side in old.floors.values() for s in side.values() for a in s)]
    after = 1 + max((int(p.sequence[-1]) for p in parts if len(p.sequence)), default=0)

    def moved(one: Aligned) -> Aligned:
        return replace(one, sequence=one.sequence.astype(np.int64) + after)

    floors = {
        name: {side: [moved(a) for a in several] for side, several in sides.items()}
        for name, sides in new.floors.items()
    }
    return Run(moved(new.gap), floors)


# ---------------------------------------------------------------- what each run brings


@dataclass(frozen=True, slots=True)
class _Side:
    """A run's tokens on the rows that both runs share. floors: None where there is no excess.
    shapes: of the gap, then of the floors."""

    tokens: Tokens
    floors: list[Tokens] | None
    shapes: list[trust.Shape]

    def means(self, key: str) -> tuple[Mean, ...] | None:
        """What `_smooth(key)` takes of this run; None where it has nothing of it."""
        if not len(self.tokens.left):
            return None
        if key != "excess.k3":
            return self.tokens.clusters.means(DEFINITIONS[key].columns(self.tokens))
        if self.floors is None:
            return None
        return tuple(t.clusters.means([t.k3])[0] for t in (self.tokens, *self.floors))

    def unseen(self, key: str) -> float:
        """How large a share may be of which this run saw no event; 0 where it saw one."""
        if not DEFINITIONS[key].event or np.any(DEFINITIONS[key].columns(self.tokens)[0]):
            return 0.0
        return stats.unseen(self.tokens.clusters.lengths.astype(float))


def _sides(old: Run, new: Run) -> tuple[_Side, _Side]:
    """(new, old), in the order of a difference."""
    runs = (new, old)
    floors = [_floor(run, _floor_name(old, new)) for run in runs]
    parts = [a for run in runs for a in (run.gap, *_all(run))]
    rows = rows_of(parts)
    made = []
    for run, several in zip(runs, floors, strict=True):
        tokens, _, _ = finite([run.gap], rows)
        kept = [finite(one, rows) for one in several or []]
        whole = bool(kept) and all(len(t.left) and not nan + inf for t, nan, inf in kept)
        against = [t for t, _, _ in kept] if whole else None
        shapes = [trust.shape(t.d, t.clusters) for t in (tokens, *(against or []))]
        made.append(_Side(tokens, against, shapes))
    return made[0], made[1]


def _all(run: Run) -> list[Aligned]:
    return [a for sides in run.floors.values() for several in sides.values() for a in several]


def _floor_name(old: Run, new: Run) -> str | None:
    """The batch floor where all four sides have it, else the repeat floor: like against like. A
    repeat that is bit-equal is no noise."""
    for name in ("batch", "repeat"):
        four = [run.floors.get(name, {}).get(s) for run in (old, new) for s in ("train", "infer")]
        if all(four) and (name == "batch" or all(map(_moves, four))):
            return name
    return None


def _moves(several: Sequence[Aligned] | None) -> bool:
    """Whether a finite token differs."""
    with np.errstate(invalid="ignore"):
        gaps = [one.lp_train - one.lp_infer for one in several or ()]
    return any(np.any(gap[np.isfinite(gap)]) for gap in gaps)


def _floor(run: Run, name: str | None) -> list[Sequence[Aligned]] | None:
    return None if name is None else [run.floors[name][side] for side in ("train", "infer")]


# ---------------------------------------------------------------- statistics of two runs


def _smooth(key: str) -> Smooth:
    """The metric itself of its means; `DEFINITIONS` studentises what it is mapped from."""
    if key == "excess.k3":
        return stats.linear(1.0, -0.5, -0.5)
    return _ess if key.startswith("ess_") else DEFINITIONS[key].statistic


def _ess(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """1 / (1 + cv²)."""
    cv2, by = stats.squared_cv(means)
    ess = 1 / (1 + cv2)
    return ess, -(ess**2)[..., None] * by


def _difference(smooth: Smooth) -> Smooth:
    """a - b, from the means of a, then those of b."""
    return _of_two(smooth, lambda a, b: (a - b, np.ones_like(a), -np.ones_like(b)))


def _ratio(smooth: Smooth) -> Smooth:
    """a / b, from the means of a, then those of b."""
    return _of_two(smooth, lambda a, b: (a / b, 1 / b, -a / b**2))


def _of_two(smooth: Smooth, join: Callable[[Any, Any], tuple[Any, Any, Any]]) -> Smooth:
    """What `join` makes of a metric of two runs.

    join: a, b -> value, and its derivatives by a and by b.
    """

    def of(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        (a, by_a), (b, by_b) = (smooth(half) for half in np.split(means, 2, axis=-1))
        value, of_a, of_b = (np.asarray(part) for part in join(a, b))
        return value, np.concatenate([of_a[..., None] * by_a, of_b[..., None] * by_b], axis=-1)

    return of


# ---------------------------------------------------------------- chance


def _chance(key: str, sides: tuple[_Side, _Side], paired: bool, seed: int, draws: int) -> float:
    """How often a difference at least as large comes up where which run is which is drawn by lot:
    inside each sequence where both runs have it, else over all sequences. Nothing is assumed of how
    heavy the tails are: where nothing changed, every such draw is as likely as what was seen
    (Fisher 1935; Good 2005), so that at most 1 in 20 samples comes out at 0.05 or less.
    """
    smooth, (new, old) = _lots(key, sides)
    rng = np.random.default_rng(seed)
    seen = abs(_gap(smooth, new.sum(axis=0), old.sum(axis=0))) * (1 - 1e-9)
    step = max(1, stats.CHUNK // len(new))
    larger = 0
    for first in range(0, draws, step):
        count = min(step, draws - first)
        if paired:
            swapped = rng.integers(2, size=(count, len(new))).astype(float)
            moved = swapped @ (old - new)
            one, other = new.sum(axis=0) + moved, old.sum(axis=0) - moved
        else:
            belongs = np.tile(new[:, -1] > 0, (count, 1))
            both = new + old
            one = rng.permuted(belongs, axis=1).astype(float) @ both
            other = both.sum(axis=0) - one
        larger += int(np.count_nonzero(~(np.abs(_gap(smooth, one, other)) < seen)))
    return (1 + larger) / (1 + draws)


def _lots(
    key: str, sides: tuple[_Side, _Side]
) -> tuple[Callable[[np.ndarray], np.ndarray], list[np.ndarray]]:
    """What makes the metric of K means, and for each side (S, 2K) sums and counts by sequence."""
    if not key.startswith("ess_"):
        means = [side.means(key) or () for side in sides]
        smooth = _smooth(key)
        return (lambda at: smooth(at)[0]), [_sums(m) for m in means]
    logs = [s.tokens.d if key == "ess_token" else s.tokens.log_ratio for s in sides]
    top = max(float(np.max(log)) for log in logs)
    weights = [np.exp(log - top) for log in logs]
    means = [side.tokens.clusters.means([w, w * w]) for side, w in zip(sides, weights, strict=True)]
    return (lambda at: at[..., 0] ** 2 / at[..., 1]), [_sums(m) for m in means]


def _sums(means: Sequence[Mean]) -> np.ndarray:
    return np.column_stack([*(m.sums for m in means), *(m.counts for m in means)])


def _gap(
    smooth: Callable[[np.ndarray], np.ndarray], one: np.ndarray, other: np.ndarray
) -> np.ndarray:
    """The metric of one side less that of the other, from their (..., 2K) sums and counts."""
    with np.errstate(all="ignore"):
        a, b = (
            smooth(sums / counts) for sums, counts in (np.split(x, 2, -1) for x in (one, other))
        )
    return np.asarray(a - b)


# ---------------------------------------------------------------- the verdict


def _told(
    key: str,
    found: Mapping[tuple[str, str], Estimate],
    sides: tuple[_Side, _Side],
    chance_of: Callable[[str], float],
) -> dict[str, Any]:
    raw = found.get((key, "difference"), Estimate(math.nan))
    reason = _why_unknown(key, raw, sides)
    if reason:
        told = {"difference": stats.as_json(Estimate(raw.value)), "ratio": None, "chance": None}
        return {**told, "verdict": UNKNOWN, "reason": reason}
    raw = _with_unseen(key, raw, sides)
    ratio = found.get((key, "ratio")) if KEYS[key] and key != "excess.k3" else None
    if ratio and any(side.unseen(key) for side in sides):
        ratio = Estimate(ratio.value)
    chance = chance_of(key)
    spoils = _spoiling(found.get(("k3", "difference"), raw), sides) if key == "excess.k3" else []
    difference = _marked(key, raw, sides, spoils)
    trusted = difference.get("trusted", True)
    return {
        "difference": difference,
        "ratio": None if ratio is None else _marked(key, ratio, sides),
        "chance": chance,
        "verdict": _verdict(key, raw, chance) if trusted else UNKNOWN,
        "reason": "" if trusted else f"{NOT_TRUSTED}: {WHY_NOT_TRUSTED}",
    }


def _spoiling(gaps: Estimate, sides: tuple[_Side, _Side]) -> list[trust.Shape]:
    """Of the floors that are large enough to matter beside the difference of the gaps."""
    least = trust.immaterial(gaps.low, gaps.high)
    floors = [pair for s in sides for pair in zip(s.floors or [], s.shapes[1:], strict=True)]
    return [shape for floor, shape in floors if not np.mean(floor.k3) < least]


def _marked(
    key: str, found: Estimate, sides: tuple[_Side, _Side], spoils: Sequence[trust.Shape] = ()
) -> dict[str, float | None]:
    """spoils: shapes of floors that an excess is made of too."""
    shapes = [side.shapes[0] for side in sides]
    return trust.marked(stats.as_json(found), key.removeprefix("excess."), [*shapes, *spoils])


def _with_unseen(key: str, raw: Estimate, sides: tuple[_Side, _Side]) -> Estimate:
    """An event that a run never showed is not known to be impossible in it."""
    if key == "excess.k3" or raw.low is None or raw.high is None:
        return raw
    of_new, of_old = (side.unseen(key) for side in sides)
    return Estimate(raw.value, raw.low - of_old, raw.high + of_new)


def _why_unknown(key: str, raw: Estimate, sides: tuple[_Side, _Side]) -> str:
    if any(side.shapes[0].sequences < MIN_SEQUENCES for side in sides):
        return _FEW
    if key == "excess.k3" and any(side.floors is None for side in sides):
        return _NO_FLOOR
    if key in DOMINATED and any(
        stats.largest_share(side.tokens.log_ratio) > MAX_SHARE for side in sides
    ):
        return _HEAVY
    if raw.low is None or raw.high is None or not math.isfinite(raw.low + raw.high):
        return "it has no interval on these sequences"
    return ""


def _verdict(key: str, raw: Estimate, chance: float) -> str:
    """Both must say so: the interval leaves out 0, and chance alone seldom does as much."""
    low, high = raw.low, raw.high
    assert low is not None
    assert high is not None
    if low <= 0 <= high or chance > MOST_CHANCE:
        return CALM
    up = KEYS[key] * (1 if low > 0 else -1)
    return {1: WORSE, -1: BETTER, 0: CHANGED}[up]
