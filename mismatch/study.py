"""study.toml -> conditions, pairs and attributions; the engines' own tables check the values.

A side's table gives one engine and its options; a list is an axis, and a side's conditions are the
product of its axes. `[[condition]]` adds one by its text. Every name is checked, and whatever
matches nothing is an error with a suggestion: a study that silently compares less than was asked
would be read as one that compared all of it.
"""

from __future__ import annotations

import fnmatch
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mismatch.engines import find_for, parse_condition, parse_option
from mismatch.errors import MismatchError, suggest
from mismatch.model import (
    INFER_PATHS,
    TRAIN_PATH,
    Condition,
    Ends,
    Floor,
    OptionValue,
    Side,
    given_path,
    option_text,
    side_of,
)
from mismatch.study_file import AttributionTable, Axes, StudyFile, bad_study, parse


@dataclass(frozen=True, slots=True)
class Attribution:
    """Two end conditions whose gap is to be shared out among the knobs in which they differ."""

    id: str
    left: Condition
    right: Condition
    path: str
    knobs: tuple[str, ...] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """What a study file asks for, with its names resolved.

    models: name -> checkpoint folder; "" is the study's own. sides: the conditions of each side, in
    order. rollout: the infer condition that draws the ids (None: they are given). pairs: None means
    every train condition against every infer condition.
    """

    path: Path
    models: Mapping[str, Path]
    prompts: Path | None
    corpus: Path | None
    paths: tuple[str, ...] | None
    repeats: int
    floor: Floor
    samples: int
    max_tokens: int
    seed: int
    limit: int | None
    timeout_s: float
    trust_remote_code: bool
    rollout: Condition | None
    sides: Mapping[Side, tuple[Condition, ...]]
    pairs: tuple[tuple[str, str, str | None], ...] | None
    attributions: tuple[Attribution, ...]


def in_small(study: Study) -> Study:
    """Enough of a study to see that nothing is broken: few prompts, short, once, no floors."""
    return replace(
        study,
        limit=min(study.limit or SMALL, SMALL),
        max_tokens=min(study.max_tokens, 64),
        samples=1,
        repeats=1,
        floor="none",
        attributions=(),
    )


#: Sequences of a study in small: from 8 on there are intervals.
SMALL = 16


def read_study(path: Path) -> Study:
    """Read and check a study file; every error names the file and the key."""
    raw = parse(path)
    _check_paths(path, raw)
    sides: dict[Side, tuple[Condition, ...]] = {
        "train": _side(path, "train", raw),
        "infer": _side(path, "infer", raw),
    }
    _exclude(path, raw, sides)
    _check_ids(path, sides)
    everything = [c for conditions in sides.values() for c in conditions]
    _check_models(path, raw, everything)
    _check_attributions(path, raw)
    return Study(
        path=path,
        models={
            name: _beside(path, folder) for name, folder in {**raw.models, "": raw.model}.items()
        },
        prompts=None if raw.prompts is None else _beside(path, raw.prompts),
        corpus=None if raw.corpus is None else _beside(path, raw.corpus),
        paths=None if raw.paths is None else tuple(raw.paths),
        repeats=raw.repeats,
        floor=raw.floor,
        samples=raw.samples,
        max_tokens=raw.max_tokens,
        seed=raw.seed,
        limit=raw.limit,
        timeout_s=float(raw.timeout),
        trust_remote_code=raw.trust_remote_code,
        rollout=_sampler(path, raw, sides["infer"]),
        sides=sides,
        pairs=tuple((p.left, p.right, p.path) for p in raw.pair) or None,
        attributions=tuple(_attribution(path, a, everything) for a in raw.attribute),
    )


def _beside(study: Path, given: str) -> Path:
    """A relative path of a study starts at its file."""
    return given_path(study.parent / given)


# ---------------------------------------------------------------- conditions


def _side(path: Path, side: Side, raw: StudyFile) -> tuple[Condition, ...]:
    """The product of a side's axes, then its explicit conditions."""
    given: Axes | list[Axes] = getattr(raw, side)
    tables = given if isinstance(given, list) else [given]
    made = [c for number, axes in enumerate(tables, 1) for c in _product(path, side, number, axes)]
    for number, extra in enumerate(raw.condition, 1):
        if extra.side == side:
            with _named(path, f"[[condition]] number {number}"):
                made.append(replace(parse_condition(extra.spec, path.parent), name=extra.id))
    if not made:
        raise bad_study(path, f"it has no condition on the {side} side", f" Add a [{side}] table.")
    return tuple(made)


