"""diff OLD NEW: two run folders, before and after; what changed in the gap and in what made it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from mismatch import store
from mismatch.compare.align import align
from mismatch.compare.change import KEYS, UNKNOWN, Run, change, same_tokens
from mismatch.compare.compare import SEED, check, floors_of, pair_specs, read_run
from mismatch.compare.traces import Traces
from mismatch.errors import MismatchError, suggest
from mismatch.model import PairSpec
from mismatch.report.provenance import read_provenance, rows

PAIRED = "paired: both runs scored the same ids"
INDEPENDENT = "independent: the ids of the two runs differ"

_Pairs = Mapping[str, Mapping[str, Any]]


def diff(old: Path, new: Path, pair: str | None = None) -> dict[str, Any]:
    """{"pairs": [...], "only_old": [ids], "only_new": [ids]} of two checked run folders.

    pair: only this one; `OLD_ID=NEW_ID` matches two of different names. Carries no path: equal
    folders give equal bytes wherever they lie.
    """
    runs = _Folder(old), _Folder(new)
    ids = [list(run.pairs) for run in runs]
    matched = _named(pair, runs) if pair else [(one, one) for one in ids[0] if one in ids[1]]
    if not matched:
        said = [", ".join(one) or "no pair" for one in ids]
        likely = _likely(runs[0].pairs, runs[1].pairs)
        said[1] += f". Likely the same: {' or '.join(likely)}" if likely else ""
        raise MismatchError("no-common-pair", old=old, new=new, in_old=said[0], in_new=said[1])
    return {
        "schema": store.SCHEMA,
        "command": {"verb": "diff", "pair": pair},
        "pairs": [_pair(runs[0], one, runs[1], other) for one, other in matched],
        "only_old": [] if pair else [one for one in ids[0] if one not in ids[1]],
        "only_new": [] if pair else [one for one in ids[1] if one not in ids[0]],
    }


def _named(pair: str, runs: tuple[_Folder, _Folder]) -> list[tuple[str, str]]:
    one, _, other = pair.partition("=")
    for name, run in zip((one, other or one), runs, strict=True):
        if name not in run.pairs:
            said, hint = ", ".join(run.pairs) or "none", suggest(name, run.pairs)
            if not other and one in runs[0].pairs:
                likely = _likely({one: runs[0].pairs[one]}, run.pairs)
                hint = f" Likely the same: {likely[0]}" if likely else hint
            raise MismatchError("no-such-pair", pair=name, known=said, hint_extra=hint)
    return [(one, other or one)]


#: Matches that an error names.
_MOST_LIKELY = 3


def _likely(old: _Pairs, new: _Pairs) -> list[str]:
    """`--pair OLD_ID=NEW_ID` of pairs that may be the same under another name, likeliest first:
    of one kind; those of one path before others, then those of the closest ids; each id once."""
    found = [
        (old[a]["path"] == new[b]["path"], SequenceMatcher(None, a, b).ratio(), a, b)
        for a in old
        for b in new
        if old[a]["kind"] == new[b]["kind"]
    ]
    taken: dict[str, str] = {}
    for _, _, a, b in sorted(found, key=lambda one: (not one[0], -one[1], one[2], one[3])):
        if a not in taken and b not in taken.values():
            taken[a] = b
    return [f"--pair {a}={b}" for a, b in taken.items()][:_MOST_LIKELY]


class _Folder:
    """A run folder whose hashes were checked."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pairs: dict[str, dict[str, Any]] = {p["id"]: p for p in check(root)["pairs"]}
        self.specs: dict[str, PairSpec] = {s.id: s for s in pair_specs(read_run(root))}

    def corpus(self, name: str) -> str:
        """What names the ids that a pair's two sides scored: their content."""
        folder = store.trace_folder(self.root, self.specs[name].left)
        return str(store.verified(folder, "trace")["corpus"])

    def read(self, name: str) -> Run:
        spec, traces = self.specs[name], Traces(self.root)
        return Run(align(traces[spec.left], traces[spec.right]), floors_of(spec, traces))

    def captures(self, name: str) -> tuple[str, str]:
        """The ids of the two sides' traces."""
        return self.specs[name].left, self.specs[name].right

    def provenance(self, name: str) -> list[dict[str, Any]]:
        """Of both sides; empty where a capture is missing."""
        return [read_provenance(self.root, trace) or {} for trace in self.captures(name)]


