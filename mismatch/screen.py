"""What the program prints: foreign text is shown there and never obeyed."""

from __future__ import annotations

from typing import Any

import typer
from rich.console import Console
from rich.text import Text

from mismatch import store
from mismatch.errors import MismatchError
from mismatch.report.words import clean

OUT, ERR = Console(), Console(stderr=True)


def print_json(document: Any) -> None:
    """The one document of `--json`. A file's name that is no UTF-8 has halves of surrogate pairs in
    it, which JSON can spell and a stream cannot.
    """
    text = store.dump_json(document).encode(errors="backslashreplace").decode()
    typer.echo(text, nl=False)


def say(console: Console, text: str) -> None:
    """One line; what files and engines put into it is shown and not obeyed."""
    console.print(Text(clean(text)), soft_wrap=True)


def print_verdict(verdict: dict[str, Any], console: Console) -> None:
    for rule in verdict["rules"]:
        say(console, f"{rule['verdict']}: {rule['reason']}")
    say(console, f"verdict: {verdict['verdict']}")


def print_error(error: MismatchError, console: Console = ERR) -> None:
    say(console, f"error: {error.message}")
    if error.hint:
        say(console, error.hint)
