"""A study as a request: the cells of its sides, and the corners that its attributions need."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace

from mismatch.capture import plan
from mismatch.capture.checkpoint import inspect
from mismatch.corners import ENGINE, End, corners, knobs_of
from mismatch.errors import suggest
from mismatch.model import (
    INFER_PATHS,
    TRAIN_PATH,
    AttributionSpec,
    Condition,
    Sampling,
    side_of,
)
from mismatch.study import Attribution, Study, pairs_of
from mismatch.study_file import bad_study
from mismatch.verbs.request import Cell, Request, choose_paths, read_ids, refusal


def of_study(study: Study) -> Request:
    """A study's cells: those of its sides, and the corners that its attributions need."""
    ids = read_ids(study.prompts, study.corpus, study.limit)
    cells = list(_cells(study))
    ends = pairs_of(study, {c.condition.id: c.paths for c in cells})
    attributions = tuple(_attribution(study, wanted, cells) for wanted in study.attributions)
    sampling = None
    if study.prompts is not None:
        sampling = Sampling(study.samples, study.max_tokens, study.seed)
    inspected = {name: inspect(folder) for name, folder in study.models.items()}
    asked = {
        "models": {name or "model": c.digest for name, c in inspected.items()},
        "conditions": {c.condition.id: c.condition.spec for c in cells},
        "paths": list(dict.fromkeys(p for c in cells if c.side == "infer" for p in c.paths)),
        "repeats": study.repeats,
        "floor": study.floor,
        "ids": ids.digest,
        "sampling": None
        if sampling is None
        else {**asdict(sampling), "drawn_by": study.rollout.id if study.rollout else None},
        "trust_remote_code": study.trust_remote_code,
    }
    return Request(
        asked={"verb": "study", **asked},
        checkpoints=inspected,
        cells=tuple(cells),
        pairs=tuple(plan.pair(e, study.repeats, study.floor) for e in ends),
        attributions=attributions,
        ids=ids,
        sampling=sampling,
        trust_remote_code=study.trust_remote_code,
        timeout_s=study.timeout_s,
    )


def _cells(study: Study) -> Iterator[Cell]:
    """The condition that draws the ids first; only it has a path rollout (given ids: recorded)."""
    for condition in sorted(study.sides["infer"], key=lambda c: c != study.rollout):
        draws = condition == study.rollout
        paths = choose_paths(study.paths, study.prompts is None, condition)
        own = tuple(p for p in paths if draws or study.rollout is None or p != "rollout")
        if not own:
            what = f"{condition.id} has no path: another condition draws the ids"
            raise bad_study(study.path, what, " Add decode or prefill to paths.")
        reason = refusal(condition)
        yield Cell(condition, "infer", own, study.repeats, study.floor, reason, draws)
    for condition in study.sides["train"]:
        reason = refusal(condition)
        yield Cell(condition, "train", (TRAIN_PATH,), study.repeats, study.floor, reason)


def _attribution(study: Study, wanted: Attribution, cells: list[Cell]) -> AttributionSpec:
    """The corners of an attribution; those that are no cell of the study yet become one."""
    ends = [_end(study, wanted, c) for c in (wanted.left, wanted.right)]
    knobs, folded = _knobs(study, wanted, ends[0], ends[1])
    traces = {}
    for name, corner in corners(ends[0], ends[1], knobs).items():
        _check_possible(study, wanted, corner, ends)
        cell = _add_corner(study, cells, corner, ends)
        traces[name] = f"{cell.condition.id}/{corner.path}-1"
    left, right = (e.condition.id for e in ends)
    return AttributionSpec(wanted.id, tuple(knobs), left, right, traces, tuple(folded))


def _end(study: Study, wanted: Attribution, condition: Condition) -> End:
    if condition in study.sides["train"]:
        return End(condition, TRAIN_PATH)
    if wanted.path not in INFER_PATHS[1:]:
        hint = f" Paths: {', '.join(INFER_PATHS[1:])}.{suggest(wanted.path, INFER_PATHS[1:])}"
        raise bad_study(study.path, f"attribution '{wanted.id}' has the path '{wanted.path}'", hint)
    return End(condition, wanted.path)


