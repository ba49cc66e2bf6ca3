"""The study's cells as a page: what is promised, what was measured, what the rule marks."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.coverage import draws
from bench.coverage.study import KEYS, TRIALS
from mismatch.compare import trust

Found = Mapping[str, Any]

#: An interval fails where it covers less, or misses on one side more.
LEAST_COVERAGE, MOST_MISSES = 0.92, 0.05
#: What is promised for 50 and more sequences, t5 and strong correlation.
PROMISED = (LEAST_COVERAGE, 0.97)

WHAT = {
    "strong": "d correlates 0.25 inside a sequence (a normal sequence effect); the token noise has "
    "the tail. What is promised is promised here.",
    "weak": "d correlates 0.02 inside a sequence. Real pairs (a small Llama, hf against vllm in "
    "bf16, fp16 and fp32) show a correlation of 0.00.",
    "sizes": "No bias: a sequence has a scale of its own for its token noise, lognormal of 0.3. "
    "The same real pairs have such sizes, with about half of the design effect.",
    "heavy sequences": "d correlates 0.25, and the sequence effect has the tail as well: a few "
    "sequences are biased unlike all others, and d² takes the tail to its square. No bootstrap can "
    "know of a sequence that it did not see.",
    "sparse floors": "A gap of weak correlation over small floors, as engines in another batch "
    "often have: bit-equal on nine sequences of ten, and "
    f"{draws.SETTINGS['sparse floors'].floor_rms} nats rms over all tokens.",
}


TITLES = {
    "strong": "Strong correlation",
    "weak": "Weak correlation",
    "sizes": "Sequences of different size",
    "heavy sequences": "Heavy sequences",
    "sparse floors": "Sparse floors",
}


def page(found: Sequence[Found]) -> str:
    blocks = [_head(), _promise(found), _rule(found), *(_setting(name, found) for name in WHAT)]
    return "\n\n".join(blocks) + "\n"


# ---------------------------------------------------------------- numbers


def share(count: int, of: int) -> str:
    """`0.941 ±0.005`: with its Monte-Carlo standard error."""
    if not of:
        return "—"
    p = count / of
    return f"{p:.3f} ±{math.sqrt(p * (1 - p) / of):.3f}"


def misses(found: Found, key: str, unmarked: bool = False) -> tuple[int, int, int]:
    """Trials, intervals wholly above the truth, wholly below it; of all or of the unmarked."""
    n, counts = found["cell"]["trials"], found["counts"]
    above, below = (counts.get(f"{key} {side}", 0) for side in ("above", "below"))
    if not unmarked:
        return n, above, below
    marked = (counts.get(f"{key} marked{side}", 0) for side in ("", " above", " below"))
    return tuple(a - b for a, b in zip((n, above, below), marked, strict=True))  # type: ignore[return-value]


def fails(found: Found, key: str) -> bool:
    """Whether the interval fails in this cell, all trials counted, by more than chance explains."""
    n, above, below = misses(found, key)
    return _over((above + below) / n, 1 - LEAST_COVERAGE, n) or _over(
        max(above, below) / n, MOST_MISSES, n
    )


def _over(p: float, limit: float, n: int) -> bool:
    """Above the limit by more than one Monte-Carlo standard error."""
    return p - math.sqrt(p * (1 - p) / n) > limit


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _where(found: Found) -> list[str]:
    return [str(found["cell"]["tail"]), str(found["cell"]["sequences"])]


# ---------------------------------------------------------------- the parts of the page


def _prose(text: str) -> str:
    """Paragraphs, each broken at 100 columns."""
    return "\n\n".join(textwrap.fill(" ".join(p.split()), 100) for p in text.split("\n\n"))


def _head() -> str:
    return "# Do the intervals hold?\n\n" + _prose(f"""
`make coverage` makes this page and `cells/`. {TRIALS:,} trials a cell; each draws a gap and the
batch floors of both sides with known truth, and gives them to the program's own `measure` and
`gate`. d = mean + size (√rho · sequence effect + √(1 - rho) · token noise). The gap has rms
{draws.GAP_RMS} and mean {draws.GAP_MEAN} nats; a floor has rms {draws.FLOOR_RMS} (but for sparse
ones) and mean 0, as independent noise on the same tokens. A sequence has {draws.SHORTEST} to
{draws.LONGEST} scored tokens, log-uniform. Tails, each of mean 0 and variance 1: normal, Student's
t with 5 degrees of freedom, lognormal of scale {draws.LOGNORMAL_SCALE} (skewed to the right). t5
and lognormal are cut at their 1e-9 quantiles: an uncut one has no mean of exp(d), so no k3.

The truth is closed for k1 and k2, and with a normal bias and a normal tail for k3 and mean |d|;
elsewhere it is a numerical integral, of which half of the points change no value by 1e-6 of itself.
Every
trial has its own seed, for what it draws and for its 2,000 resamples. ± is one Monte-Carlo standard
error.