def _product(path: Path, side: Side, number: int, axes: Axes) -> Iterator[Condition]:
    name = axes.get("engine")
    if not isinstance(name, str):
        raise bad_study(path, f"[{side}] number {number} names no engine", ' Write engine = "hf".')
    with _named(path, f"[{side}]"):
        engine = find_for(name, axes)
    values: dict[str, list[OptionValue]] = {}
    for option, given in axes.items():
        if option == "engine":
            continue
        choices = given if isinstance(given, list) else [given]
        if not choices:
            raise bad_study(path, f"axis {option} of [{side}] has no value")
        with _named(path, f"[{side}]"):
            values[option] = [
                parse_option(engine, option, option_text(value), path.parent) for value in choices
            ]
    _check_size(path, side, math.prod(map(len, values.values())))
    for chosen in itertools.product(*values.values()):
        yield Condition(engine.name, dict(zip(values, chosen, strict=True)))


#: Conditions that one table may make. Each is captured by itself, and a list too many in a row of
#: axes soon asks for more than any machine holds.
MOST_CONDITIONS = 1000


def _check_size(path: Path, side: Side, count: int) -> None:
    if count > MOST_CONDITIONS:
        what = f"the axes of [{side}] make {count:,} conditions; {MOST_CONDITIONS:,} is the most"
        raise bad_study(path, what, " Leave out values, or write the conditions that you mean.")


@contextmanager
def _named(path: Path, table: str) -> Iterator[None]:
    """What an engine's own tables refuse, with the file and the table where it stands."""
    try:
        yield
    except MismatchError as reason:
        said = f"{table}: {reason.message.rstrip('.')}"
        raise bad_study(path, said, f" {reason.hint}") from None


def _exclude(path: Path, raw: StudyFile, sides: dict[Side, tuple[Condition, ...]]) -> None:
    """Drop the conditions that have all of an exclude's options; to drop none is an error."""
    for number, rule in enumerate(raw.exclude, 1):
        wanted = {k: option_text(v) for k, v in rule.items()}
        side = wanted.pop("side", None)
        dropped = 0
        for name in [s for s in sides if side in (None, s)]:
            kept = tuple(c for c in sides[name] if not _has_all(c, wanted))
            dropped += len(sides[name]) - len(kept)
            sides[name] = kept
        if not dropped:
            what = f"exclude number {number} ({rule}) matches no condition"
            raise bad_study(path, what, _why_none(side, wanted, sides))
    for name, left in sides.items():
        if not left:
            raise bad_study(path, f"the excludes leave no condition on the {name} side")


def _why_none(
    side: str | None, wanted: Mapping[str, str], sides: Mapping[Side, tuple[Condition, ...]]
) -> str:
    """What in an exclude fits nothing, with a suggestion; else the conditions that there are."""
    if side is not None and side not in sides:
        return f" Sides: {', '.join(sides)}.{suggest(side, sides)}"
    everything = [c for name in sides if side in (None, name) for c in sides[name]]
    for key, value in wanted.items():
        has = [{"engine": c.engine, **c.options} for c in everything]
        values = sorted({option_text(o[key]) for o in has if key in o})
        if not values:
            keys = sorted({k for o in has for k in o})
            return f" No condition has '{key}'.{suggest(key, keys)} They have {', '.join(keys)}."
        if value not in values:
            return f" {key} is {', '.join(values)}.{suggest(value, values)}"
    return f" Conditions: {', '.join(c.spec for c in everything)}."


def _has_all(condition: Condition, wanted: Mapping[str, str]) -> bool:
    has = {"engine": condition.engine} | {k: option_text(v) for k, v in condition.options.items()}
    return all(has.get(k) == v for k, v in wanted.items())


def _check_ids(path: Path, sides: Mapping[Side, tuple[Condition, ...]]) -> None:
    seen: dict[str, Condition] = {}
    for condition in (c for conditions in sides.values() for c in conditions):
        if condition.id in seen:
            raise bad_study(
                path,
                f"two conditions have the id '{condition.id}': {seen[condition.id].spec} and "
                f"{condition.spec}",
                " Give one of them another id, or drop it.",
            )
        seen[condition.id] = condition


def _check_paths(path: Path, raw: StudyFile) -> None:
    if raw.paths == []:
        raise bad_study(path, "'paths' names no path", f" Paths: {', '.join(INFER_PATHS)}.")
    for name in (p for p in raw.paths or () if p not in INFER_PATHS):
        near = suggest(name, INFER_PATHS)
        hint = " The train side is always scored." if name == TRAIN_PATH else near
        raise bad_study(
            path, f"'paths' has no path '{name}'", f" Paths: {', '.join(INFER_PATHS)}.{hint}"
        )


def _check_models(path: Path, raw: StudyFile, conditions: Sequence[Condition]) -> None:
    for condition in conditions:
        name = condition.options.get("model")
        if name is not None and name not in raw.models:
            hint = suggest(str(name), raw.models)
            raise bad_study(path, f"[models] has no '{name}' ({condition.id} asks for it)", hint)


def _check_attributions(path: Path, raw: StudyFile) -> None:
    ids = [a.id for a in raw.attribute]
    for name in ids:
        if ids.count(name) > 1:
            raise bad_study(path, f"two attributions have the id '{name}'", " Give each an id.")


