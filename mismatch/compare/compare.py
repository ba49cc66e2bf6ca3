"""A run folder's traces -> comparisons and summary.json."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import store
from mismatch.compare import corrections
from mismatch.compare.align import Tokens, align
from mismatch.compare.attributions import attribute_all, attribution_path, attribution_specs
from mismatch.compare.breakdowns import breakdowns, kinds_of
from mismatch.compare.distribution import Top, columns, measure_distribution, read_top
from mismatch.compare.forks import forks, runs_of
from mismatch.compare.metrics import Aligned, Measured, measure
from mismatch.compare.preflight.evidence import Evidence, Side
from mismatch.compare.preflight.ladder import climb
from mismatch.compare.routes import measure_routes, read_routes, replays
from mismatch.compare.semantics import emulation
from mismatch.compare.traces import Traces, why_missing
from mismatch.errors import MismatchError
from mismatch.model import IS_UNSUPPORTED, NO_IDS, PairSpec
from mismatch.shapes import CorpusNote, Run, Summary, shaped

SEED = 0


def compare(
    root: Path, notify: Callable[[dict[str, Any]], None] = lambda event: None
) -> dict[str, Any]:
    """Measure every pair that run.json names, write comparisons/ and summary.json, return it."""
    run = read_run(root)
    pairs: list[dict[str, Any]] = []
    specs = pair_specs(run)
    for spec in specs:
        notify({"stage": "compare", "done": len(pairs), "total": len(specs)})
        pairs.append(_compare_pair(root, spec, Traces(root)))
    asked = "study" if run["request"].get("verb") == "study" else "command"
    summary = {"schema": store.SCHEMA, asked: run["request"], "pairs": pairs}
    notify({"stage": "attribute"})
    attributions = attribute_all(root, run, SEED)
    if attributions:
        summary["attributions"] = attributions
    store.write_text(root / "summary.json", store.dump_json(summary))
    return summary


def read_run(root: Path) -> dict[str, Any]:
    """run.json of a folder this program wrote."""
    if not (root / "run.json").is_file():
        raise MismatchError("not-an-artifact", folder=root, kind="run", reason="it has no run.json")
    run = store.read_json(root / "run.json")
    store.check_schema(root / "run.json", run)
    return dict(shaped(root / "run.json", run, Run))


def pair_specs(run: Mapping[str, Any]) -> list[PairSpec]:
    """The pairs of run.json."""
    return [PairSpec(**{f.name: pair[f.name] for f in fields(PairSpec)}) for pair in run["pairs"]]


def _compare_pair(root: Path, spec: PairSpec, traces: Traces) -> dict[str, Any]:
    missing = [t for t in (spec.left, spec.right) if not traces.is_sealed(t)]
    if missing:
        store.discard(store.comparison_folder(root, spec.id))
        return _failed(root, spec, missing)
    gap = align(traces[spec.left], traces[spec.right])
    measured = measure(gap, floors_of(spec, traces), seed=SEED)
    left, right = (
        store.read_provenance(store.trace_folder(root, t)) for t in (spec.left, spec.right)
    )
    drawn = _drawn(root, right)
    element = _element(spec, measured, _sampled_by(drawn, right))
    element["preflight"] += _missing_floors(root, spec, traces)
    element["breakdowns"] = _breakdowns(root, spec, traces, gap)
    element |= corrections.table(gap, measured.metrics, SEED)
    tops = _tops(root, spec, traces)
    found = _distribution(spec, traces, gap, tops)
    if found:
        element["distribution"] = found
    both = list(_showing_ties(tops))
    if len(both) == 2:
        drew = (_is_by(drawn, left), _is_by(drawn, right))
        element["forks"] = _forks(root, spec, traces, (both[0], both[1]), drawn, drew)
    routed = _routes(root, spec, traces, gap)
    if routed:
        element["routes"] = routed
    for side, provenance in zip(_sides(spec), (left, right), strict=True):
        for key, words in (("emulated", emulation(provenance)), ("replayed", replays(provenance))):
            if words:
                element.setdefault(key, {})[side] = words
    element["preflight"] += climb(_evidence(spec, traces, gap, tops, (left, right), element))
    _write(root, spec, traces, gap, element)
    return element


def _breakdowns(root: Path, spec: PairSpec, traces: Traces, gap: Aligned) -> dict[str, Any]:
    """With the entropy of the right side, else of the left, and the tokens' types, where there."""
    left, right = traces[spec.left], traces[spec.right]
    known = [e for e in (_entropy(right), _entropy(left)) if e is not None]
    about = store.read_provenance(store.trace_folder(root, spec.left))
    texts = store.read_texts(store.inside(root, "corpus", about["corpus"]))
    kinds = None if texts is None else kinds_of(left.token_id[left.scored], texts)
    return breakdowns(gap, entropy=known[0] if known else None, kinds=kinds, seed=SEED)


