"""From a request to captures and pairs: pure functions, no file and no process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mismatch.engines.base import Engine
from mismatch.model import Capture, Condition, Ends, Floor, PairSpec, Task, side_of

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


def floor_size(engine: Engine, base: int | None, sequences: int) -> int | None:
    """Another batch size than the base, so that sequences meet other neighbours; None where there
    is no other (one sequence).
    """
    own = min(base or sequences, sequences)
    if sequences < 2:
        return None
    other = min(engine.floor_batch, sequences)
    if own != other:
        return other
    return 1 if base == engine.floor_batch else max(1, own // 2)


def tasks(
    engine: Engine,
    condition: Condition,
    paths: Sequence[str],
    repeats: int,
    floor: Floor,
    sequences: int,
) -> list[Task]:
    """All captures of one condition, in the order they run: a rollout first, others follow.

    A rollout is captured once; its repeats are forced decodes of the same ids, where the engine can
    force any.
    """
    base = batch_size(engine, condition)
    plain = batch_groups(range(sequences), base)
    order = np.random.default_rng(FLOOR_SEED).permutation(sequences).tolist()
    other = floor_size(engine, base, sequences)
    wanted: dict[str, Capture] = {}
    for path in paths:
        for name in (f"{path}-1", *repeat_names(path, repeats)):
            own = name.split("-")[0]
            wanted[name] = Capture(name, own, plain)
    if floor == "batch" and other is not None:
        for path in paths:
            name = batch_name(path)
            wanted[name] = Capture(name, name.split("-")[0], batch_groups(order, other))
    able = (c for c in wanted.values() if c.path in engine.default_paths | set(paths))
    ordered = sorted(able, key=lambda c: c.path != "rollout")
    return [Task(condition, capture) for capture in ordered]


def repeat_names(path: str, repeats: int) -> tuple[str, ...]:
    """The captures that repeat capture 1 of a path."""
    if path == "rollout":
        return tuple(f"decode-{k}" for k in range(1, repeats))
    return tuple(f"{path}-{k}" for k in range(2, repeats + 1))


def batch_name(path: str) -> str:
    """The capture of a path's ids in another batch composition."""
    return f"{'decode' if path == 'rollout' else path}-batch"


def pair(ends: Ends, repeats: int, floor: Floor) -> PairSpec:
    """Two ends as the pair of captures that is compared, with the captures of its floors."""
    sides = ((ends.left, ends.left_path), (ends.right, ends.right_path))
    floors: dict[str, dict[str, tuple[str, ...]]] = {}
    for slot, (condition, path) in zip(("train", "infer"), sides, strict=True):
        again = repeat_names(path, repeats)
        if again:
            floors.setdefault("repeat", {})[slot] = tuple(f"{condition.id}/{n}" for n in again)
        if floor == "batch":
            floors.setdefault("batch", {})[slot] = (f"{condition.id}/{batch_name(path)}",)
    traces = [f"{condition.id}/{path}-1" for condition, path in sides]
    both = ends.left.id if ends.left == ends.right else f"{ends.left.id}~{ends.right.id}"
    return pair_of(both, [path for _, path in sides], traces, floors)


def pair_of(
    both: str,
    paths: Sequence[str],
    traces: Sequence[str],
    floors: Mapping[str, Mapping[str, tuple[str, ...]]],
) -> PairSpec:
    """A pair named by its conditions (`both`) and its paths; left is the train side if one is.

    An end is no floor of its own gap: forced decodes repeat the rollout, but where one of them is
    what the rollout is held against, it would be subtracted from itself.
    """
    left, right = (side_of(path) for path in paths)
    across = left != right
    path = paths[1] if across else f"{paths[0]}..{paths[1]}"
    kind = "train-infer" if across else f"{left}-{right}"
    others: dict[str, dict[str, tuple[str, ...]]] = {}
    for name, slots in floors.items():
        for slot, captures in slots.items():
            if kept := tuple(c for c in captures if c not in traces):
                others.setdefault(name, {})[slot] = kept
    return PairSpec(f"{both}.{path}", kind, path, traces[0], traces[1], others)  # type: ignore[arg-type]
