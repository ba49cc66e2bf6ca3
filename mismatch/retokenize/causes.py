"""Why a span differs: one cause for each, read off its text and where in its turn it lies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mismatch.retokenize.messages import Turn
from mismatch.retokenize.spans import Span, across


@dataclass(frozen=True, slots=True)
class Text:
    """Ids as text. ends[k] is the length of the text of the first k + 1 ids."""

    text: str
    ends: Sequence[int]

    def at(self, k: int) -> int:
        """The character at which id k begins."""
        return self.ends[k - 1] if k else 0

    def of(self, a: int, b: int) -> str:
        return self.text[self.at(a) : self.at(b)]


@dataclass(frozen=True, slots=True)
class Run:
    """A sampled turn in the old text: its ids [a, b), the character where it begins, its parse."""

    a: int
    b: int
    begin: int
    turn: Turn


def causes(
    spans: Sequence[Span], old: Text, new: Text, runs: Sequence[Run], inserted: Sequence[bool]
) -> list[str]:
    """One of CAUSES for each span. inserted: of new ids, those trained on and never sampled."""
    same, found = _of_same_text(spans, old, new), []
    for k, span in enumerate(spans):
        run, is_trained = _run_of(span, runs), any(inserted[span.c : span.d])
        if run is None or (span.a >= run.b and not is_trained):
            found.append("prompt")
        elif k in same:
            found.append("bpe")
        elif "\ufffd" in old.of(span.a, span.b):
            found.append("not_text")
        elif span.a >= run.b:
            found.append("turn_end")
        else:
            found.append(_of_run(span, spans, old, new, run))
    return found


#: Neighbouring spans whose texts are put together: `"} }}` cut as `" }} }` is two spans of two
#: texts, since the matcher finds a `}}` on both sides.
NEIGHBOURS = 4


def _of_same_text(spans: Sequence[Span], old: Text, new: Text) -> set[int]:
    """Numbers of the spans that by themselves, or with neighbours, have the text they had."""
    found: set[int] = set()
    for first, span in enumerate(spans):
        for last in range(first, min(first + NEIGHBOURS, len(spans))):
            before = old.of(span.a, spans[last].b)
            if before and before == new.of(span.c, spans[last].d):
                found.update(range(first, last + 1))
                break
    return found


def _run_of(span: Span, runs: Sequence[Run]) -> Run | None:
    """The run that a span touches; an insertion touches what it stands before. Else the run that it
    stands right behind.
    """
    touching = [r for r in runs if span.a < r.b and (span.b > r.a or span.a == span.b == r.a)]
    touching = touching or [r for r in runs if r.b == span.a]
    return touching[0] if touching else None


def _of_run(span: Span, spans: Sequence[Span], old: Text, new: Text, run: Run) -> str:
    """The cause of a span that touches a run and has another text."""
    start, stop = (max(0, old.at(k) - run.begin) for k in (span.a, span.b))
    blank = bare(old.of(span.a, span.b)) == bare(new.of(span.c, span.d))
    if start < run.turn.reasoning[1]:
        return "reasoning"
    for block in run.turn.calls:
        if start < block[1] and max(stop, start + 1) > block[0]:
            return _of_call(block, spans, old, new, run)
    if blank:
        beside = any(_touches((start, stop), block, old, run) for block in run.turn.calls)
        return "tool_whitespace" if beside else "whitespace"
    behind = bool(run.turn.calls) and start >= run.turn.calls[0][1]
    return "dropped" if behind else "other"


def bare(text: str) -> str:
    """The text without its white space."""
    return "".join(text.split())


def _of_call(block: tuple[int, int], spans: Sequence[Span], old: Text, new: Text, run: Run) -> str:
    """The whole block decides, not one span of it: how a matcher pairs quotes is an accident."""
    a, b = (run.begin + edge for edge in block)
    first = max(k for k in range(run.a, run.b) if old.at(k) <= a)
    last = next(k for k in range(first + 1, run.b + 1) if old.at(k) >= b)
    cut = any(s.a < last < s.b for s in spans)  # what is new right behind the block is not of it
    there = (across(spans, first, after=False), across(spans, last, after=cut))
    same = bare(old.of(first, last)) == bare(new.of(*there))
    return "tool_whitespace" if same else "tool_json"


def _touches(span: tuple[int, int], block: tuple[int, int], old: Text, run: Run) -> bool:
    """Nothing but white space lies between them."""
    low, high = (span[1], block[0]) if span[1] <= block[0] else (block[1], span[0])
    return not old.text[run.begin + low : run.begin + high].strip()