*above*: the whole interval lies above the truth (0.025 would be exact); *below*: wholly below it.
*gate pass*, *gate fail*: `--max` with its limit exactly at the truth. Either is an error there, and
0.025 would be exact. *marked*: `interval not trusted`, which the gate neither passes nor fails.
**Bold**: the interval fails in this cell: it covers less than {LEAST_COVERAGE:g}, or misses more
than {MOST_MISSES:g} on one side, by more than its ±. Fewer than 8 sequences have no interval at
all.""")


def _promise(grid: Sequence[Found]) -> str:
    chosen = [
        f
        for f in grid
        if f["cell"]["setting"] == "strong"
        and f["cell"]["tail"] == "t5"
        and f["cell"]["sequences"] >= trust.ENOUGH_SEQUENCES
    ]
    rows = [
        [f"`{key}`", str(f["cell"]["sequences"]), *_coverage(f, key), _kept(f, key)]
        for f in chosen
        for key in KEYS
    ]
    low, high = PROMISED
    return (
        "## What is promised\n\nAt 50 and more sequences with t5 tails and strong correlation: "
        f"coverage in [{low:g}, {high:g}], at most {MOST_MISSES:.0%} missed on one side.\n\n"
        + _table(("metric", "sequences", "coverage", "above", "below", "holds"), rows)
    )


def _kept(found: Found, key: str) -> str:
    n, above, below = misses(found, key)
    low, high = PROMISED
    covered = low <= 1 - (above + below) / n <= high
    return "yes" if covered and max(above, below) / n <= MOST_MISSES else "**no**"


def _coverage(found: Found, key: str, unmarked: bool = False) -> list[str]:
    n, above, below = misses(found, key, unmarked)
    return [share(n - above - below, n), share(above, n), share(below, n)]


def _rule(grid: Sequence[Found]) -> str:
    sizes, signed = (", ".join(f"`{k}`" for k in keys) for keys in (trust.SIZES, trust.SIGNED))
    head = (
        "setting",
        "cells that fail: marked",
        "cells that hold: marked",
        "gate pass at the truth",
    )
    rows = [[name, *_caught(grid, name)] for name in WHAT]
    said = _prose(f"""
In `mismatch/compare/trust.py`. Metrics of the size of d ({sizes} and the excess) are not trusted
where there are fewer than {trust.ENOUGH_SEQUENCES} sequences and these differ too much: in *bias*,
the squared correlation of d inside a sequence times the tokens of a sequence, above
{trust.MOST_BIAS:g}; or in size, where their *clustering*, the design effect of mean d² (its
variance over that of independent tokens) over their number, is above {trust.MOST_CLUSTERING:g}.
They and {signed} are not trusted, with any number of sequences, where the *kurtosis* of the
sequences' mean d, each over its expected standard deviation, is above {trust.MOST_KURTOSIS:g}
(normal: 3). An excess is trusted where its gap is, and both floors are or are too small to matter:
below {trust.MATERIAL:g} of the half-width of the gap's own interval. Other metrics are not in this
study and are never marked.

The number of sequences alone would not do: 20 sequences that hardly matter hold the truth, 20 that
matter do not. But a rule that reads the sample clears the luckier ones, which are those that miss:
compare *below* with *unmarked: below*. The gate's errors are what is left, since they count the
marked as neither. The skewness of the metric's own sums would be the worst thing to read.""")
    more = _prose("""
(Means over the cells and metrics of a setting; a metric in a cell is one.) With heavy sequences the
rule catches a part: a sample without the heavy ones looks like any other. Who has reason to expect
such sequences should take the miss rates from the tables of heavy sequences. The cells that fail
and are marked in less than half of the trials, with the gate's pass at the truth:""")
    return f"## The rule\n\n{said}\n\n{_table(head, rows)}\n\n{more}\n\n{_missed(grid)}"


def _missed(grid: Sequence[Found]) -> str:
    found = [(f, key) for f in grid for key in KEYS if fails(f, key) and _marked(f, key) < 0.5]
    rows = [
        [
            f["cell"]["setting"],
            *_where(f),
            f"`{key}`",
            f"{_marked(f, key):.0%}",
            share(f["counts"].get(f"{key} pass", 0), f["cell"]["trials"]),
        ]
        for f, key in found
    ]
    return _table(("setting", "tail", "sequences", "metric", "marked", "gate pass"), rows)


def _caught(grid: Sequence[Found], name: str) -> list[str]:
    pairs = [(f, key) for f in grid if f["cell"]["setting"] == name for key in KEYS]
    bad = [_marked(f, key) for f, key in pairs if fails(f, key)]
    good = [_marked(f, key) for f, key in pairs if not fails(f, key)]
    passed = [f["counts"].get(f"{key} pass", 0) / f["cell"]["trials"] for f, key in pairs]
    return [_mean(bad), _mean(good), f"{min(passed):.3f} to {max(passed):.3f}" if passed else "—"]


def _mean(shares: Sequence[float]) -> str:
    return f"{sum(shares) / len(shares):.0%} of {len(shares)}" if shares else "none"


def _marked(found: Found, key: str) -> float:
    return float(found["counts"].get(f"{key} marked", 0) / found["cell"]["trials"])


def _setting(name: str, grid: Sequence[Found]) -> str:
    chosen = [f for f in grid if f["cell"]["setting"] == name]
    title = f"## {TITLES[name]}"
    more = " With a normal tail this is strong correlation." if draws.SETTINGS[name].heavy else ""
    tables = [f"### `{key}`\n\n" + _metric(chosen, key) for key in KEYS]
    return "\n\n".join([title, _prose(WHAT[name] + more), *tables])


def _metric(chosen: Sequence[Found], key: str) -> str:
    head = ("tail", "sequences", "coverage", "above", "below", "gate pass", "gate fail", "marked",
            "unmarked: coverage", "above", "below")  # fmt: skip
    return _table(head, [_row(f, key) for f in chosen])


def _row(found: Found, key: str) -> list[str]:
    n, counts = found["cell"]["trials"], found["counts"]
    covered, *sides = _coverage(found, key)
    gate = [share(counts.get(f"{key} {verdict}", 0), n) for verdict in ("pass", "fail")]
    if fails(found, key):
        covered = f"**{covered}**"
    marked = f"{_marked(found, key):.1%}"
    return [*_where(found), covered, *sides, *gate, marked, *_coverage(found, key, unmarked=True)]
