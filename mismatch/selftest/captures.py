"""What the self-test takes from real engines: a rollout, and the same ids under damage.

Three studies, written into the output folder as anybody would write them. The infer engine draws
the ids; the clean train engine scores all positions of them, with padding behind each row, so that
masks can be put wrong later on real values; damaged engines score the first of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import store
from mismatch.compare.preflight import weights
from mismatch.engines import find, parse_condition
from mismatch.engines.base import this_machine
from mismatch.errors import MismatchError
from mismatch.selftest.exhibit import Exhibit, Rows, read_values
from mismatch.selftest.faults import Fault
from mismatch.study import read_study
from mismatch.verbs.grid import of_study
from mismatch.verbs.run import Notify
from mismatch.verbs.run import capture as capture_cells

PAD = 8  # tokens of padding behind each row
LONGEST = 96  # tokens of a rollout
PROMPTS = 24  # of the file, from its first
CLEAN = "clean"
L0 = weights.RUNG
#: Sequences that faults are shown on, and those whose prompt has a token more for the trainer.
SHOWN, DRIFTED = 48, 24


@dataclass(frozen=True)
class Damaged:
    """A condition that breaks an engine, beside the clean one it is shown as.

    side: where it stands. adds: options beside the clean condition's. against: the condition of
    the other end, where that is not the clean one. blind: the values alone are shown, under the
    clean condition's facts.
    """

    side: str
    adds: str
    against: str = CLEAN
    blind: bool = False


HF: dict[Fault, Damaged] = {
    Fault("wrong temperature", ("temperature",)): Damaged("train", "temperature=0.7", blind=True),
    Fault("stale weights (4 optimiser steps)", ("weights",), L0): Damaged("train", "damage=steps"),
    Fault("another checkpoint", ("weights",)): Damaged("train", "damage=other"),
    Fault("one layer's log-sum-exp permuted"): Damaged("train", "damage=lse"),
    Fault("rope base off"): Damaged("train", "damage=rope"),
    Fault("logits rounded to bf16"): Damaged(
        "train", "dtype=fp32,damage=logits", against="dtype=fp32"
    ),
}
VLLM: dict[Fault, Damaged] = {
    Fault("stale weights (vllm's packed head after a push)", ("weights",), L0): Damaged(
        "infer", "damage=reload", against="damage=embedding"
    ),
    Fault("KV cache in fp8"): Damaged("infer", "kv_cache_dtype=fp8_e4m3"),
}


@dataclass(frozen=True)
class Setup:
    """model, prompts: files. train, infer: the clean conditions, as the command line writes them.

    seeds: rollouts of each prompt, each of which is a clean pair of its own.
    """

    model: Path
    prompts: Path
    train: str
    infer: str
    seeds: int
    quick: bool

    def engine(self, side: str) -> str:
        return parse_condition(self.train if side == "train" else self.infer).engine

    def damages(self) -> dict[Fault, Damaged]:
        """Those that the two engines can be broken by on this machine."""
        fit = {} if self.quick else self._fitting()
        return {fault: how for fault, how in fit.items() if not self._refused(how)}

    def _fitting(self) -> dict[Fault, Damaged]:
        """Those of the two engines, whatever the machine."""
        found = dict(HF) if self.engine("train") == "hf" else {}
        if self.engine("infer") == "vllm" and found:
            found |= VLLM
        return found

    def _refused(self, how: Damaged) -> str | None:
        """Why this machine cannot break an engine so."""
        clean = self.train if how.side == "train" else self.infer
        condition = parse_condition(spec_with(clean, how.adds))
        return find(condition.engine).refuse(condition, this_machine())

    def not_run(self) -> list[tuple[Fault, str]]:
        """The others, and why not."""
        needs = [(HF, "needs hf on the train side"), (VLLM, "needs hf and vllm in process")]
        run, fit = self.damages(), self._fitting()
        return [
            (fault, self._why_not(fit.get(fault)) or why)
            for table, why in needs
            for fault in table
            if fault not in run
        ]

    def _why_not(self, how: Damaged | None) -> str | None:
        if self.quick:
            return "left out by --quick"
        return self._refused(how) if how else None


def spec_with(clean: str, adds: str) -> str:
    """The clean condition with other options in place of, or beside, its own."""
    engine, _, given = clean.partition(":")
    options = dict(p.split("=", 1) for text in (given, adds) for p in text.split(",") if p)
    return f"{engine}:" + ",".join(f"{name}={value}" for name, value in options.items())


def take(setup: Setup, out: Path, notify: Notify) -> None:
    """The three studies; what is sealed is kept."""
    prompts = str(setup.prompts.absolute())
    clean = {"clean-train": ("train", setup.train), "clean-infer": ("infer", setup.infer)}
    _take(setup, out, "rollout", {"prompts": prompts}, clean, ["clean-infer"], notify)
    rollout = drawn(out)
    rows = rollout.padded()
    more = [drifted(ids) for ids in rollout.ids[:DRIFTED]]
    store.write_text(out / "clean.jsonl", _jsonl([*rows, *more]))
    _take(setup, out, "clean", {"corpus": "clean.jsonl"}, clean, ["clean-train"], notify)
    damaged = _named(setup)
    if damaged:
        store.write_text(out / "damage.jsonl", _jsonl(rows[:SHOWN]))
        ids = {"corpus": "damage.jsonl"}
        _take(setup, out, "damage", ids, {**damaged, **clean}, list(damaged), notify)


def _named(setup: Setup) -> dict[str, tuple[str, str]]:
    """id -> (side, spec) of every condition beside the two clean ones."""
    found: dict[str, tuple[str, str]] = {}
    for d in setup.damages().values():
        found[name_of(d.adds)] = (d.side, d.adds)
        if d.against != CLEAN:
            found[name_of(d.against)] = ("train", d.against)
    clean = {"train": setup.train, "infer": setup.infer}
    return {name: (side, spec_with(clean[side], adds)) for name, (side, adds) in found.items()}


def name_of(adds: str) -> str:
    return adds.replace("=", "_").replace(",", "-")


def _take(
    setup: Setup,
    out: Path,
    name: str,
    ids: Mapping[str, str],
    conditions: Mapping[str, tuple[str, str]],
    only: list[str],
    notify: Notify,
) -> None:
    """Write NAME.toml and take some of its conditions into NAME/."""
    study = out / f"{name}.toml"
    store.write_text(study, _study(setup, ids, conditions))
    request = of_study(read_study(study))
    cells = tuple(c for c in request.cells if c.condition.id in only)
    for cell in (c for c in cells if c.refused):
        raise MismatchError("condition-refused", condition=cell.condition.spec, reason=cell.refused)
    capture_cells(request, cells, out / name, notify)


def _study(setup: Setup, ids: Mapping[str, str], conditions: Mapping[str, tuple[str, str]]) -> str:
    """A study file's text; JSON's strings are TOML's."""
    head = {"model": str(setup.model.absolute()), **ids}
    lines = [f"{key} = {json.dumps(value)}" for key, value in head.items()]
    drawing = "prompts" in ids
    lines += [f'paths = ["{"rollout" if drawing else "prefill"}"]', 'floor = "none"']
    if drawing:
        lines += [f"limit = {PROMPTS}", f"samples = {setup.seeds}", f"max_tokens = {LONGEST}"]
    for name, (side, spec) in conditions.items():
        table = {"side": side, "spec": spec, "id": name}
        lines += ["", "[[condition]]", *(f"{k} = {json.dumps(v)}" for k, v in table.items())]
    return "\n".join(lines) + "\n"


