"""The verbs, for notebooks and trainers; the command line is a thin layer over this file.

    from mismatch import api
    summary = api.run(model="ckpt", train="hf:dtype=bf16", infer="vllm:dtype=bf16",
                      prompts="prompts.jsonl", out="out")

Every function that returns a summary returns summary.json as a dictionary; `pairs`, `metrics`,
`tokens`, `breakdown`, `corrections`, `ess_by_length`, `forks`, `attributions` and `preflight_rows`
read a run folder into pandas frames (mismatch/frames.py has their columns). User errors are
`mismatch.errors.MismatchError`, with a sentence and an exit code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mismatch
from mismatch import gate as gates
from mismatch import report as reports
from mismatch import store
from mismatch.capture import environment
from mismatch.capture.claim import held
from mismatch.compare.compare import check, read_run
from mismatch.corpus.recorder import record
from mismatch.engines import ENGINES, find, parse_condition
from mismatch.engines.base import SHARED
from mismatch.errors import MismatchError
from mismatch.frames import (
    attributions,
    breakdown,
    corrections,
    ess_by_length,
    forks,
    metrics,
    pairs,
    preflight_rows,
    tokens,
)
from mismatch.glossary import METRICS
from mismatch.model import TRAIN_PATH, Floor, Sampling, given_path
from mismatch.selftest import run as selftests
from mismatch.selftest.captures import Setup
from mismatch.shapes import Failure
from mismatch.study import in_small, read_study
from mismatch.verbs import diff as diffs
from mismatch.verbs import imports, traces
from mismatch.verbs import retokenize as retokenized
from mismatch.verbs.conclude import conclude
from mismatch.verbs.grid import of_study
from mismatch.verbs.plan import chosen, plan_rows
from mismatch.verbs.request import choose_paths, read_ids, single
from mismatch.verbs.run import Notify
from mismatch.verbs.run import capture as capture_cells
from mismatch.verbs.run import run as run_request

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "attribute", "attributions", "breakdown", "build_engine", "capture", "captures_asked",
    "compare", "compare_traces", "corrections", "demo", "diff", "engine_options", "engines",
    "ess_by_length", "failures", "figure", "forks", "gate", "import_dumps", "metrics", "pairs",
    "plan", "plot", "preflight", "preflight_rows", "record", "report", "retokenize", "run",
    "run_study", "selftest", "tokens",
]  # fmt: skip

SHIPPED = Path(mismatch.__file__).parent / "shipped"


def _quiet(event: dict[str, Any]) -> None: ...


def _listed(given: Sequence[str | Path] | str | Path) -> list[str]:
    """One or several: a string is one, not a sequence of letters."""
    return [str(given)] if isinstance(given, str | Path) else [str(g) for g in given]


def run(
    *,
    model: str | Path,
    train: str,
    infer: str,
    out: str | Path,
    prompts: str | Path | None = None,
    corpus: str | Path | None = None,
    paths: Sequence[str] | str | None = None,
    repeats: int = 1,
    floor: Floor = "batch",
    samples: int = 1,
    max_tokens: int = 256,
    seed: int = 0,
    limit: int | None = None,
    timeout_s: float = 1800.0,
    trust_remote_code: bool = False,
    notify: Notify = _quiet,
) -> dict[str, Any]:
    """Replay one corpus through both engines, compare, report. Returns the summary.

    Captures that fail are kept under failed/ and stay in the summary as pairs without evidence;
    `failures(out)` lists them. The same call again resumes.
    """
    _check_counts(repeats, floor, samples, max_tokens)
    ends = parse_condition(train), parse_condition(infer)
    asked = None if paths is None else _listed(paths)
    request = single(
        model=given_path(model),
        train=ends[0],
        infer=ends[1],
        ids=read_ids(prompts, corpus, limit),
        paths=choose_paths(asked, with_corpus=corpus is not None, infer=ends[1]),
        repeats=repeats,
        floor=floor,
        sampling=Sampling(samples, max_tokens, seed) if corpus is None else None,
        trust_remote_code=trust_remote_code,
        timeout_s=timeout_s,
    )
    return run_request(request, given_path(out), notify)


def run_study(study: str | Path, out: str | Path, notify: Notify = _quiet) -> dict[str, Any]:
    """Every cell of a study.toml, its pairs and its report. Returns the summary."""
    return run_request(of_study(read_study(given_path(study))), given_path(out), notify)


def plan(study: str | Path, out: str | Path) -> dict[str, Any]:
    """The study's cells: id, load, captures, what is sealed in `out`, what is refused and why."""
    return plan_rows(of_study(read_study(given_path(study))), given_path(out))