def _tops(root: Path, spec: PairSpec, traces: Traces) -> list[Top | None]:
    return [_top(root, traces, trace) for trace in (spec.left, spec.right)]


def _top(root: Path, traces: Traces, trace: str) -> Top | None:
    return read_top(store.trace_folder(root, trace), traces[trace])


def _evidence(
    spec: PairSpec,
    traces: Traces,
    gap: Aligned,
    tops: list[Top | None],
    provenances: tuple[dict[str, Any], dict[str, Any]],
    element: Mapping[str, Any],
) -> Evidence:
    """The pair as the rungs of the preflight ladder read it."""
    one, other = traces[spec.left], traces[spec.right]
    left, right = (
        Side(name, lp, provenance, top, _entropy(tokens))
        for name, lp, provenance, top, tokens in zip(
            _sides(spec), (gap.lp_train, gap.lp_infer), provenances, tops, (one, other), strict=True
        )
    )
    return Evidence(
        left, right, gap.sequence, gap.position, one.token_id[one.scored],
        tuple(one.each(one.token_id)), element["sampled_by"], element["metrics"],
        element.get("routes"), element.get("replayed") or {},
    )  # fmt: skip


def _entropy(tokens: Tokens) -> np.ndarray | None:
    column = tokens.beside.get("entropy")
    return None if column is None else column[tokens.scored]


def _distribution(
    spec: PairSpec, traces: Traces, gap: Aligned, tops: list[Top | None]
) -> dict[str, Any]:
    """What both sides captured beyond the token's own value; nothing where they did not."""
    sides = [traces[spec.left], traces[spec.right]]
    found: dict[str, Any] = {}
    if tops[0] is not None and tops[1] is not None:
        found |= columns(tops[0], tops[1])
    for slot, tokens in zip(("train", "infer"), sides, strict=True):
        for name, column in tokens.beside.items():
            found[f"{name}_{slot}"] = column[tokens.scored]
    return measure_distribution(gap.sequence, found, seed=SEED)


def _showing_ties(tops: Iterable[Top | None]) -> Iterator[Top]:
    """Those of two tokens a position or more: one alone hides what it ties with."""
    return (top for top in tops if top is not None and top.ids.shape[1] > 1)


def _forks(
    root: Path,
    spec: PairSpec,
    traces: Traces,
    tops: tuple[Top, Top],
    drawn: Mapping[str, Any] | None,
    drew: tuple[bool, bool],
) -> dict[str, Any]:
    """Where the likeliest tokens of the sides lead apart, and those of a side and of its first
    other capture.

    drew: which sides' condition drew the tokens. The other side replays a greedy run; where one
    condition is on both sides, both do.
    """
    tokens = traces[spec.left]
    replaying = [top for top, mine in zip(tops, drew, strict=True) if not mine] or tops
    found = _forks_of(tokens, tops, replaying, _greedy(drawn, any(drew)))
    floors: dict[str, dict[str, Any]] = {}
    for name, sides in spec.floors.items():
        for slot, others in sides.items():
            side = slot == "infer"
            sealed = (_top(root, traces, t) for t in others if traces.is_sealed(t))
            again = next(_showing_ties(sealed), None)
            if again is not None:
                both, greedy = (tops[side], again), _greedy(drawn, drew[side])
                floors.setdefault(name, {})[slot] = _forks_of(tokens, both, [again], greedy)
    return {**found, "floor": floors}


def _forks_of(
    tokens: Tokens, sides: Sequence[Top], replaying: Sequence[Top], greedy: bool | None
) -> dict[str, Any]:
    """A greedy run is held against the sides that replay it, any other text's sides against each
    other."""
    sequence, drawn = tokens.sequence[tokens.scored], tokens.token_id[tokens.scored]
    runs = runs_of(sequence, replaying, drawn) if greedy else runs_of(sequence, sides, None)
    return forks(runs, greedy=greedy)


def _routes(root: Path, spec: PairSpec, traces: Traces, gap: Aligned) -> dict[str, Any]:
    """Which experts both sides sent the tokens to; nothing where one did not capture them."""
    left, right = (
        read_routes(store.trace_folder(root, t), traces[t]) for t in (spec.left, spec.right)
    )
    return measure_routes(gap.sequence, _d(gap), left, right, seed=SEED)


