"""report.html of many tokens: seconds and memory to write it, its size, how it does in a browser.

python -m bench.page [SEQUENCES LENGTH [TOPK]]
"""

from __future__ import annotations

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from mismatch import report, store
from tests.browser.chromium import PROGRAM, Tab, browsing
from tests.unit.report import runs

SIZES = ((2000, 2000, 0), (2000, 2000, 5), (5000, 2000, 0), (1, 10_000_000, 0), (10_000_000, 1, 0))
VOCABULARY = 50_000


def folder(root: Path, sequences: int, length: int, topk: int) -> Path:
    """One pair with a heavy-tailed gap of about bf16's size, as compare leaves it."""
    n = sequences * length
    pair = runs.pair("decode", tokens=n, sequences=sequences)
    runs.write_run(root, pair)
    rng = np.random.default_rng(0)
    infer = -rng.exponential(0.7, n).astype(np.float32)
    train = infer + (rng.standard_t(4, n) * 0.02 * np.sqrt(-infer)).astype(np.float32)
    place = {
        "sequence_id": np.repeat(np.arange(sequences, dtype=np.int32), length),
        "position": np.tile(np.arange(length, dtype=np.int32), sequences),
    }
    ids = rng.integers(0, VOCABULARY, n).astype(np.int32)
    values = {"lp_train": train, "lp_infer": infer, "d": train.astype(float) - infer}
    path = root / "comparisons" / pair["id"] / "tokens.parquet"
    store.write_table(path, {**place, "token_id": ids, **values})
    texts = {str(k): f" w{k}" for k in range(VOCABULARY)}
    store.write_text(root / "corpus" / runs.SHA / store.TEXTS, store.dump_json(texts))
    for trace in (pair["train"], pair["infer"]) if topk else ():
        top = {name: np.repeat(column, topk) for name, column in place.items()}
        top["rank"] = np.tile(np.arange(topk, dtype=np.int32), n)
        top["token_id"] = rng.integers(0, VOCABULARY, n * topk).astype(np.int32)
        top["logprob"] = -0.5 * (1 + top["rank"]).astype(np.float32)
        store.write_table(root / "traces" / trace / "topk.parquet", top)
    return root


def in_browser(page: Path) -> str:
    """Seconds to load, to filter by size and by text, and to show the whole worst sequence."""
    if PROGRAM is None:
        return "no browser"
    with browsing() as browser:
        tab = Tab(browser)
        said = [f"load {tab.open(page):.2f} s"]
        for name, script in STEPS.items():
            start = time.perf_counter()
            tab.js(script)
            tab.js("document.body.offsetHeight")
            said.append(f"{name} {time.perf_counter() - start:.2f} s")
        assert not tab.complaints(), tab.complaints()
    return ", ".join(said)


_FIND = "viewers.all[0].part('{}').value = '{}'; viewers.all[0].filter()"
_FIRST = "viewers.all[0].sequence(0)"
STEPS = {
    "filter by size": _FIND.format("least", 0.1),
    "by text": _FIND.format("find", "w77"),
    "no filter": "viewers.all[0].reset()",
    "worst sequence whole": f"{_FIRST}.draw(0, {_FIRST}.found.size)",
}


def main(sizes: tuple[tuple[int, int, int], ...]) -> None:
    for sequences, length, topk in sizes:
        with tempfile.TemporaryDirectory() as place:
            root = folder(Path(place) / "run", sequences, length, topk)
            start = time.perf_counter()
            page = report.build(root)[1]
            took = time.perf_counter() - start
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
            size = page.stat().st_size / 1e6
            print(
                f"{sequences:,} x {length:,}, topk={topk}: written in {took:.1f} s, {size:.1f} MB, "
                f"peak {peak:.2f} GB of this process so far; {in_browser(page)}",
                flush=True,
            )


if __name__ == "__main__":
    asked = [int(word) for word in sys.argv[1:]]
    main(((asked[0], asked[1], (*asked, 0)[2]),) if asked else SIZES)
