"""The token blocks of a page, read as its own script reads them."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

_BLOCK = re.compile(r'<script type="application/json" id="([a-z0-9-]+)">([^<]*)</script>')


@dataclass(frozen=True)
class Held:
    """A sequence that is there with its tokens; left, right: of the scored ones."""

    position: np.ndarray
    scored: np.ndarray
    ids: np.ndarray
    left: np.ndarray
    right: np.ndarray
    rest: bytes


@dataclass(frozen=True)
class Carried:
    """One pair's block."""

    raw: dict[str, Any]
    vocabulary: dict[str, Any]

    def held(self, k: int) -> Held:
        segments = self.raw["held"][k]["segments"]
        position = np.concatenate([np.arange(a, a + n) for a, n, _ in segments])
        scored = np.concatenate([np.full(n, bool(s)) for _, n, s in segments])
        data = base64.b64decode(self.raw["held"][k]["data"])
        m, width = int(scored.sum()), 4 if self.raw["wide"] else 2
        left, right = (np.frombuffer(data, "<f4", m, 4 * m * side) for side in (0, 1))
        ids = np.frombuffer(data, f"<u{width}", len(scored), 8 * m)
        return Held(position, scored, ids, left, right, data[8 * m + width * len(scored) :])

    def words(self, k: int) -> list[str]:
        known = self.vocabulary.get(self.raw["corpus"], {})
        return [known.get(str(i), [f"‹{i}›"])[0] for i in self.held(k).ids]


def blocks(path: Path) -> dict[str, Any]:
    """Every data block of a page by its id; a page whose blocks are not JSON is an error here."""
    source = path.read_text(encoding="utf-8")
    return {name: json.loads(text) for name, text in _BLOCK.findall(source)}


def carried(path: Path) -> list[Carried]:
    """The blocks of the pairs, in the order of the page."""
    found = blocks(path)
    words = found.pop("vocabulary")
    return [Carried(raw, words) for raw in found.values()]
