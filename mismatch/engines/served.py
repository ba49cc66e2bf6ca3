"""What every client of a running server is told on the command line."""

from __future__ import annotations

from mismatch.engines import observe
from mismatch.engines.base import Machine
from mismatch.model import Condition, Option

ADDRESS = {
    "url": Option(
        "str", "the root of the server, for example http://127.0.0.1:8000",
        pattern=r"https?://[A-Za-z0-9.\-_\[\]:]+(/[A-Za-z0-9.\-_~/]*)?",
        takes_text="http://HOST:PORT, with no user, password or query in it; a key is read from "
        "the variable that key_env names",
        hidden=True,
    ),
    "key_env": Option(
        "str", "the environment variable that holds the server's key (default MISMATCH_API_KEY)",
        pattern=r"[A-Za-z_][A-Za-z0-9_]*",
        takes_text="the name of a variable, never the key itself",
        hidden=True,
    ),
    "served_model": Option(
        "str", "the name the server gives the checkpoint (default: the one named like its folder)"
    ),
}  # fmt: skip


ARGUMENTS = "all else stays as the server was started"


def refuse(condition: Condition, machine: Machine) -> str | None:
    """A client needs an address; whether somebody answers there shows when it is asked."""
    if "url" not in condition.options:
        return "no url says where the server is"
    holder = str(condition.options.get("key_env", ""))
    if observe.is_switch(holder):
        return "key_env names a variable that is recorded as a switch: put the key into another"
    for name in condition.options:
        if name.startswith("arg."):
            return f"{name} is for an engine's constructor, and the server runs already"
    return None
