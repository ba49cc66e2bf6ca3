"""From a request to captures and pairs: pure functions, no file and no process."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from mismatch.engines.base import Engine
from mismatch.model import TRAIN_PATH, Capture, Condition, Floor, PairSpec

#: Seed of the other order that the batch floor replays in.
FLOOR_SEED = 1


def batch_groups(order: Sequence[int], size: int | None) -> tuple[tuple[int, ...], ...]:
    """Sequence numbers in order, `size` to a call (None: all in one)."""
    step = size or max(1, len(order))
    return tuple(tuple(order[k : k + step]) for k in range(0, len(order), step))


def batch_size(engine: Engine, condition: Condition) -> int | None:
    """Sequences per call: the condition's, else the engine's own default."""
    batch = condition.options.get("batch", engine.batch)
    return batch if isinstance(batch, int) else None


def floor_size(engine: Engine, base: int | None, sequences: int) -> int:
    """Another batch size than the base, so that sequences meet other neighbours."""
    if base == engine.floor_batch:
        return 1
    if base is None and sequences <= engine.floor_batch:
        return max(1, sequences // 2)
    return engine.floor_batch


def captures(
    engine: Engine,
    condition: Condition,
    paths: Sequence[str],
    repeats: int,
    floor: Floor,
    sequences: int,
) -> list[Capture]:
    """All captures of one condition, in the order they run: a rollout first, others follow.

    A rollout is captured once; its repeats are forced decodes of the same ids.
    """
    base = batch_size(engine, condition)
    plain = batch_groups(range(sequences), base)
    order = np.random.default_rng(FLOOR_SEED).permutation(sequences).tolist()
    other = batch_groups(order, floor_size(engine, base, sequences))
    wanted: dict[str, Capture] = {}
    for path in paths:
        for name in (f"{path}-1", *repeat_names(path, repeats)):
            own = name.split("-")[0]
            wanted[name] = Capture(name, own, plain)
    if floor == "batch":
        for path in paths:
            name = batch_name(path)
            wanted[name] = Capture(name, name.split("-")[0], other)
    return sorted(wanted.values(), key=lambda c: c.path != "rollout")


def repeat_names(path: str, repeats: int) -> tuple[str, ...]:
    """The captures that repeat capture 1 of a path."""
    if path == "rollout":
        return tuple(f"decode-{k}" for k in range(1, repeats))
    return tuple(f"{path}-{k}" for k in range(2, repeats + 1))


def batch_name(path: str) -> str:
    """The capture of a path's ids in another batch composition."""
    return f"{'decode' if path == 'rollout' else path}-batch"


def pairs(
    train: Condition, infer: Condition, paths: Sequence[str], repeats: int, floor: Floor
) -> list[PairSpec]:
    """Train-infer pairs in the order of the paths, then each two paths of the engine."""
    across = [
        _pair(
            f"{train.id}~{infer.id}.{path}",
            "train-infer",
            path,
            (train, TRAIN_PATH),
            (infer, path),
            repeats,
            floor,
        )
        for path in paths
    ]
    within = [
        _pair(
            f"{infer.id}.{a}..{b}",
            "infer-infer",
            f"{a}..{b}",
            (infer, a),
            (infer, b),
            repeats,
            floor,
        )
        for a, b in combinations(paths, 2)
    ]
    return across + within


def _pair(
    name: str,
    kind: str,
    path: str,
    left: tuple[Condition, str],
    right: tuple[Condition, str],
    repeats: int,
    floor: Floor,
) -> PairSpec:
    floors: dict[str, dict[str, tuple[str, ...]]] = {}
    for slot, (condition, own) in (("train", left), ("infer", right)):
        again = repeat_names(own, repeats)
        if again:
            floors.setdefault("repeat", {})[slot] = tuple(f"{condition.id}/{n}" for n in again)
        if floor == "batch":
            floors.setdefault("batch", {})[slot] = (f"{condition.id}/{batch_name(own)}",)
    ends = [f"{condition.id}/{own}-1" for condition, own in (left, right)]
    return PairSpec(name, kind, path, ends[0], ends[1], floors)  # type: ignore[arg-type]
