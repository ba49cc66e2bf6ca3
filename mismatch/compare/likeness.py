"""Were the corners of an attribution taken alike, but for their knobs?

Machines may share a study. A library's version or another processor moves the numbers as a knob
does, and would be booked on whichever knob the machines were split by.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mismatch.model import split_spec

Provenance = Mapping[str, Any]


def unlike(provenances: Mapping[str, Provenance]) -> list[str]:
    """One sentence (no full stop) for each fact that corners of one engine do not share.

    provenances: trace -> its provenance.
    """
    return [
        f"the corners of {engine} were not taken alike: {name} was {_said(found)}"
        for (engine, name), found in _facts(provenances).items()
        if len(found) > 1
    ]


def _facts(provenances: Mapping[str, Provenance]) -> dict[tuple[str, str], dict[str, str]]:
    """(engine, fact) -> its values, each with the first trace that has it."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    names = {name for p in provenances.values() for name in _versions(p)}
    for trace, provenance in provenances.items():
        for key, value in _of_one(provenance, sorted(names)):
            found.setdefault(key, {}).setdefault(value, trace)
    return found


def _of_one(provenance: Provenance, names: list[str]) -> Iterator[tuple[tuple[str, str], str]]:
    engine, options = split_spec(str(provenance["condition"]))
    versions = _versions(provenance)
    for name in names:
        yield (engine, name), str(versions.get(name, "not there"))
    # The device may be a knob: corners on one that was asked for are held against each other alone.
    asked = options.get("device", "")
    device = str((provenance.get("facts") or {}).get("device", "not recorded"))
    yield (engine, f"device={asked}" if asked else "the device"), device


def _versions(provenance: Provenance) -> Mapping[str, Any]:
    return (provenance.get("facts") or {}).get("versions") or {}


def _said(found: Mapping[str, str]) -> str:
    return " and ".join(f"{value} ({trace})" for value, trace in found.items())
