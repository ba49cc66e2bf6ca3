"""The command line: a function per verb, each a few lines over mismatch.api."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Column, Table

import mismatch
from mismatch import api
from mismatch.engines import find
from mismatch.errors import (
    BAD_INPUT,
    GATE_FAILED,
    INTERRUPTED,
    NO_EVIDENCE,
    PASS,
    MismatchError,
)
from mismatch.progress import Progress
from mismatch.report import cells, change, ladder, tables
from mismatch.screen import ERR, OUT, print_error, print_json, print_verdict, say

app = typer.Typer(
    name="mismatch-probe",
    help="How far do your trainer and your rollout engine disagree on the same tokens?",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
engines_app = typer.Typer(help="List engines, or build one's environment.", rich_markup_mode=None)
app.add_typer(engines_app, name="engines", invoke_without_command=True)

Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout.")]
Out = Annotated[Path, typer.Option("--out", help="Output folder; the same command resumes it.")]
StudyFile = Annotated[Path, typer.Argument(help="A study.toml.")]
StudyOut = Annotated[
    Path | None,
    typer.Option("--out", help="Output folder; the same command resumes it (a study: STEM-out)."),
]
Folder = Annotated[Path, typer.Argument(help="A folder written by run, import or compare.")]


def _show(summary: dict[str, Any], folder: Path, as_json: bool) -> None:
    if as_json:
        print_json(summary)
        return
    tables.terminal(summary, OUT)
    OUT.print()
    say(OUT, f"report: {folder / 'report.html'}")


def _compared(summary: dict[str, Any], folder: Path, as_json: bool) -> None:
    """Show a comparison; comparing no token at all is never a pass."""
    _show(summary, folder, as_json)
    if not _has_tokens(summary):
        raise typer.Exit(NO_EVIDENCE)


def _has_tokens(summary: dict[str, Any]) -> bool:
    """Of trainer against engine, where that is compared at all; two paths of one engine agreeing
    say nothing about the trainer."""
    pairs = summary["pairs"]
    across = [pair for pair in pairs if pair["kind"] == "train-infer"]
    return any(pair["tokens"] for pair in across or pairs)


def _captured(summary: dict[str, Any], out: Path, as_json: bool) -> None:
    """Show a run's result; the exit code tells whether captures are missing."""
    failed = api.failures(out)
    compared = any(pair["tokens"] for pair in summary["pairs"])
    if compared:  # a cell that this machine cannot run is in the report; it did not fail
        failed = [e for e in failed if e["type"] != "Refused"]
    if failed:
        first = f"{failed[0]['condition']} {failed[0]['capture']} at {failed[0]['boundary']}: "
        fields = {"first": first + failed[0]["message"].rstrip("."), "logs": out / "failed"}
        total = api.captures_asked(out)
        if len(failed) == total:
            raise MismatchError("captures-failed-all", **fields)
        _show(summary, out, as_json)
        error = MismatchError("captures-failed-some", count=len(failed), total=total, **fields)
        print_error(error)
        raise typer.Exit(error.exit_code)
    _compared(summary, out, as_json)


@app.command()
def demo(out: Out = Path("demo-out"), json: Json = False) -> None:
    """hf against vllm in bf16 on a shipped small checkpoint: a report in two minutes."""
    with Progress(ERR) as progress:
        summary = api.demo(out, notify=progress.notify)
    _captured(summary, out, json)


