"""What a long command is doing: a bar with rate and time left on a terminal, plain lines in a log.

Everything goes to the console given (standard error): under --json nothing else is on stdout.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.progress import Progress as Bar
from rich.text import Text

from mismatch.report.words import clean
from mismatch.screen import say

_WORDS = {
    "launch": "starting",
    "load": "loading engine and weights",
    "encode": "encoding prompts",
    "sample": "rolling out",
    "score": "scoring",
    "close": "closing",
    "read": "reading",
    "compare": "comparing",
    "attribute": "attributing",
    "report": "writing the report",
}
_OF_A_GUEST = ("launch", "load", "encode", "sample", "score", "close")
#: What is counted, by stage; sequences elsewhere.
_UNITS = {"compare": "pairs", "attribute": "attributions"}

#: A log gets a line of progress no more often.
LOG_EVERY_S = 10.0

#: The time left is told from a tenth of the work on: of sequences that run side by side the first
#: to end are the short ones, and say little of the others. And from three steps on: what comes
#: within a second is one, for a batch that ends whole shows how long one wait was, and no rate.
ENOUGH_DONE, ENOUGH_STEPS, ONE_STEP_S = 0.1, 3, 1.0


class _Rate(ProgressColumn):
    """How many a second since it began; nothing in the first second, whose events come in heaps."""

    def render(self, task: Task) -> Text:
        made, seconds = task.completed - task.fields["begun"], task.elapsed or 0.0
        known = made > 0 and seconds >= 1
        return Text(f"{_short(made / seconds)} {task.fields['unit']}/s" if known else "")


class _Left(ProgressColumn):
    """The time left, once enough is known of it."""

    def render(self, task: Task) -> Text:
        left = task.fields["left"]
        return Text("" if left is None else f"{_time(left)} left")


class Progress:
    """Give `notify` to the api; use as a context manager. clock: seconds, for a log's lines."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._condition = ""
        self._doing = ""  # what the numbers below count
        self._unit = "sequences"
        self._before, self._call, self._total = 0.0, 0.0, 0.0  # done, in this call, of how many
        self._begun, self._since, self._told = 0.0, 0.0, 0.0  # count, time at the start; last line
        self._done, self._steps, self._stepped = 0.0, 0, 0.0  # count, steps and time of the last
        self._bar: Bar | None = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate())
            times = (TimeElapsedColumn(), _Left())
            self._bar = Bar(*columns, *times, console=console, transient=True)
            self._task = self._bar.add_task("", total=None, unit=self._unit, begun=0.0, left=None)

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def notify(self, event: dict[str, Any]) -> None:
        stage = event["stage"]
        if stage == "start":
            self._condition = f"{event['condition']}: "
            self._say(f"{self._condition}{event['captures']} captures to take")
        elif stage == "captured":
            self._say(f"{self._condition}{event['capture']} captured")
        elif stage == "tick" and self._total:
            share = event["done"] / event["of"] if event["of"] else 0.0
            self._show(self._before + share * self._call)
        elif stage in _WORDS:
            self._enter(stage, event)

    def _enter(self, stage: str, event: dict[str, Any]) -> None:
        whose = self._condition if stage in _OF_A_GUEST else ""
        capture = f" {event['capture']}" if event.get("capture") else ""
        doing = f"{whose}{_WORDS[stage]}{capture}"
        done, total = float(event.get("done", 0)), float(event.get("total", 0))
        if self._bar is None and doing != self._doing and stage in _OF_A_GUEST:
            self._say(doing)
        if (doing, total) != (self._doing, self._total):
            self._doing, self._unit = doing, _UNITS.get(stage, "sequences")
            self._begin(done, total)
        self._before, self._call = done, float(event.get("sequences", 0))
        if total:
            self._show(done)

    def _begin(self, done: float, total: float) -> None:
        """Another thing is counted from here: what was done before it says nothing of its rate."""
        self._begun = self._done = done
        self._total, self._steps = total, 0
        self._since = self._told = self._stepped = self._clock()
        if self._bar:
            self._bar.remove_task(self._task)  # resetting it would keep the old total
            self._task = self._bar.add_task(
                escape(clean(self._doing)), total=total or None, completed=int(done),
                unit=self._unit, begun=done, left=None,
            )  # fmt: skip

    def _show(self, done: float) -> None:
        self._count(done)
        if self._bar:
            self._bar.update(
                self._task, completed=int(done), total=self._total or None, left=self._left()
            )
        elif self._clock() - self._told >= LOG_EVERY_S:
            self._told = self._clock()
            self._say(self._line(done))

    def _count(self, done: float) -> None:
        if done > self._done and self._clock() - self._stepped >= ONE_STEP_S:
            self._steps, self._stepped = self._steps + 1, self._clock()
        self._done = done

    def _left(self) -> float | None:
        """Seconds, at the mean rate since the start; None where too little is known of it."""
        made, whole = self._done - self._begun, self._total - self._begun
        if self._steps < ENOUGH_STEPS or made < ENOUGH_DONE * whole:
            return None
        more = max(self._total - self._done, 0.0)  # an engine may tick past the whole it gave
        return more * (self._clock() - self._since) / made

    def _line(self, done: float) -> str:
        """`hf: scoring score-1: 120 of 256 sequences, 3.4 a second, 40 s left`."""
        said = f"{self._doing}: {done:,.0f} of {self._total:,.0f} {self._unit}"
        made, seconds = done - self._begun, self._clock() - self._since
        if made <= 0 or seconds <= 0:
            return said
        said, left = f"{said}, {_short(made / seconds)} a second", self._left()
        return said if left is None else f"{said}, {_time(left)} left"

    def _say(self, text: str) -> None:
        say(self._bar.console if self._bar else self._console, text)


def _short(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.2g}"


def _time(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 120 else f"{whole // 60} min {whole % 60:02d} s"