def _check_possible(study: Study, wanted: Attribution, corner: End, ends: Sequence[End]) -> None:
    """Options that exclude each other make a corner that no machine can take."""
    reason = corner.engine.contradiction(corner.condition)
    if reason is None:
        return
    what = f"attribution '{wanted.id}' needs {corner.condition.spec}, which exists on no machine"
    todo = " Choose ends without it, or drop the attribution."
    if corner not in ends and ENGINE in knobs_of(ends[0], ends[1]):
        todo = " Leave the option that does not fit out of knobs: engine, named there, carries it."
    raise bad_study(study.path, f"{what}: {reason}", todo)


def _knobs(study: Study, wanted: Attribution, left: End, right: End) -> tuple[list[str], list[str]]:
    """The knobs asked for, and the options left out of them, which engine then carries; an option
    that only one engine has may be made a knob of its own."""
    found = knobs_of(left, right)
    if not found:
        raise bad_study(study.path, f"the ends of attribution '{wanted.id}' do not differ")
    if wanted.knobs is None:
        return found, []
    twice = [k for k in wanted.knobs if wanted.knobs.count(k) > 1]
    if twice:
        what = f"attribution '{wanted.id}' names the knob '{twice[0]}' twice"
        raise bad_study(study.path, what, " Name each once.")
    missing = [k for k in found if k not in wanted.knobs]
    if missing and not (ENGINE in found and ENGINE in wanted.knobs):
        what = f"leaves out {', '.join(missing)}, in which its ends differ too"
        hint = " Name engine: it carries what is left out." if ENGINE in found else ""
        raise bad_study(study.path, f"attribution '{wanted.id}' {what}", hint)
    given = {**left.condition.options, **right.condition.options}
    unknown = [k for k in wanted.knobs if k not in found and k not in given]
    if unknown:
        hint = f" Knobs: {', '.join([*found, *given])}.{suggest(unknown[0], [*found, *given])}"
        raise bad_study(study.path, f"attribution '{wanted.id}' has no knob '{unknown[0]}'", hint)
    return list(wanted.knobs), missing


def _add_corner(study: Study, cells: list[Cell], corner: End, ends: Sequence[End]) -> Cell:
    """The cell whose condition is the corner's, or a new one, taken on this path alone."""
    at = _place(cells, corner, ends)
    if at is not None:
        if corner.path not in cells[at].paths:
            cells[at] = replace(cells[at], paths=(*cells[at].paths, corner.path))
        return cells[at]
    condition = _named(corner)
    taken = [c.condition for c in cells if c.condition.id == condition.id]
    if taken:
        what = f"the corner {condition.spec} has the id of {taken[0].spec}"
        raise bad_study(study.path, what, " Give that condition another id.")
    reason = refusal(condition)
    cells.append(Cell(condition, side_of(corner.path), (corner.path,), 1, "none", reason))
    return cells[-1]


def _place(cells: Sequence[Cell], corner: End, ends: Sequence[End]) -> int | None:
    """Where the corner's cell stands; of several with the same options the one that is an end."""
    key = (corner.condition.engine, corner.condition.options)
    alike = [
        at
        for at, cell in enumerate(cells)
        if (cell.condition.engine, cell.condition.options) == key
        and cell.side == side_of(corner.path)
    ]
    wanted = [corner.condition.id, *(e.condition.id for e in ends)]
    ranked = sorted(alike, key=lambda at: _rank(cells[at].condition.id, wanted))
    return ranked[0] if ranked else None


def _rank(name: str, wanted: Sequence[str]) -> int:
    return wanted.index(name) if name in wanted else len(wanted)


def _named(corner: End) -> Condition:
    """An engine that can stand on both sides may have the same corner on each: two captures under
    one id could not be told apart, so that the id says the side."""
    condition, sides = corner.condition, {side_of(path) for path in corner.engine.paths}
    if len(sides) == 1:
        return condition
    return replace(condition, name=f"{condition.id}-{side_of(corner.path)}")