@app.command()
def run(
    context: typer.Context,
    study: Annotated[
        Path | None, typer.Argument(help="A study.toml, in place of --model, --train and --infer.")
    ] = None,
    model: Annotated[Path | None, typer.Option(help="Hugging Face checkpoint folder.")] = None,
    train: Annotated[str | None, typer.Option(help="Train side: ENGINE[:key=value,...].")] = None,
    infer: Annotated[str | None, typer.Option(help="Infer side: ENGINE[:key=value,...].")] = None,
    out: StudyOut = None,
    prompts: Annotated[Path | None, typer.Option(help="JSONL prompts to roll out.")] = None,
    corpus: Annotated[
        Path | None, typer.Option(help="JSONL ids, or a corpus folder, to replay.")
    ] = None,
    paths: Annotated[
        str | None, typer.Option(help="Of rollout,decode,prefill, with commas.")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, max=9, help="Captures of each path.")] = 1,
    floor: Annotated[str, typer.Option(help="batch: measure the batch floor too; none.")] = "batch",
    samples: Annotated[int, typer.Option(min=1, help="Rollouts per prompt.")] = 1,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest rollout.")] = 256,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the rollouts.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first rows.")] = None,
    timeout: Annotated[float, typer.Option(min=1, help="Seconds without a sign of life.")] = 1800.0,
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let the checkpoint's own code run.")
    ] = False,
    json: Json = False,
) -> None:
    """Replay the same tokens through both engines, compare them, write the report.

    Either a study file, which says everything, or --model, --train, --infer and --out.
    """
    if study is not None:
        _refuse(
            context,
            [name for name in context.params if name not in _BESIDE_STUDY],
            "cannot stand beside a study file, which says it.",
            "Write it into the study file.",
        )
        place = _study_out(study, out)
        with Progress(ERR) as progress:
            summary = api.run_study(study, place, notify=progress.notify)
        _captured(summary, place, json)
        return
    if model is None or train is None or infer is None or out is None:
        raise MismatchError(
            "usage",
            what="run takes a study file, or --model, --train, --infer and --out.",
            todo="See: mismatch-probe run --help",
        )
    if corpus is not None:
        _refuse(
            context,
            _OF_A_DRAW,
            "says how to draw ids, and --corpus gives them.",
            "Leave it out, or give --prompts in place of --corpus.",
        )
    with Progress(ERR) as progress:
        summary = api.run(
            model=model, train=train, infer=infer, out=out, prompts=prompts, corpus=corpus,
            paths=None if paths is None else [p.strip() for p in paths.split(",") if p.strip()],
            repeats=repeats, floor=floor,  # type: ignore[arg-type]
            samples=samples, max_tokens=max_tokens, seed=seed, limit=limit, timeout_s=timeout,
            trust_remote_code=trust_remote_code, notify=progress.notify,
        )  # fmt: skip
    _captured(summary, out, json)


#: What may stand beside a study file, and what only says how ids are drawn.
_BESIDE_STUDY = ("study", "out", "json")
_OF_A_DRAW = ("samples", "max_tokens", "seed")


def _refuse(context: typer.Context, names: Iterable[str], what: str, todo: str) -> None:
    """Options stated on the command line that something else there leaves no say."""
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise MismatchError("usage", what=f"--{name.replace('_', '-')} {what}", todo=todo)


def _study_out(study: Path, out: Path | None) -> Path:
    """--out, else a folder named after the study file, where we stand."""
    return out if out is not None else Path(f"{study.stem}-out")


@app.command()
def plan(study: StudyFile, out: StudyOut = None, json: Json = False) -> None:
    """Every cell of a study: its load, what is sealed already, what is refused and why.

    Exit 2 where a run would stop.
    """
    found = api.plan(study, _study_out(study, out))
    if json:
        print_json(found)
    else:
        cells.plan(found, OUT)
    if found["refused"]:
        raise typer.Exit(BAD_INPUT)


@app.command()
def capture(
    study: StudyFile,
    only: Annotated[str, typer.Option(help="The id of one cell, as plan prints it.")],
    out: StudyOut = None,
    json: Json = False,
) -> None:
    """Take the captures of one cell of a study; `run STUDY` later compares what is there."""
    place = _study_out(study, out)
    with Progress(ERR) as progress:
        row = api.capture(study, only, place, notify=progress.notify)
    if json:
        print_json(row)
    else:
        say(OUT, f"{only}: {row['sealed']} of {len(row['captures'])} captures sealed")
    if row["sealed"] < len(row["captures"]):
        failed = [e for e in api.failures(place) if e["condition"] == row["condition"]]
        said = (f"{e['capture']} at {e['boundary']}: {e['message']}" for e in failed)
        first = next(said, "no reason was recorded")
        fields = {"first": first, "logs": place / "failed"}
        if not row["sealed"]:
            raise MismatchError("captures-failed-all", **fields)
        missing, total = len(row["captures"]) - row["sealed"], len(row["captures"])
        raise MismatchError("captures-failed-some", count=missing, total=total, **fields)