@dataclass(frozen=True, slots=True)
class _Change:
    how: str
    metrics: Mapping[str, Mapping[str, Any]]


def _pair(one: _Folder, old: str, other: _Folder, new: str) -> dict[str, Any]:
    elements = one.pairs[old], other.pairs[new]
    found = _measured(one, old, other, new)
    sides = ("train", "infer") if elements[0]["kind"] == "train-infer" else ("left", "right")
    return {
        "id": old,
        "new_id": new,
        "kind": elements[0]["kind"],
        "path": elements[0]["path"],
        "how": found.how,
        **{key: [e[key] for e in elements] for key in ("tokens", "sequences", "sampled_by")},
        "metrics": {
            key: {"old": _known(elements[0], key), "new": _known(elements[1], key), **told}
            for key, told in found.metrics.items()
        },
        "changed": {
            side: [[r.name, r.left, r.right] for r in rows(before, after) if r.differs]
            for side, before, after in zip(
                sides, one.provenance(old), other.provenance(new), strict=True
            )
        },
        "traces": {
            side: [one.captures(old)[k], other.captures(new)[k]] for k, side in enumerate(sides)
        },
        "preflight": _rungs(*elements),
    }


def _measured(one: _Folder, old: str, other: _Folder, new: str) -> _Change:
    why = _unusable(one.pairs[old], "the old run") or _unusable(other.pairs[new], "the new run")
    if one.pairs[old]["kind"] != other.pairs[new]["kind"]:
        why = "the two pairs are not of one kind"
    if why:
        nothing: dict[str, Any] = {"difference": None, "ratio": None, "chance": None}
        nothing |= {"verdict": UNKNOWN, "reason": why}
        return _Change("not compared", dict.fromkeys(KEYS, nothing))
    before, after = one.read(old), other.read(new)
    alike = one.corpus(old) == other.corpus(new) and same_tokens(before.gap, after.gap)
    metrics = change(before, after, paired=alike, seed=SEED)
    return _Change(PAIRED if alike else INDEPENDENT, metrics)


def _unusable(pair: Mapping[str, Any], where: str) -> str:
    """Why a pair's numbers are not believed, or not there; in the order that the gate asks."""
    failed = [c for c in pair["preflight"] if c["verdict"] == "fail"]
    checks = [c["rung"] for c in failed if c["rung"] != "capture"]
    if checks:
        return f"in {where} the check '{checks[0]}' failed, so its gap may not be numerics"
    if not pair["tokens"]:
        return f"in {where} no token was compared"
    if pair["nan_tokens"] or pair["inf_tokens"]:
        return f"in {where} {pair['nan_tokens']} tokens are NaN and {pair['inf_tokens']} infinite"
    return ""


def _known(pair: Mapping[str, Any], key: str) -> Any:
    """A metric as summary.json has it."""
    name = key.removeprefix("excess.")
    return (pair["metrics" if name == key else "excess"] or {}).get(name)


def _rungs(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[dict[str, str]]:
    """Rungs whose verdict is another one now, with what is said of them now."""
    before, after = (
        {c["rung"]: c for c in pair["preflight"] if c["rung"] != "numerics"} for pair in (old, new)
    )
    absent = {"verdict": "absent", "evidence": ""}
    found = []
    for rung in dict.fromkeys([*before, *after]):
        was, now = before.get(rung, absent), after.get(rung, absent)
        if was["verdict"] != now["verdict"]:
            said = {"old": was["verdict"], "new": now["verdict"]}
            found.append({"rung": rung, **said, "evidence": now.get("evidence", "")})
    return found
