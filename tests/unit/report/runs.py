"""A small run folder, and the pieces of a summary that tests bend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import store

HOSTILE = "</script><img src=x onerror=alert(1)>\"'`|&"
SHA = "0123456789abcdef"
TRAIN, INFER = "hf-bf16-sdpa", "vllm-bf16-eager"
SEQUENCES, LENGTH, PROMPT = 10, 12, 2

Summary = dict[str, Any]


def estimate(value: float | None, spread: float | None = 0.2) -> dict[str, float | None]:
    """A value with bounds `spread` of it away; None for either gives nulls."""
    if value is None or spread is None:
        return {"value": value, "low": None, "high": None}
    return {"value": value, "low": value * (1 - spread), "high": value * (1 + spread)}


def metrics(k3: float, spread: float | None = 0.2) -> dict[str, Any]:
    return {
        "k2": estimate(k3, spread),
        "k3": estimate(k3, spread),
        "abs_logprob_diff_mean": estimate(k3**0.5, spread),
        "exact_fraction": estimate(1.0 if k3 == 0 else 0.1, spread),
        "ess_half_length": estimate(0.3466 / k3 if k3 else None, spread),
        "prob_pearson": estimate(None),
    }


def pair(path: str = "decode", k3: float = 1e-3, **changes: Any) -> Summary:
    """A train-infer pair whose gap lies clearly above its batch floors."""
    floor = {"train": metrics(1e-4), "infer": metrics(2e-4)}
    still = {"train": metrics(0.0), "infer": metrics(0.0)}
    bins = [
        {
            "bin": label,
            "tokens": n,
            "metrics": {
                k: estimate(v)
                for k, v in (("abs_logprob_diff_mean", 0.03), ("logprob_diff_mean", -1e-3))
            },
        }
        for label, n in (("0-0.5", 60), ("0.5-1", 40))
    ]
    whole = {
        "id": f"{TRAIN}~{INFER}.{path}",
        "kind": "train-infer",
        "train": f"{TRAIN}/score-1",
        "infer": f"{INFER}/{path}-1",
        "path": path,
        "tokens": SEQUENCES * (LENGTH - PROMPT),
        "sequences": SEQUENCES,
        "nan_tokens": 0,
        "inf_tokens": 0,
        "sampled_by": "infer",
        "metrics": metrics(k3),
        "floor": {"repeat": still, "batch": floor},
        "excess": {"k2": estimate(k3 - 1.5e-4), "k3": estimate(k3 - 1.5e-4)},
        "breakdowns": {"infer_prob": bins, "position": bins},
        "preflight": [
            {"rung": "shift scan", "verdict": "pass", "evidence": "shift 0", "todo": ""},
            {"rung": "weights", "verdict": "not checked", "evidence": "no digest", "todo": "Do."},
        ],
    }
    return {**whole, **changes}


def forks(greedy: bool | None = True, median: float | None = 4.0, **changes: Any) -> Summary:
    """Ten sequences of which nine differ, by the fourth token in the middle."""
    shares = zip((1, 2, 3, 4, 5, 6, 7, 8), (1, 0.9, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1), strict=True)
    rows = [{"length": n, "sequences": 10, "share": estimate(share)} for n, share in shares]
    return {
        "greedy": greedy, "sequences": 10, "forked": 9, "first": 2, "tied": 5, "forked_or_tied": 10,
        "median": {"value": median, "low": 3.0, "high": None}, "agreement": rows, **changes,
    }  # fmt: skip


def forks_with_floors(greedy: bool | None = True) -> Summary:
    """With both batch floors, of which train's never comes to its median."""
    floors = {"train": forks(False, median=None), "infer": forks(greedy, median=6.0)}
    return forks(greedy, floor={"batch": floors})


def inner_pair(path: str = "rollout..decode", k3: float = 0.0) -> Summary:
    """An infer-infer pair; bit-equal unless k3 says otherwise."""
    whole = pair(path, k3, id=f"{INFER}.{path}", kind="infer-infer", floor=None, excess=None)
    del whole["train"], whole["infer"]
    left, right = path.split("..")
    return {**whole, "left": f"{INFER}/{left}-1", "right": f"{INFER}/{right}-1"}


def failed_pair(
    reason: str = "sglang/decode-1 failed at load: ImportError: no sgl_kernel",
) -> Summary:
    return pair(
        id=f"{TRAIN}~sglang.decode",
        infer="sglang/decode-1",
        tokens=0,
        sequences=0,
        metrics=None,
        floor=None,
        excess=None,
        breakdowns={},
        preflight=[{"rung": "capture", "verdict": "fail", "evidence": reason, "todo": ""}],
    )