def _jsonl(rows: list[np.ndarray]) -> str:
    return "".join(json.dumps({"token_ids": row.tolist()}) + "\n" for row in rows)


@dataclass(frozen=True)
class Rollout:
    """ids: with their scored masks; about: of corpus.json."""

    ids: Rows
    scored: Rows
    about: Mapping[str, Any]

    def padded(self) -> list[np.ndarray]:
        """Each row with padding behind it: the id that most rows end with, as trainers pad."""
        ends, counts = np.unique([row[-1] for row in self.ids], return_counts=True)
        tail = np.repeat(ends[np.argmax(counts)], PAD).astype(np.int32)
        return [np.append(row, tail) for row in self.ids]


def drawn(out: Path) -> Rollout:
    """The ids that the infer engine drew; `captures-failed-all` where there are none."""
    folders = sorted((out / "rollout" / "corpus").glob("*/MANIFEST.json"))
    if not folders:
        raise MismatchError(
            "captures-failed-all", first="the rollout", logs=out / "rollout" / "failed"
        )
    corpus, about, _ = store.load_corpus(folders[0].parent)
    return Rollout(corpus.token_ids, corpus.scored, about)


def drifted(ids: np.ndarray) -> np.ndarray:
    """What a template that repeats a token of the prompt makes of it."""
    return np.insert(ids, 1, ids[1])