@app.command()
def preflight(
    target: Annotated[Path, typer.Argument(help="A run folder, or a study.toml to run in small.")],
    out: Annotated[
        Path | None, typer.Option(help="Output folder of a study (STEM-preflight).")
    ] = None,
    json: Json = False,
) -> None:
    """The ladder of every pair, rung by rung: what broke, before any number is believed.

    Exit 5 where a rung fails, 4 where no token was compared.
    """
    with Progress(ERR) as progress:
        place = out or Path(f"{target.stem}-preflight")
        found = api.preflight(target, place, notify=progress.notify)
    if json:
        print_json(found)
    else:
        ladder.ladder(found, OUT)
    raise typer.Exit(ladder.exit_code(found))


@app.command()
def selftest(
    engine: Annotated[
        str | None, typer.Option(help="The engine to try: ENGINE[:key=value,...].")
    ] = None,
    train: Annotated[str | None, typer.Option(help="Train side (hf in bf16).")] = None,
    infer: Annotated[str | None, typer.Option(help="Infer side (vllm in bf16, eager).")] = None,
    model: Annotated[Path | None, typer.Option(help="Checkpoint (the shipped one).")] = None,
    prompts: Annotated[Path | None, typer.Option(help="JSONL prompts (shipped ones).")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Clean pairs that must raise nothing.")] = 20,
    quick: Annotated[bool, typer.Option("--quick", help="Faults in values, two seeds.")] = False,
    out: Out = Path("selftest-out"),
    json: Json = False,
) -> None:
    """Put faults into real traces and live engines, and see that each is named.

    Exit 1 where one was missed, or a clean pair raised something.
    """
    with Progress(ERR) as progress:
        found = api.selftest(
            out, engine=engine, train=train, infer=infer, model=model, prompts=prompts,
            seeds=seeds, quick=quick, notify=progress.notify,
        )  # fmt: skip
    if json:
        print_json(found)
    else:
        ladder.selftest(found, OUT)
        OUT.print(f"\ntable: {escape(str(out / 'selftest.md'))}", soft_wrap=True)
    raise typer.Exit(PASS if found["passed"] else GATE_FAILED)


@app.command()
def compare(
    traces: Annotated[list[Path], typer.Argument(help="A run folder, or two trace folders.")],
    out: Annotated[Path | None, typer.Option(help="Output folder, with two traces.")] = None,
    json: Json = False,
) -> None:
    """Measure a run folder's pairs again, or compare two traces from anywhere."""
    if len(traces) == 1 and out is None:
        with Progress(ERR) as progress:
            summary = api.compare(traces[0], progress.notify)
        _compared(summary, traces[0], json)
    elif len(traces) == 2 and out is not None:
        with Progress(ERR) as progress:
            summary = api.compare_traces(traces[0], traces[1], out, progress.notify)
        _compared(summary, out, json)
    else:
        raise MismatchError(
            "usage",
            what="compare takes one run folder, or two traces and --out.",
            todo="compare DIR | compare TRACE_A TRACE_B --out DIR",
        )


@app.command()
def diff(
    old: Annotated[Path, typer.Argument(help="A run folder, say from before an upgrade.")],
    new: Annotated[Path, typer.Argument(help="The one to hold against it.")],
    pair: Annotated[
        str | None, typer.Option(help="Only this pair; OLD_ID=NEW_ID matches two names.")
    ] = None,
    json: Json = False,
) -> None:
    """What changed between two runs, and whether it is more than noise. Exit 0: it is no gate."""
    found = api.diff(old, new, pair)
    if json:
        print_json(found)
    else:
        change.diff(found, OUT)


@app.command("import")
def import_(
    files: Annotated[list[Path], typer.Argument(help="Dump files, or a folder that holds them.")],
    format: Annotated[str, typer.Option(help="jsonl, prime-rl or nemo-rl.")],
    out: Out,
    json: Json = False,
) -> None:
    """Read log-probabilities that a trainer recorded; no engine is needed."""
    with Progress(ERR) as progress:
        summary = api.import_dumps(format, files, out, progress.notify)
    _compared(summary, out, json)


@app.command()
def retokenize(
    model: Annotated[Path, typer.Option(help="Hugging Face checkpoint folder.")],
    rollouts: Annotated[Path, typer.Option(help="JSONL rollouts as ids, with their messages.")],
    out: Out,
    chat_template: Annotated[
        Path | None, typer.Option(help="A Jinja chat template (default: the checkpoint's own).")
    ] = None,
    score: Annotated[
        list[str], typer.Option(help="An engine that scores what comes back: ENGINE[:key=value,..]")
    ] = [],  # noqa: B006
    trust_remote_code: Annotated[
        bool, typer.Option("--trust-remote-code", help="Let the checkpoint's own code run.")
    ] = False,
    json: Json = False,
) -> None:
    """Rollouts through text, and through messages and a chat template: which ids come back?"""
    with Progress(ERR) as progress:
        found = api.retokenize(
            model=model, rollouts=rollouts, out=out, chat_template=chat_template, score=score,
            trust_remote_code=trust_remote_code, notify=progress.notify,
        )  # fmt: skip
    if json:
        print_json(found)
    else:
        tables.retokenized(found, OUT)
        OUT.print(f"\nreport: {escape(str(out / 'retokenize.html'))}", soft_wrap=True)


@app.command()
def attribute(folder: Folder, json: Json = False) -> None:
    """The share of the gap that each knob owns, for the attributions that a study asks for."""
    found = api.attribute(folder)
    if json:
        print_json(found)
    else:
        tables.attributions(found, OUT)
    if any(not one["tokens"] for one in found["attributions"]):
        raise typer.Exit(NO_EVIDENCE)


@app.command()
def report(folder: Folder, json: Json = False) -> None:
    """Write report.md and report.html again."""
    with Progress(ERR) as progress:
        written = api.report(folder, progress.notify)
    if json:
        print_json({"written": [p.name for p in written]})
    else:
        for path in written:
            say(OUT, str(path))


@app.command()
def plot(
    name: Annotated[
        str,
        typer.Argument(help="gap, hist, scatter, by, drift, ess, forks, corrections or waterfall."),
    ],
    folder: Folder,
    pair: Annotated[
        str | None, typer.Option(help="A pair's id (an attribution's, for waterfall).")
    ] = None,
    by: Annotated[
        str | None,
        typer.Option(help="by: probability, position, length, entropy, token_type or turn."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A .png, .pdf or .svg (NAME.png).")] = None,
    json: Json = False,
) -> None:
    """Draw one figure, fit for a paper: one column wide, with n and intervals in its caption."""
    file = api.plot(name, folder, out, pair, by)
    if json:
        print_json({"written": [file.name]})
    else:
        say(OUT, str(file))


@app.command()
def gate(
    folder: Folder,
    max: Annotated[list[str], typer.Option(help="KEY=X: the 95% bound must not exceed X.")] = [],  # noqa: B006
    min: Annotated[list[str], typer.Option(help="KEY=X: the 95% bound must reach X.")] = [],  # noqa: B006
    pair: Annotated[str | None, typer.Option(help="Only this pair.")] = None,
    junit: Annotated[
        Path | None, typer.Option(help="A junit.xml for CI: one test case a rule and pair.")
    ] = None,
    json: Json = False,
) -> None:
    """Pass, fail, inconclusive, no evidence or not comparable: exit 0, 1, 4, 4, 5."""
    verdict = api.gate(folder, maximum=max, minimum=min, pair=pair, junit=junit)
    if json:
        print_json(verdict)
    else:
        print_verdict(verdict, OUT)
    raise typer.Exit(verdict["exit_code"])


@engines_app.callback()
def engines(context: typer.Context, json: Json = False) -> None:
    """Each engine, its version and interpreter, or why it cannot run and what to do."""
    if context.invoked_subcommand:
        return
    found = api.engines()
    if json:
        print_json({"engines": [asdict(s) for s in found]})
        return
    # A path that is cut off is of no use.
    last = Column("interpreter, or what to do", overflow="fold")
    table = Table("engine", "runs", "versions", last)
    for s in found:
        versions = " ".join(f"{k} {v}" for k, v in s.versions.items() if k != "python")
        where = f"{s.python} ({s.source})" if s.ok else f"{s.reason}. Run: {s.todo}"
        table.add_row(s.engine, "yes" if s.ok else "no", escape(versions), escape(where))
    OUT.print(table)


@engines_app.command("options")
def engines_options(name: str, json: Json = False) -> None:
    """Every option of one engine: what it takes, and whether it needs a load of its own."""
    found = api.engine_options(name)
    if json:
        print_json({"engine": name, "options": found})
        return
    table = Table("option", Column("takes", overflow="fold"), "of", "what it is")
    for row in found:
        table.add_row(*(escape(row[key]) for key in ("option", "takes", "scope", "help")))
    OUT.print(table)
    OUT.print("of: load = an engine of its own; request = may share a load; "
              f"{find(name).arguments}.")  # fmt: skip


@engines_app.command("build")
def engines_build(name: str) -> None:
    """Build and cache an environment for one engine (hf and vllm share theirs on a CPU)."""
    python = api.build_engine(name, say=lambda text: say(ERR, text))
    say(OUT, str(python))


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"mismatch-probe {mismatch.__version__}")
        raise typer.Exit


# ---------------------------------------------------------------- errors


def _stop(signum: int, frame: object) -> None:
    raise KeyboardInterrupt


def main() -> None:
    """Run the command; every error leaves by its own exit code and one sentence."""
    signal.signal(signal.SIGTERM, _stop)
    as_json = "--json" in sys.argv
    words = sys.argv[1:] or ["--help"]
    sys.exit(_guarded(lambda: app(words, standalone_mode=False), as_json))


def _guarded(command: Callable[[], Any], as_json: bool) -> int:
    try:
        code = command()
    except MismatchError as error:
        return _leave(error, as_json)
    except (KeyboardInterrupt, typer.Abort):
        return _leave(MismatchError("interrupted"), as_json)
    except Exception as reason:
        usage = _usage(reason)
        if usage is not None:
            return _leave(usage, as_json)
        if os.environ.get("MISMATCH_DEBUG"):
            traceback.print_exc()
        return _leave(MismatchError("bug", reason=f"{type(reason).__name__}: {reason}"), as_json)
    if code == INTERRUPTED:  # typer turns Ctrl-C into this code, without a word
        return _leave(MismatchError("interrupted"), as_json)
    return code if isinstance(code, int) else 0


def _usage(reason: Exception) -> MismatchError | None:
    """typer's own complaints (an unknown flag, a missing value) as our usage error."""
    message = getattr(reason, "format_message", None)
    if message is None:
        return None
    context = getattr(reason, "ctx", None)
    verbs: list[str] = []
    while context is not None and context.parent is not None:  # the root is the program itself
        verbs.insert(0, str(context.info_name))
        context = context.parent
    words = shlex.join(["mismatch-probe", *verbs, "--help"])
    return MismatchError("usage", what=str(message()), todo=f"See: {words}")


def _leave(error: MismatchError, as_json: bool) -> int:
    if as_json:
        print_json(error.as_json())
    print_error(error)
    return error.exit_code


if __name__ == "__main__":  # python -m mismatch.cli must not end in silence
    main()