def routed() -> Summary:
    """A pair's element `routes`: two layers, the second of which differs more."""
    found, other = estimate(0.25), estimate(0.5)
    both = {"abs_logprob_diff_mean": found, "k3": other}
    return {
        "tokens": 100, "layers": 2, "experts_per_token": 2,
        "metrics": {"router_flip_rate": found, "token_flip_rate": other, "expert_miss_rate": found},
        "by_layer": [
            {"layer": 0, "router_flip_rate": found, "beyond_chance": 0.9},
            {"layer": 1, "router_flip_rate": other, "beyond_chance": None},
        ],
        "by_agreement": [
            {"routes": "agree", "tokens": 75, "metrics": both},
            {"routes": "differ", "tokens": 0, "metrics": dict.fromkeys(both)},
        ],
    }  # fmt: skip


def summary_of(*pairs: Summary) -> Summary:
    return {"schema": 1, "command": {"verb": "run", "train": "hf:dtype=bf16"}, "pairs": list(pairs)}


def write_run(root: Path, *pairs: Summary, d: np.ndarray | None = None, texts: bool = True) -> Path:
    """A run folder with these pairs; d replaces the drawn differences, texts=False leaves ids."""
    store.write_text(root / "summary.json", store.dump_json(summary_of(*pairs)))
    _write_corpus(root, texts)
    for number, one in enumerate(pairs):
        if one["tokens"]:
            _write_tokens(root, one["id"], number, d)
        for side in ("train", "infer", "left", "right"):
            if side in one:
                _write_provenance(root, one[side])
    return root


def _write_corpus(root: Path, texts: bool) -> None:
    folder = root / "corpus" / SHA
    folder.mkdir(parents=True)
    ids = [np.arange(LENGTH) % 6 for _ in range(SEQUENCES)]
    store.write_table(
        folder / "sequences.parquet",
        {"sequence_id": np.arange(SEQUENCES), "token_ids": [i.tolist() for i in ids]},
    )
    if texts:
        words = [" the", "\n", HOSTILE, "\x1b[31m", "\u202e\ud800", "日本"]
        known = {str(k): word for k, word in enumerate(words)}
        (folder / "texts.json").write_text(json.dumps(known), encoding="utf-8")


def _write_tokens(root: Path, pair_id: str, seed: int, d: np.ndarray | None) -> None:
    folder = root / "comparisons" / pair_id
    folder.mkdir(parents=True)
    n = SEQUENCES * (LENGTH - PROMPT)
    positions = np.tile(np.arange(PROMPT, LENGTH), SEQUENCES)
    drawn = np.random.default_rng(seed).normal(0, 0.03, n)
    d = (drawn if d is None else d).astype(np.float32)
    infer = np.full(n, -1.0, np.float32)
    store.write_table(
        folder / "tokens.parquet",
        {
            "sequence_id": np.repeat(np.arange(SEQUENCES), LENGTH - PROMPT).astype(np.int32),
            "position": positions.astype(np.int32),
            "token_id": (positions % 6).astype(np.int32),
            "lp_train": infer + d,
            "lp_infer": infer,
            "d": d,
        },
    )


def _write_provenance(root: Path, trace: str) -> None:
    condition, capture = trace.split("/")
    facts = {
        "observed": {"attention": "sdpa" if "hf" in trace else HOSTILE},
        "versions": {"torch": "2.13"},
    }
    record = {
        "schema": 1,
        "trace": trace,
        "condition": condition,
        "capture": capture,
        "corpus": SHA,
        "facts": facts,
        "started": f"2026-08-01 {trace}",
        "seconds": 12.5,
    }
    path = root / "traces" / condition / capture / "provenance.json"
    store.write_text(path, store.dump_json(record))


def write_top(root: Path, trace: str, k: int) -> None:
    """The k likeliest tokens at each scored position: its own, with ln p -1, is rank 1 (0 first) of
    every second position and not among them at the others.
    """
    n = LENGTH - PROMPT
    position = np.tile(np.repeat(np.arange(PROMPT, LENGTH), k), SEQUENCES)
    rank = np.tile(np.arange(k), SEQUENCES * n)
    own = (rank == 1) & (position % 2 == 0)
    store.write_table(
        root / "traces" / trace / "topk.parquet",
        {
            "sequence_id": np.repeat(np.arange(SEQUENCES), n * k).astype(np.int32),
            "position": position.astype(np.int32),
            "rank": rank.astype(np.int32),
            "token_id": np.where(own, position % 6, 10 + rank).astype(np.int32),
            "logprob": (-0.5 - 0.5 * rank).astype(np.float32),
        },
    )