def _d(gap: Aligned) -> np.ndarray:
    """(n,) float64 nats."""
    with np.errstate(invalid="ignore"):  # both sides may be infinite
        return np.asarray(gap.lp_train.astype("float64") - gap.lp_infer.astype("float64"))


def _missing_floors(root: Path, spec: PairSpec, traces: Traces) -> list[dict[str, Any]]:
    """A row for each floor that failed: the verdict may stand on another. What no plan has (of one
    sequence there is no other batch, of some servers no decode) is told where the floor is."""
    return [
        {
            "rung": "numerics",
            "verdict": "not checked",
            "evidence": f"the {name} floor lacks a capture: {why_missing(root, trace)}",
            "todo": "Run the same command again: it takes what is missing.",
        }
        for name, sides in spec.floors.items()
        for trace in (t for others in sides.values() for t in others)
        if not traces.is_sealed(trace)
        and (store.failed_folder(root, trace) / "error.json").is_file()
    ]


def floors_of(spec: PairSpec, traces: Traces) -> dict[str, dict[str, list[Aligned]]]:
    """Capture 1 of each side against its other captures, as far as they were sealed."""
    floors: dict[str, dict[str, list[Aligned]]] = {}
    for name, sides in spec.floors.items():
        for slot, others in sides.items():
            first = traces[spec.left if slot == "train" else spec.right]
            sealed = [t for t in others if traces.is_sealed(t)]
            if sealed:
                found = [align(first, traces[t]) for t in sealed]
                floors.setdefault(name, {})[slot] = found
    return floors


def _element(spec: PairSpec, measured: Measured, sampled_by: str) -> dict[str, Any]:
    """One element of summary.json's pairs[], without what is told of its tokens."""
    preflight = [
        {"rung": "numerics", "verdict": "not checked", "evidence": note, "todo": ""}
        for note in measured.notes
    ]
    return {
        **_head(spec),
        "tokens": measured.tokens,
        "sequences": measured.sequences,
        "nan_tokens": measured.nan_tokens,
        "inf_tokens": measured.inf_tokens,
        "sampled_by": sampled_by,
        "metrics": dict(measured.metrics),
        "floor": measured.floor,
        "excess": measured.excess,
        "breakdowns": {},
        "ess_by_length": [],
        "corrections": [],
        "preflight": preflight,
    }


def _head(spec: PairSpec) -> dict[str, Any]:
    left, right = _sides(spec)
    return {
        "id": spec.id,
        "kind": spec.kind,
        left: spec.left,
        right: spec.right,
        "path": spec.path,
    }


def _sides(spec: PairSpec) -> tuple[str, str]:
    return ("train", "infer") if spec.kind == "train-infer" else ("left", "right")


def _failed(root: Path, spec: PairSpec, missing: list[str]) -> dict[str, Any]:
    """A pair without its traces stays in the summary, with the reason and no number."""
    empty = measure(*_nothing())
    said = sorted((why_missing(root, t) for t in missing), key=lambda why: NO_IDS in why)
    reasons = [
        {"rung": "capture", "verdict": "fail", "evidence": why, "todo": _todo(why)} for why in said
    ]
    element = _element(spec, empty, "unknown")
    return {**element, "preflight": reasons}


def _todo(why: str) -> str:
    if IS_UNSUPPORTED in why:
        return (
            "Take it on a machine that can (capture STUDY --only ID), in this output folder; "
            "options that exclude each other run on none."
        )
    return "Read the log under failed/, mend the cause, and run the same command again."


def _nothing() -> tuple[Aligned, dict[str, Any]]:
    none = np.zeros(0, np.int32)
    return Aligned(none, none, none.astype(np.float32), none.astype(np.float32)), {}


