"""The provenance of the two sides of a pair, flattened, with the rows that differ marked."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mismatch import store

#: Times differ on every capture and would give a report other bytes every time; where things lie on
#: one machine is nothing to show around. provenance.json keeps both.
_LEFT_OUT = frozenset(
    {"schema", "started", "seconds", "pid", "interpreter", "model.path", "facts.weights"}
)  # digests by the hundred: the rung L0 compares them
#: torchrun names each launch anew, in variables that steer nothing.
_NAMES_OF_A_LAUNCH = "TORCHELASTIC_"

NOT_RECORDED = "not recorded"


@dataclass(frozen=True, slots=True)
class Row:
    """One fact of both sides."""

    name: str
    left: str
    right: str

    @property
    def differs(self) -> bool:
        return self.left != self.right

    @property
    def is_one_sided(self) -> bool:
        """What only one of two engines has to say is no difference that explains a gap."""
        return NOT_RECORDED in (self.left, self.right)


def read_provenance(root: Path, trace: str) -> dict[str, Any] | None:
    """A trace's provenance.json; None where the trace lies outside this folder."""
    folder = store.trace_folder(root, trace)
    return store.read_provenance(folder) if (folder / "provenance.json").is_file() else None


def rows(left: Mapping[str, Any], right: Mapping[str, Any]) -> list[Row]:
    """Every fact either side recorded; those that differ first, then by name."""
    one, other = dict(_flat(left)), dict(_flat(right))
    found = [
        Row(name, one.get(name, NOT_RECORDED), other.get(name, NOT_RECORDED))
        for name in sorted(one.keys() | other.keys())
    ]
    return sorted(found, key=lambda row: not row.differs)


def _flat(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if key in _LEFT_OUT or name in _LEFT_OUT or key.startswith(_NAMES_OF_A_LAUNCH):
            continue
        if isinstance(inner, Mapping) and inner:
            yield from _flat(inner, f"{name}.")
        elif inner is not None:
            yield name, inner if isinstance(inner, str) else json.dumps(inner, ensure_ascii=False)