def capture(
    study: str | Path, only: str, out: str | Path, notify: Notify = _quiet
) -> dict[str, Any]:
    """Take one cell's captures and compare nothing; returns the cell's row of `plan`."""
    request = of_study(read_study(given_path(study)))
    cells = chosen(request, only)
    capture_cells(request, cells, given_path(out), notify)
    return next(row for row in plan_rows(request, given_path(out))["cells"] if row["id"] == only)


def preflight(target: str | Path, out: str | Path, notify: Notify = _quiet) -> dict[str, Any]:
    """The ladder of every pair: of a run folder, or of a study that is first run in small.

    A study runs on its first 16 prompts, 64 tokens each, without floors, in `out`. Returns
    {"pairs": [{"id", "tokens", "preflight": [row, ...]}]}.
    """
    folder = given_path(target)
    if folder.suffix == ".toml":
        small = in_small(read_study(folder))
        run_request(of_study(small), given_path(out), notify)
        folder = given_path(out)
    keys = ("id", "tokens", "sequences", "nan_tokens", "inf_tokens", "preflight")
    return {"pairs": [{k: pair[k] for k in keys} for pair in check(folder)["pairs"]]}


def selftest(
    out: str | Path,
    *,
    engine: str | None = None,
    train: str | None = None,
    infer: str | None = None,
    model: str | Path | None = None,
    prompts: str | Path | None = None,
    seeds: int = 20,
    quick: bool = False,
    notify: Notify = _quiet,
) -> dict[str, Any]:
    """Put faults into real traces and engines and see whether they are named; selftest.json.

    engine: the one to try, on the side it stands on, against hf or vllm. quick: faults in values
    alone, two seeds.
    """
    ends = {"train": train or TRAIN, "infer": infer or INFER}
    if engine is not None:
        named = find(parse_condition(engine).engine)
        ends["train" if named.paths == {TRAIN_PATH} else "infer"] = engine
    shipped = SHIPPED / "llama-gsm-0.8m", SHIPPED / "demo-prompts.jsonl"
    checkpoint, file = given_path(model or shipped[0]), given_path(prompts or shipped[1])
    drawn = 2 if quick else seeds
    setup = Setup(checkpoint, file, ends["train"], ends["infer"], drawn, quick)
    return selftests.run(setup, given_path(out), notify)


#: The demo's two engines.
TRAIN, INFER = "hf:dtype=bf16,attention=sdpa", "vllm:dtype=bf16,eager=true"


def _check_counts(repeats: int, floor: str, samples: int, max_tokens: int) -> None:
    """What the command line checks by itself."""
    for name, number in (("repeats", repeats), ("samples", samples), ("max_tokens", max_tokens)):
        if number < 1:
            raise MismatchError("option-value", option=name, value=number, takes="a number >= 1")
    if floor not in ("batch", "none"):
        raise MismatchError("option-value", option="floor", value=floor, takes="batch|none")


def demo(out: str | Path, notify: Notify = _quiet) -> dict[str, Any]:
    """hf against vllm in bf16 on the shipped checkpoint: three paths, both floors, a report."""
    return run(
        model=SHIPPED / "llama-gsm-0.8m",
        train=TRAIN,
        infer=INFER,
        prompts=SHIPPED / "demo-prompts.jsonl",
        out=out,
        repeats=2,
        floor="batch",
        max_tokens=160,
        notify=notify,
    )


def failures(out: str | Path) -> list[dict[str, Any]]:
    """error.json of every capture that failed: causes first, then what failed because of them, and
    last the cells that this machine cannot run.
    """
    if not given_path(out).is_dir():
        raise MismatchError("file-missing", what="Folder", file=out)
    found = [
        store.read_json(p, Failure)
        for p in sorted((given_path(out) / "failed").glob("*/*/error.json"))
    ]
    last = {"NoCorpus": 1, "Refused": 2}
    return sorted(found, key=lambda error: last.get(error["type"], 0))


def captures_asked(out: str | Path) -> int:
    """How many captures a run folder holds or lacks: sealed and failed."""
    root = given_path(out)
    return sum(len(list(root.glob(f"{kind}/*/*/MANIFEST.json"))) for kind in ("traces", "failed"))


def import_dumps(
    format: str,
    files: Sequence[str | Path] | str | Path,
    out: str | Path,
    notify: Notify = _quiet,
) -> dict[str, Any]:
    """Log-probabilities that a trainer recorded -> traces, comparison, report. Needs no engine."""
    paths = [given_path(f) for f in _listed(files)]
    return imports.import_dumps(format, paths, given_path(out), notify)


def compare(folder: str | Path, notify: Notify = _quiet) -> dict[str, Any]:
    """Measure a run folder's traces again; rewrites comparisons/, summary.json and the report."""
    read_run(given_path(folder))
    with held(given_path(folder)):
        return conclude(given_path(folder), notify)


