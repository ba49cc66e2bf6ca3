"""The likeliest tokens that a side gave at the positions the page shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from mismatch import store
from mismatch.report.sequences import Tokens

#: The likeliest tokens shown of a position.
SHOWN = 10


@dataclass(frozen=True, slots=True)
class Alternatives:
    """Of n tokens. k: how many the side was asked for. ids, logprobs: (n, min(k, SHOWN)), -1 and
    -inf where none was given. rank: (n,) of the token itself, 1 the likeliest, 0 not among the k.
    """

    k: int
    ids: np.ndarray
    logprobs: np.ndarray
    rank: np.ndarray


def depth(trace: Path, observed: int | None) -> int:
    """How many likeliest tokens a trace holds of each position; 0 where none were asked for.

    observed: what the engine said it was asked for. A train side has the sampler's as well, at
    ranks from there on, which are no ranks of its own.
    """
    path = trace / "topk.parquet"
    if not path.is_file():
        return 0
    return observed or 1 + int(
        store.read_table(path, columns=["rank"])["rank"].to_numpy().max(initial=0)
    )


def read(trace: Path, k: int, tokens: Tokens, rows: np.ndarray) -> Alternatives:
    """Those of the tokens at `rows`, in their order; no other sequence's are kept in memory."""
    wanted = np.unique(tokens.sequence[rows])
    only = pc.field("sequence_id").isin(wanted.tolist()) & (pc.field("rank") < k)
    table = store.read_table(trace / "topk.parquet", only=only)
    column = {n: table[n].to_numpy() for n in table.column_names}
    key = tokens.sequence[rows].astype(np.int64) << 32 | tokens.position[rows]
    asked = column["sequence_id"].astype(np.int64) << 32 | column["position"]
    order = np.argsort(key)
    at = order[np.minimum(np.searchsorted(key, asked, sorter=order), len(key) - 1)]
    here = key[at] == asked
    at, rank, ids = at[here], column["rank"][here], column["token_id"][here]
    own = ids == tokens.token_id[rows][at]
    place = np.zeros(len(rows), np.int64)
    place[at[own]] = rank[own] + 1
    few = (rank < SHOWN) & np.isfinite(column["logprob"][here])
    shape = (len(rows), min(k, SHOWN))
    found, logprobs = np.full(shape, -1, np.int64), np.full(shape, -np.inf)
    found[at[few], rank[few]] = ids[few]
    logprobs[at[few], rank[few]] = column["logprob"][here][few]
    return Alternatives(k, found, logprobs, place)
