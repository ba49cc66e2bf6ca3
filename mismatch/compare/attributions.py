"""A run folder's corners -> attributions/<id>/, as run.json names them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from mismatch import store
from mismatch.compare.align import align
from mismatch.compare.attribute import attribute, gathered
from mismatch.compare.likeness import unlike
from mismatch.compare.traces import Traces, why_missing
from mismatch.model import AttributionSpec


def attribution_specs(run: Mapping[str, Any]) -> list[AttributionSpec]:
    """The attributions of run.json."""
    names = [f.name for f in fields(AttributionSpec)]
    given = run.get("attributions", [])
    return [AttributionSpec(**{n: a[n] for n in names if n in a}) for a in given]


def attribute_all(root: Path, run: Mapping[str, Any], seed: int) -> list[dict[str, Any]]:
    """Every attribution, sealed; one whose corners are not all there says which are missing, and
    one whose corners were not taken alike what differs.
    """
    return [_attribute(root, spec, seed) for spec in attribution_specs(run)]


def attribution_path(root: Path, name: str) -> Path:
    return store.inside(root, "attributions", name)


def _attribute(root: Path, spec: AttributionSpec, seed: int) -> dict[str, Any]:
    traces = Traces(root)
    head: dict[str, Any] = {
        "id": spec.id,
        "left": spec.left,
        "right": spec.right,
        "corners": dict(spec.corners),
        "folded": list(spec.folded),
    }
    used = list(dict.fromkeys(spec.corners.values()))
    missing = [why_missing(root, t) for t in used if not traces.is_sealed(t)]
    differ = [] if missing else unlike({t: _provenance(root, t) for t in used})
    head |= {"missing": missing, "unlike": differ}
    if missing or differ:
        store.discard(attribution_path(root, spec.id))
        return {**head, "tokens": 0, "sequences": 0, "knobs": []}
    left = traces[spec.corners["0" * len(spec.knobs)]]
    corners = {bits: align(left, traces[trace]) for bits, trace in spec.corners.items()}
    found = {**head, **attribute(gathered(spec.knobs, corners), seed=seed)}

    def fill(aside: Path) -> None:
        (aside / "attribution.json").write_text(store.dump_json(found), encoding="utf-8")

    about = {"kind": "attribution", "traces": traces.hashes(used)}
    store.seal(attribution_path(root, spec.id), fill, about, replace=True)
    return found


def _provenance(root: Path, trace: str) -> Mapping[str, Any]:
    return store.read_provenance(store.trace_folder(root, trace))