def one_condition(path: Path, key: str, pattern: str, conditions: Sequence[Condition]) -> Condition:
    """The one condition of that id; an id may be written as a pattern that only it matches.

    key: where the pattern stands in the file.
    """
    found = matching(path, key, pattern, conditions)
    if len(found) > 1:
        ids = ", ".join(c.id for c in found)
        what = f"{key} '{pattern}' matches {len(found)} conditions where one is meant"
        raise bad_study(path, what, f" They are {ids}.")
    return found[0]


def matching(
    path: Path, key: str, pattern: str, conditions: Sequence[Condition]
) -> list[Condition]:
    """The conditions whose id matches (fnmatch); none is an error with a suggestion."""
    found = [c for c in conditions if fnmatch.fnmatchcase(c.id, pattern)]
    if not found:
        ids = [c.id for c in conditions]
        raise bad_study(
            path,
            f"{key} '{pattern}' matches no condition",
            f" Conditions: {', '.join(ids)}.{suggest(pattern, ids)}",
        )
    return found


def _sampler(path: Path, raw: StudyFile, infer: Sequence[Condition]) -> Condition | None:
    if raw.prompts is None:
        if raw.rollout is not None:
            raise bad_study(
                path, "'rollout' names who draws the ids, but the ids are given (corpus)"
            )
        return None
    return infer[0] if raw.rollout is None else one_condition(path, "rollout", raw.rollout, infer)


def _attribution(path: Path, raw: AttributionTable, conditions: Sequence[Condition]) -> Attribution:
    known = (*INFER_PATHS[1:], TRAIN_PATH)
    if raw.path not in known:
        hint = f" Paths: {', '.join(known)}.{suggest(raw.path, known)}"
        raise bad_study(path, f"attribution '{raw.id}' has the path '{raw.path}'", hint)
    left, right = (
        one_condition(path, f"{key} of attribution '{raw.id}'", end, conditions)
        for key, end in (("left", raw.left), ("right", raw.right))
    )
    knobs = None if raw.knobs is None else tuple(raw.knobs)
    return Attribution(raw.id, left, right, raw.path, knobs)


# ---------------------------------------------------------------- pairs


def pairs_of(study: Study, paths: Mapping[str, Sequence[str]]) -> list[Ends]:
    """The ends of every pair, train-infer first. paths: condition id -> the paths it takes."""
    train, infer = study.sides["train"], study.sides["infer"]
    if study.pairs is None:
        return default_pairs(train, infer, paths)
    everything = [*train, *infer]
    found: dict[frozenset[tuple[str, str]], Ends] = {}  # a pair is the same from either end
    for left, right, path in study.pairs:
        lefts, rights = (
            matching(study.path, f"{key} of a pair", pattern, everything)
            for key, pattern in (("left", left), ("right", right))
        )
        made = [e for a in lefts for b in rights if a != b for e in _ends(a, b, paths, path)]
        if not made:
            at = f" on path {path}" if path else ""
            raise bad_study(
                study.path,
                f"pair '{left}' against '{right}'{at} has nothing to compare",
                f" Paths taken: {'; '.join(_taken(c, paths) for c in [*lefts, *rights])}."
                f"{suggest(path or '', INFER_PATHS)}",
            )
        for ends in made:
            found.setdefault(_both(ends), ends)
    return sorted(found.values(), key=lambda e: side_of(e.left_path) == side_of(e.right_path))


def _both(ends: Ends) -> frozenset[tuple[str, str]]:
    return frozenset({(ends.left.id, ends.left_path), (ends.right.id, ends.right_path)})


def _taken(condition: Condition, paths: Mapping[str, Sequence[str]]) -> str:
    return f"{condition.id} {', '.join(paths[condition.id])}"


def default_pairs(
    train: Sequence[Condition], infer: Sequence[Condition], paths: Mapping[str, Sequence[str]]
) -> list[Ends]:
    """Every train condition against every infer condition on each path, then the paths of each
    infer condition against each other."""
    order = dict.fromkeys(p for c in infer for p in paths[c.id])
    across = [
        Ends(t, TRAIN_PATH, i, path)
        for path in order
        for t in train
        for i in infer
        if path in paths[i.id]
    ]
    within = [Ends(c, a, c, b) for c in infer for a, b in itertools.combinations(paths[c.id], 2)]
    return across + within


def _ends(
    left: Condition, right: Condition, paths: Mapping[str, Sequence[str]], path: str | None
) -> Iterator[Ends]:
    """The train side is always left; two of one side are compared on the same path."""
    if TRAIN_PATH in paths[right.id] and TRAIN_PATH not in paths[left.id]:
        left, right = right, left
    for own in paths[right.id]:
        if path not in (None, own):
            continue
        if TRAIN_PATH in paths[left.id]:
            yield Ends(left, TRAIN_PATH, right, own)
        elif own in paths[left.id]:
            yield Ends(left, own, right, own)