def _drawn(root: Path, trace: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Who drew the tokens that a trace (its provenance) scores, and how; None: nothing says."""
    folder = store.inside(root, "corpus", trace["corpus"])
    if not store.is_sealed(folder):
        return None
    store.verified(folder, "corpus")
    found: Mapping[str, Any] | None = store.read_json(folder / "corpus.json", CorpusNote).get(
        "sampled_by"
    )
    return found or None


def _is_by(drawn: Mapping[str, Any] | None, trace: Mapping[str, Any]) -> bool:
    """Whether the condition of this trace drew them, with the same weights."""
    own = (trace["condition"], trace.get("model", {}).get("digest"))
    return drawn is not None and (drawn["condition"], drawn["model"]) == own


def _sampled_by(drawn: Mapping[str, Any] | None, right: Mapping[str, Any]) -> str:
    """Whether the scored tokens were drawn by the right side's own condition, and from the model's
    own distribution (T = 1, all of it).

    right: that side's provenance.
    """
    if drawn is None:
        return "unknown"
    if not _is_by(drawn, right):
        return "other"
    return "infer" if (drawn["temperature"], drawn["support"]) == (1.0, "whole") else "reshaped"


def _greedy(drawn: Mapping[str, Any] | None, drew: bool) -> bool | None:
    """Whether the tokens are a greedy run of who `drew` them; None: nothing says. A corpus of
    before says it of a whole support alone, from which no greedy run is drawn."""
    if drawn is None:
        return None
    if not drew or drawn["support"] == "whole":
        return False
    greedy: bool | None = drawn.get("greedy")
    return greedy


def _write(
    root: Path, spec: PairSpec, traces: Traces, gap: Aligned, element: dict[str, Any]
) -> None:
    """Seal comparisons/<id>/; its manifest names the hashes of the traces it was made from."""
    left = traces[spec.left]
    used = [spec.left, spec.right]
    used += [t for sides in spec.floors.values() for others in sides.values() for t in others]

    def fill(aside: Path) -> None:
        store.write_table(
            aside / "tokens.parquet",
            {
                "sequence_id": gap.sequence.astype("int32"),
                "position": gap.position.astype("int32"),
                "token_id": left.token_id[left.scored].astype("int32"),
                "lp_train": gap.lp_train,
                "lp_infer": gap.lp_infer,
                "d": _d(gap),
            },
        )
        (aside / "comparison.json").write_text(store.dump_json(element), encoding="utf-8")

    about = {"kind": "comparison", "traces": traces.hashes(used)}
    store.seal(store.comparison_folder(root, spec.id), fill, about, replace=True)


def check(root: Path) -> dict[str, Any]:
    """The summary, after proving that nothing under it changed since it was written.

    Every number shown must be one that was measured on the traces that are here now.
    """
    if not (root / "summary.json").is_file():
        raise MismatchError(
            "not-an-artifact", folder=root, kind="run", reason="it has no summary.json"
        )
    summary = store.read_json(root / "summary.json")
    store.check_schema(root / "summary.json", summary)
    shaped(root / "summary.json", summary, Summary)
    run = read_run(root)
    specs, pairs = pair_specs(run), summary["pairs"]
    if [p["id"] for p in pairs] != [s.id for s in specs]:
        raise _edited(root, "its pairs are not those of run.json")
    _check_attributions(root, run, summary)
    for spec, pair in zip(specs, pairs, strict=True):
        folder = store.comparison_folder(root, spec.id)
        made_from = (spec.left, spec.right)
        sealed = store.is_sealed(folder)
        measured = _checked(root, folder, "comparison", made_from) if sealed else None
        if (measured is None and pair["tokens"]) or (measured is not None and measured != pair):
            raise _edited(root, f"pair {spec.id} is not what its comparison says")
    return summary  # type: ignore[no-any-return]


def _check_attributions(root: Path, run: Mapping[str, Any], summary: dict[str, Any]) -> None:
    specs = attribution_specs(run)
    found = summary.get("attributions", [])
    if [a["id"] for a in found] != [s.id for s in specs]:
        raise _edited(root, "its attributions are not those of run.json")
    made = [(s, a) for s, a in zip(specs, found, strict=True) if _is_made(a)]
    for spec, one in made:
        folder = attribution_path(root, one["id"])
        if _checked(root, folder, "attribution", spec.corners.values()) != one:
            raise _edited(root, f"attribution {one['id']} is not what its folder says")


def _is_made(attribution: Mapping[str, Any]) -> bool:
    return not (attribution["missing"] or attribution.get("unlike"))


def _edited(root: Path, reason: str) -> MismatchError:
    return MismatchError("artifact-changed", file=root / "summary.json", reason=reason)


def _checked(root: Path, folder: Path, kind: str, made_from: Iterable[str]) -> Any:
    """What a sealed comparison or attribution says, once it and the traces that it was made from
    are known to be as they were.
    """
    manifest = store.verified(folder, kind)
    traces = manifest.get("traces", {})
    if unnamed := set(made_from) - traces.keys():
        what = f"it does not name {min(unnamed)}"
        raise MismatchError("artifact-changed", file=folder / store.MANIFEST, reason=what)
    for trace, expected in traces.items():
        path = store.trace_folder(root, trace)
        if not store.is_sealed(path) or store.sha256(path / store.MANIFEST) != expected:
            raise MismatchError(
                "artifact-changed", file=path, reason=f"{folder.name} was made from another trace"
            )
        of = store.inside(root, "corpus", store.verified(path, "trace")["corpus"])
        if store.is_sealed(of):  # a trace that was brought from elsewhere may lack it
            store.verified(of, "corpus")
    return store.read_json(folder / f"{kind}.json")
