"""Write a pair of a run folder in the shapes that two trainers log.

    python notebooks/data/trainers.py RUN PAIR OUT

The ids, masks and log-probabilities are real: those that the two engines of the pair gave. The file
shapes are the trainers': prime-rl's token export (schema version 1, masks as booleans, a filler at
index 0, of its fields those that were measured) and NeMo-RL's train_data_step{N}.jsonl (each field
a list of one, padded to the longest of a step, masks as floats). Neither trainer ran. Prompts,
which neither trains on, have 0.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import api, store

STEPS = 2
PAD = 0


def main(run: Path, pair: str, out: Path) -> None:
    frame = api.tokens(run, pair)
    (folder,) = (run / "corpus").iterdir()
    corpus, _, _ = store.load_corpus(folder)
    rows = []
    for number, (ids, scored) in enumerate(zip(corpus.token_ids, corpus.scored, strict=True)):
        mine = frame[frame["sequence_id"] == number]
        values = {side: np.zeros(len(ids), np.float32) for side in ("lp_train", "lp_infer")}
        for side, full in values.items():
            full[mine["position"]] = mine[side]
        rows.append({"ids": ids, "scored": scored, **values})
    for step, part in enumerate(np.array_split(np.arange(len(rows)), STEPS), start=1):
        some = [rows[k] for k in part]
        name = out / "prime-rl" / "token_exports" / f"step_{step}" / "rank_0.jsonl"
        _write(name, map(_prime_rl, some))
        longest = max(len(row["ids"]) for row in some)
        name = out / "nemo-rl" / f"train_data_step{step}.jsonl"
        _write(name, (_nemo_rl(row, longest) for row in some))


def _write(file: Path, rows: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(store.dump_line(row) for row in rows), encoding="utf-8")


def _prime_rl(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "token_ids": row["ids"].tolist(),
        "loss_mask": row["scored"].tolist(),
        "inference_logprobs": _numbers(row["lp_infer"]),
        "trainer_logprobs": _numbers(row["lp_train"]),
    }


def _nemo_rl(row: dict[str, Any], longest: int) -> dict[str, Any]:
    more = longest - len(row["ids"])
    return {
        "input_lengths": [len(row["ids"])],
        "token_ids": [row["ids"].tolist() + [PAD] * more],
        "token_loss_mask": [[float(s) for s in row["scored"]] + [0.0] * more],
        "sample_loss_mask": [1.0],
        "generation_logprobs": [_numbers(row["lp_infer"]) + [0.0] * more],
        "prev_logprobs": [_numbers(row["lp_train"]) + [0.0] * more],
    }


def _numbers(values: np.ndarray) -> list[float]:
    """float32 values by the fewest digits that tell them apart."""
    return [json.loads(str(v)) for v in values]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
