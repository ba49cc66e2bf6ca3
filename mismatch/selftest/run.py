"""The self-test: every fault shown to the detector, and a table of what it said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mismatch import store
from mismatch.errors import MismatchError
from mismatch.report.ladder import outcome
from mismatch.report.markdown import escape
from mismatch.selftest.captures import (
    CLEAN,
    SHOWN,
    Damaged,
    Setup,
    drifted_exhibit,
    exhibit,
    name_of,
    take,
    why_whole,
)
from mismatch.selftest.exhibit import Exhibit, shown
from mismatch.selftest.faults import IN_VALUES, Fault
from mismatch.verbs.run import Notify

TEMPLATE = Fault("template drift (a token more in the prompt)", ("template",))


@dataclass(frozen=True)
class Result:
    """One row of the table.

    verdict: named, flagged, missed, not checked, not run; of clean pairs quiet or raised. must:
    what it had to be. said: the rungs' words.
    """

    fault: str
    must: str
    verdict: str
    said: str

    @property
    def good(self) -> bool:
        return self.verdict not in ("missed", "raised")


def run(setup: Setup, out: Path, notify: Notify) -> dict[str, Any]:
    """Take the captures, show every exhibit, write selftest.json and selftest.md."""
    out = out.absolute()
    take(setup, out, notify)
    clean = exhibit(out, "clean-train", "clean-infer")
    if len(clean) < 2:
        raise MismatchError(
            "usage", what="A self-test takes two rollouts or more.", todo="Give more --seeds."
        )
    results = [*_clean(setup, clean, out), *_in_values(clean, out), _drift(clean, out)]
    results += [_in_engine(fault, how, out) for fault, how in setup.damages().items()]
    results += [Result(f.title, _must(f), "not run", why) for f, why in setup.not_run()]
    found = {
        "schema": store.SCHEMA,
        "train": setup.train,
        "infer": setup.infer,
        "sequences": len(clean),
        "seeds": setup.seeds,
        "passed": all(r.good for r in results),
        "results": [asdict(r) for r in results],
    }
    store.write_text(out / "selftest.json", store.dump_json(found))
    store.write_text(out / "selftest.md", markdown(found))
    return found


# ---------------------------------------------------------------- exhibits


def _clean(setup: Setup, clean: Exhibit, out: Path) -> Iterator[Result]:
    """Each seed's rollouts as a pair of their own: none may raise anything."""
    raised = []
    for seed in range(setup.seeds):
        part = clean.only(range(seed, len(clean), setup.seeds))
        rows = _failed(shown(part, out / "shown" / f"clean-{seed}"))
        raised += [f"seed {seed}: {_words(rows)}"] if rows else []
    size = f"{setup.seeds} seeds of {len(clean) // setup.seeds} sequences"
    said = "; ".join(raised) or f"nothing, on {size}"
    yield Result(f"none: clean pairs, {size}", "quiet", "raised" if raised else "quiet", said)


def _in_values(clean: Exhibit, out: Path) -> Iterator[Result]:
    few = clean.only(range(min(SHOWN, len(clean))))
    for number, (fault, damage) in enumerate(IN_VALUES.items()):
        yield _judged(fault, partial(damage, few), out / "shown" / f"values-{number}")


def _drift(clean: Exhibit, out: Path) -> Result:
    return _judged(TEMPLATE, lambda: drifted_exhibit(out, clean), out / "shown" / "template")


def _in_engine(fault: Fault, how: Damaged, out: Path) -> Result:
    if why := why_whole(out, how):
        return Result(fault.title, _must(fault), "not run", why)
    name = name_of(how.adds)
    against = name_of(how.against)
    if how.side == "train":
        ends = (name, "clean-infer" if how.against == CLEAN else against)
    else:
        ends = ("clean-train" if how.against == CLEAN else against, name)
    return _judged(fault, lambda: exhibit(out, *ends, how.blind), out / "shown" / name)


def _judged(fault: Fault, make: Callable[[], Exhibit], root: Path) -> Result:
    pair = shown(make(), root)
    rows = _failed(pair)
    named = any(row.get("fault") in fault.names for row in rows)
    bad = pair.get("nan_tokens", 0) + pair.get("inf_tokens", 0)
    said = _words(rows) or (f"no evidence: {bad} tokens are not finite" if bad else "nothing")
    flagged = bool(rows) or bad > 0
    verdict = "named" if named else "flagged" if flagged and not fault.names else "missed"
    if not flagged and (unclimbed := _unclimbed(pair, fault.rung)):
        verdict, said = "not checked", _words(unclimbed)
    return Result(fault.title, _must(fault), verdict, said)


def _unclimbed(pair: dict[str, Any], rung: str) -> list[dict[str, Any]]:
    """The rung's row where the ladder said that it could not look."""
    rows = pair["preflight"]
    return [r for r in rows if r["rung"] == rung and r["verdict"] == "not checked"]


def _must(fault: Fault) -> str:
    return "named" if fault.names else "flagged"


def _failed(pair: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for row in pair["preflight"] if row["verdict"] == "fail"]


def _words(rows: list[dict[str, Any]]) -> str:
    return "; ".join(f"{row['rung']}: {row['evidence']}" for row in rows)


# ---------------------------------------------------------------- the table


def markdown(found: dict[str, Any]) -> str:
    """selftest.md: one row a fault."""
    head = [
        f"# Self-test: {outcome(found)}",
        "",
        f"`{found['train']}` against `{found['infer']}`, {found['sequences']} sequences that the "
        "infer side drew. Each fault was put into these traces or into a live engine, and the "
        "preflight ladder was given the damaged pair alone.",
        "",
        "| fault | must be | was | what was reported |",
        "| --- | --- | --- | --- |",
    ]
    rows = [
        f"| {r['fault']} | {r['must']} | **{r['verdict']}** | {escape(r['said'])} |"
        for r in found["results"]
    ]
    return "\n".join([*head, *rows]) + "\n"
