"""Do two greedy runs fork where a replay of one of them says? Both runs are there, so it is seen.

    .venv/bin/python scripts/forks_by_hand.py ONE OTHER > forks.json

ONE and OTHER: two run folders of one list of prompts, each rolled out greedily by another condition
and compared with that condition's decode. Shares nothing with mismatch.compare.forks: runs are laid
beside each other token by token, and the replay is read off topk.parquet.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow.parquet as pq


def responses(root: Path) -> list[list[int]]:
    """The drawn tokens of each sequence of the folder's corpus."""
    (corpus,) = (root / "corpus").iterdir()
    table = pq.read_table(corpus / "sequences.parquet").to_pydict()
    rows = zip(table["token_ids"], table["scored"], strict=True)
    return [[i for i, s in zip(ids, scored, strict=True) if s] for ids, scored in rows]


def first_difference(one: list[int], other: list[int]) -> int:
    """Counted from 1, as long as both go on; 0 where they never differ."""
    pairs = enumerate(zip(one, other, strict=False), start=1)
    return next((at for at, (a, b) in pairs if a != b), 0)


def replayed(root: Path, trace: str, drawn: list[list[int]]) -> list[tuple[int, set[int]]]:
    """Of each sequence the first drawn token that is none of the trace's likeliest (0: none), and
    the tokens at which several are likeliest.
    """
    table = pq.read_table(root / "traces" / trace / "topk.parquet").to_pydict()
    best: dict[tuple[int, int], dict[int, float]] = {}
    for sequence, position, token, logprob in zip(
        *(table[name] for name in ("sequence_id", "position", "token_id", "logprob")), strict=True
    ):
        best.setdefault((sequence, position), {})[token] = logprob
    places: dict[int, list[int]] = {}
    for sequence, position in sorted(best):
        places.setdefault(sequence, []).append(position)
    found = []
    for sequence, tokens in enumerate(drawn):
        known = [best[sequence, position] for position in places[sequence]]
        likeliest = [{t for t, lp in at.items() if lp == max(at.values())} for at in known]
        steps = list(enumerate(zip(tokens, likeliest, strict=True), start=1))
        fork = next((at for at, (token, top) in steps if token not in top), 0)
        found.append((fork, {at for at, (_, top) in steps if len(top) > 1}))
    return found


def compared(one: Path, other: Path) -> dict[str, float | int]:
    """How often the runs of two folders fork where the replay in the first one says.

    alike: at_the_fork of the replay, or never and neither does it. at_a_tie: they differ before any
    fork of the replay, at a token at which it has several likeliest.
    """
    runs = responses(one), responses(other)
    (pair,) = (p for p in json.loads((one / "run.json").read_text())["pairs"]
               if p["kind"] == "infer-infer")  # fmt: skip
    seen = [first_difference(*two) for two in zip(*runs, strict=True)]
    told = replayed(one, pair["left"], runs[0])
    alike = sum(at == fork for at, (fork, _) in zip(seen, told, strict=True))
    never = sum(at == fork == 0 for at, (fork, _) in zip(seen, told, strict=True))
    tied = sum(at in ties and (at < fork or not fork)
               for at, (fork, ties) in zip(seen, told, strict=True))  # fmt: skip
    return {
        "prompts": len(seen),
        "runs_that_differ": sum(at > 0 for at in seen),
        "replays_that_differ": sum(fork > 0 for fork, _ in told),
        "alike": alike,
        "at_the_fork": alike - never,
        "never": never,
        "at_a_tie": tied,
        "elsewhere": len(seen) - alike - tied,
        "explained_share": (alike + tied) / len(seen),
    }


if __name__ == "__main__":
    print(json.dumps(compared(Path(sys.argv[1]), Path(sys.argv[2])), indent=1))