def compare_traces(
    left: str | Path, right: str | Path, out: str | Path, notify: Notify = _quiet
) -> dict[str, Any]:
    """Compare two sealed traces, from wherever they were taken; they are copied into `out`."""
    return traces.compare_traces(given_path(left), given_path(right), given_path(out), notify)


def diff(old: str | Path, new: str | Path, pair: str | None = None) -> dict[str, Any]:
    """What changed between two run folders, say before and after an upgrade: each key metric with
    the interval of its difference, what made the traces, and the preflight rungs.

    pair: only this one; `OLD_ID=NEW_ID` matches two of different names.
    """
    return diffs.diff(given_path(old), given_path(new), pair)


def retokenize(
    *,
    model: str | Path,
    rollouts: str | Path,
    out: str | Path,
    chat_template: str | Path | None = None,
    score: Sequence[str] | str = (),
    trust_remote_code: bool = False,
    notify: Notify = _quiet,
) -> dict[str, Any]:
    """Take rollouts through text and through messages, back to ids; returns retokenize.json.

    score: conditions whose engines score what came back, like `hf:dtype=bf16`.
    """
    return retokenized.retokenize(
        given_path(model),
        given_path(rollouts),
        given_path(out),
        None if chat_template is None else given_path(chat_template),
        _listed(score),
        trust_remote_code,
        notify,
    )


def attribute(folder: str | Path) -> dict[str, Any]:
    """{"attributions": [...]} of a study's folder: which knob owns which share of the gap."""
    found = check(given_path(folder)).get("attributions")
    if not found:
        raise MismatchError(
            "usage",
            what=f"{folder} has no attribution.",
            todo="Add [[attribute]] with left, right and path to the study file, and run it.",
        )
    return {"attributions": found}


def report(folder: str | Path, notify: Notify = _quiet) -> tuple[Path, Path]:
    """Write report.md and report.html of a run folder whose artifacts are all intact."""
    notify({"stage": "read"})
    check(given_path(folder))
    notify({"stage": "report"})
    with held(given_path(folder)):
        return reports.build(given_path(folder))


def gate(
    folder: str | Path,
    *,
    maximum: Sequence[str] | str = (),
    minimum: Sequence[str] | str = (),
    pair: str | None = None,
    junit: str | Path | None = None,
) -> dict[str, Any]:
    """Rules like `k3=1e-3` or `excess.k3=5e-4` against every train-infer pair, or the named one.

    junit: a file for CI, with a test case for each rule on each pair. It is written at once and
    says that there is no verdict until there is one.
    """
    if junit is not None:
        store.write_text(given_path(junit), reports.junit_xml([reports.UNFINISHED]))
    rules = [gates.parse_rule(text, "max", METRICS) for text in _listed(maximum)]
    rules += [gates.parse_rule(text, "min", METRICS) for text in _listed(minimum)]
    verdict = gates.judge(check(given_path(folder)), rules, pair)
    if junit is not None:
        store.write_text(given_path(junit), reports.junit_xml(verdict["rules"]))
    return verdict


def figure(name: str, folder: str | Path, pair: str | None = None, by: str | None = None) -> Figure:
    """A matplotlib Figure of a run folder: gap, hist, scatter, by, drift, ess, forks, corrections
    or waterfall. pair: its id; by: what the figure `by` cuts by.
    """
    from mismatch.report import figures  # matplotlib takes a second: only those who draw wait

    return figures.figure(name, given_path(folder), check(given_path(folder)), pair, by)


def plot(
    name: str,
    folder: str | Path,
    out: str | Path | None = None,
    pair: str | None = None,
    by: str | None = None,
) -> Path:
    """Write that figure as PNG, PDF or SVG, by the suffix of `out` (NAME.png); returns the file."""
    from mismatch.report import figures

    file = given_path(out or f"{name}.png")
    figures.save(figure(name, folder, pair, by), file)
    return file


def engines() -> list[environment.Status]:
    """Each engine: its interpreter and versions, or why it cannot run and what to do."""
    return [environment.status(engine) for engine in ENGINES.values()]


def engine_options(name: str) -> list[dict[str, str]]:
    """Each option of an engine: option, takes, scope (load or request), help."""
    options = {**find(name).options, **SHARED}
    return [
        {"option": key, "takes": o.takes, "scope": o.scope, "help": o.help}
        for key, o in options.items()
    ]


def build_engine(name: str, say: Callable[[str], None] = lambda text: None) -> Path:
    """Build (once) and cache the environment of an engine; returns its interpreter."""
    return environment.build(find(name), say)
