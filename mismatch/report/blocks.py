"""What the page shows of each pair: its figures, its tokens, its sides.

The template only places these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mismatch import store
from mismatch.report import alternatives, data, drawings
from mismatch.report.data import Carried, Source
from mismatch.report.drawings import Section
from mismatch.report.noise import Noise, noise
from mismatch.report.pairs import Pair
from mismatch.report.provenance import Row, read_provenance, rows
from mismatch.report.sequences import read_tokens, sequences_of
from mismatch.report.vocabulary import Context, Vocabulary, read_context

Provenance = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Block:
    """Everything below the table for one pair. carried: None where its tokens are not here."""

    number: int
    pair: Pair
    noise: Noise
    is_lead: bool
    sections: list[Section]
    carried: Carried | None
    has_texts: bool
    has_corpus: bool
    provenance: list[Row] | None


def blocks(
    root: Path, pairs: Sequence[Pair], first: Pair | None, vocabulary: Vocabulary
) -> list[Block]:
    """A block for each pair that has tokens; a corpus is read once."""
    contexts: dict[str, Context] = {}
    measured = [p for p in pairs if p.tokens]
    room = data.ROOM_OF_OTHERS // max(len(measured) - 1, 1)
    found = []
    for number_, pair in enumerate(measured):
        is_lead = pair is first
        limits = (
            (data.ROOM_OF_LEAD, data.LISTED_OF_LEAD) if is_lead else (room, data.LISTED_OF_OTHERS)
        )
        found.append(_block(root, number_, pair, is_lead, limits, contexts, vocabulary))
    return found


def _block(
    root: Path,
    number_: int,
    pair: Pair,
    is_lead: bool,
    limits: tuple[int, int],
    contexts: dict[str, Context],
    vocabulary: Vocabulary,
) -> Block:
    left, right = (read_provenance(root, trace) for trace in pair.traces)
    context = _context(root, left or right, contexts)
    source = _source(root, pair, context, (left, right))
    return Block(
        number=number_,
        pair=pair,
        noise=noise(pair),
        is_lead=is_lead,
        sections=drawings.sections(pair, source),
        carried=None if source is None else data.carry(source, *limits, vocabulary),
        has_texts=context.texts is not None,
        has_corpus=context.token_ids is not None,
        provenance=None if left is None or right is None else rows(left, right),
    )


def _source(
    root: Path, pair: Pair, context: Context, sides: tuple[Provenance | None, Provenance | None]
) -> Source | None:
    tokens = read_tokens(store.comparison_folder(root, pair.id) / "tokens.parquet")
    if tokens is None or not len(tokens.d):
        return None
    one, other = (store.trace_folder(root, trace) for trace in pair.traces)
    depths = (
        alternatives.depth(one, _asked(sides[0])),
        alternatives.depth(other, _asked(sides[1])),
    )
    return Source(pair, tokens, sequences_of(tokens), context, (one, other), depths)


def _asked(provenance: Provenance | None) -> int | None:
    """What an engine said of its topk."""
    facts = (provenance or {}).get("facts") or {}
    observed = facts.get("observed") if isinstance(facts, Mapping) else None
    asked = observed.get("topk") if isinstance(observed, Mapping) else None
    return asked if type(asked) is int and asked > 0 else None


def _context(root: Path, provenance: Provenance | None, seen: dict[str, Context]) -> Context:
    sha = str((provenance or {}).get("corpus") or "")
    if sha not in seen:
        seen[sha] = read_context(store.inside(root, "corpus", sha) if sha else None)
    return seen[sha]
