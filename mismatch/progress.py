"""A guest's events as a progress bar on a terminal, or as plain lines in a log."""

from __future__ import annotations

from types import TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from mismatch.report.words import clean
from mismatch.screen import say

_WORDS = {
    "launch": "starting",
    "load": "loading engine and weights",
    "encode": "encoding prompts",
    "sample": "rolling out",
    "score": "scoring",
    "close": "closing",
}


class Progress:
    """Give `notify` to the api; use as a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._condition = ""
        self._bar: Bar | None = None
        if console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
            self._bar = Bar(*columns, TimeElapsedColumn(), console=console, transient=True)
            self._task = self._bar.add_task("", total=None)

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
            self._condition = event["condition"]
            self._say(f"{self._condition}: {event['captures']} captures to take")
        elif stage == "captured":
            self._say(f"{self._condition}: {event['capture']} captured")
        elif stage == "tick":
            self._advance(event["done"], event["of"])
        elif stage in _WORDS:
            self._describe(stage, event)

    def _describe(self, stage: str, event: dict[str, Any]) -> None:
        capture = f" {event['capture']}" if event.get("capture") else ""
        text = f"{self._condition}: {_WORDS[stage]}{capture}"
        if self._bar:
            self._bar.update(self._task, description=escape(clean(text)), total=event.get("of"))
            self._bar.update(self._task, completed=event.get("call", 0))
        elif "call" not in event:
            self._say(text)

    def _advance(self, done: int, of: int) -> None:
        if self._bar:
            self._bar.update(self._task, completed=done, total=of)

    def _say(self, text: str) -> None:
        say(self._bar.console if self._bar else self._console, text)
