"""import: recorded log-probabilities of both sides become traces. No engine is needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mismatch import store
from mismatch.capture.claim import claimed
from mismatch.capture.run import seal_recorded_trace
from mismatch.corpus.recorded import READERS
from mismatch.errors import MismatchError, suggest
from mismatch.model import PairSpec
from mismatch.verbs.conclude import conclude

TRAIN, INFER = "recorded-train/score-1", "recorded-infer/rollout-1"
PAIR = PairSpec("recorded-train~recorded-infer.rollout", "train-infer", "rollout", TRAIN, INFER, {})


def import_dumps(
    format: str,
    files: Sequence[Path],
    out: Path,
    notify: Callable[[dict[str, Any]], None] = lambda event: None,
) -> dict[str, Any]:
    """Read dumps of one format, seal both sides, conclude."""
    if format not in READERS:
        raise MismatchError(
            "usage",
            what=f"There is no dump format '{format}'.",
            # verl is no misspelt nemo-rl: only what is nearly a format's name is taken for one.
            todo=f"Formats: {', '.join(READERS)}.{suggest(format, READERS, likeness=0.6)} Any "
            "other trainer (verl, TRL, slime, OpenRLHF, ...) writes rows for --format jsonl with a "
            "few lines: docs/your-trainer.md.",
        )
    notify({"stage": "read"})
    dump = READERS[format](list(files))
    values = {"train": dump.train, "infer": dump.infer}
    digest = store.values_digest([*dump.train, *dump.infer])
    request = {"verb": "import", "format": format, "ids": dump.corpus.sha, "values": digest}
    with claimed(out, request, [PAIR]) as root:
        about = {"schema": store.SCHEMA, "source": format, "sampled_by": None, **dump.about}
        store.save_corpus(root, dump.corpus, about, values)
        for side, trace in (("train", TRAIN), ("infer", INFER)):
            seal_recorded_trace(root, trace, dump.corpus, values[side], format, dump.about)
        return conclude(root, notify)
