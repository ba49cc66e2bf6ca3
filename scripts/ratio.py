"""How many times larger one pair's gap is than another's on the same ids, with its interval.

    .venv/bin/python scripts/ratio.py OUT_A:PAIR_A OUT_B:PAIR_B

Both are run folders. The ratio of mean |d| and of k3 (log space, over tokens); 95%, bootstrap over
the sequences of both together.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mismatch import store
from mismatch.compare import stats
from mismatch.compare.compare import check
from mismatch.compare.stats import Clusters, Statistic


def tokens(text: str) -> tuple[np.ndarray, np.ndarray]:
    """FOLDER:PAIR -> sequence ids and d (nats) of its scored tokens; the folder is checked."""
    folder, _, pair = text.partition(":")
    check(Path(folder))
    table = store.read_table(store.comparison_folder(Path(folder), pair) / "tokens.parquet")
    return table["sequence_id"].to_numpy(), table["d"].to_numpy()


def main(left: str, right: str) -> None:
    (sequence, a), (other, b) = tokens(left), tokens(right)
    assert np.array_equal(sequence, other), "the two pairs are not over the same tokens"
    clusters = Clusters(sequence, np.unique(sequence))
    columns = {"mean |d|": (np.abs(a), np.abs(b)), "k3": (np.expm1(a) - a, np.expm1(b) - b)}
    wanted = {k: Statistic(clusters.means(list(c)), stats.ratio) for k, c in columns.items()}
    for name, found in stats.bootstrap_t(wanted, seed=0, resamples=2000).items():
        print(f"{name}: {found.value:.3g} [{found.low:.3g}, {found.high:.3g}] times, "
              f"{len(a)} tokens in {len(clusters.rows)} sequences")  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
