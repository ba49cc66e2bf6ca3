"""A row of NeMo-RL's train_data_step{N}.jsonl as a row of one sequence.

NeMo-RL logs a batch by slices of one: each field is a list with one entry. Sequences are padded to
the longest of the batch, masks are floats, and a sequence that does not train has a
sample_loss_mask of 0. Read in NVIDIA-NeMo/RL, nemo_rl/algorithms/grpo.py and
nemo_rl/utils/logger.py, August 2026.
"""

from __future__ import annotations

import math
from typing import Any

from mismatch.corpus import jsonl
from mismatch.corpus.jsonl import Place, shown

ARRAYS = ("token_ids", "token_loss_mask", "generation_logprobs", "prev_logprobs")
SWITCH = "Runs that log their responses through NeMo-Gym write no such fields."


def plain(place: Place, row: dict[str, Any]) -> dict[str, Any]:
    """token_ids, loss_mask and both sides' values, without padding; `bad-row` where one lacks."""
    row = {field: _only(value) for field, value in row.items()}
    missing = [field for field in (*ARRAYS, "input_lengths") if field not in row]
    if missing:
        has = ", ".join(map(shown, row)) or "no field"
        raise place.bad(f"field '{missing[0]}' is missing", f"The row has {has}. {SWITCH}")
    ids = jsonl.array(place, row, "token_ids")
    arrays = {field: jsonl.array(place, row, field, len(ids)) for field in ARRAYS}
    length = row["input_lengths"]
    if type(length) is not int or not 0 < length <= len(ids):
        reason = f"input_lengths is {shown(length)}, token_ids has {len(ids)}"
        raise place.bad(reason, "It counts the tokens before the padding.")
    mask = arrays.pop("token_loss_mask")[:length]
    trained = _weight(place, row.get("sample_loss_mask", 1)) != 0
    return {
        **{field: values[:length] for field, values in arrays.items()},
        "loss_mask": [_flag(value) if trained else 0 for value in mask],
    }


def _only(value: Any) -> Any:
    """What a slice of one holds."""
    return value[0] if isinstance(value, list) and len(value) == 1 else value


def _weight(place: Place, value: Any) -> float:
    """sample_loss_mask, refused where it does not say whether the sequence trains."""
    if type(value) in (int, float, bool) and math.isfinite(value):
        return float(value)
    todo = "It takes 0 for a sequence that does not train, 1 for one that does."
    raise place.bad(f"sample_loss_mask is {shown(value)}", todo)


def _flag(value: Any) -> Any:
    """1.0 and 0.0 as whole numbers; anything else as it stands, to be refused by name."""
    return int(value) if type(value) is float and value in (0.0, 1.0) else value