def exhibit(out: Path, left: str, right: str, blind: bool = False) -> Exhibit:
    """Two conditions as a pair on the response tokens, each under its clean name.

    Of all sequences where both are clean, else of the first ones. blind: left's values are shown
    with the clean condition's facts.
    """
    rollout = drawn(out)
    one, other = _side(out, left, blind), _side(out, right, False)
    count = min(len(one[0]), len(other[0]), len(rollout.ids))
    ids = tuple(rollout.padded()[:count])
    scored = tuple(np.append(row, np.zeros(PAD, bool)) for row in rollout.scored[:count])
    values = one[0][:count], other[0][:count]
    return Exhibit(ids, scored, *values, one[1], other[1], dict(rollout.about))


def _side(out: Path, name: str, blind: bool) -> tuple[Rows, Mapping[str, Any]]:
    """Values at every position and padding, and the provenance that they are shown with."""
    if name == "clean-infer":
        _, values, about = read_values(*_clean(out, trains=False))
        blank = np.full(PAD, np.nan, np.float32)
        return tuple(np.append(row, blank) for row in values), about
    if name == "clean-train":
        return read_values(*_clean(out, trains=True))[1:]
    trace = _damaged_trace(out, name)
    _, values, about = read_values(out / "damage", trace)
    clean = store.read_provenance(store.trace_folder(*_clean(out, trace.endswith("/score-1"))))
    shown = {**about, "condition": clean["condition"]}
    return values, {**shown, "facts": clean["facts"]} if blind else shown


def _damaged_trace(out: Path, name: str) -> str:
    """Of a condition of the damage study: only a train side scores."""
    score = f"{name}/score-1"
    sealed = store.is_sealed(store.trace_folder(out / "damage", score))
    return score if sealed else f"{name}/prefill-1"


def _clean(out: Path, trains: bool) -> tuple[Path, str]:
    """Run folder and trace of a side as it should be."""
    if trains:
        return out / "clean", "clean-train/score-1"
    return out / "rollout", "clean-infer/rollout-1"


def why_whole(out: Path, how: Damaged) -> str | None:
    """Why the engine is not broken on this machine, where it says so itself."""
    folder = store.trace_folder(out / "damage", _damaged_trace(out, name_of(how.adds)))
    why: str | None = store.read_provenance(folder)["facts"].get("undamaged")
    return why


def drifted_exhibit(out: Path, clean: Exhibit) -> Exhibit:
    """The trainer scored its own prompt, which has a token more than the rollout's."""
    ids, values, _ = read_values(*_clean(out, trains=True))
    few, start = clean.only(range(min(DRIFTED, len(clean)))), len(clean)
    left = slice(start, start + len(few))
    cut = few.cut(PAD)
    longer = tuple(np.append(False, mask) for mask in cut.scored)
    return replace(cut, left=values[left], left_ids=ids[left], left_scored=longer)
