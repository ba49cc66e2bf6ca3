"""The command line: any words end in an exit code that is written down, never in a traceback."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main
from hypothesis import example, given
from hypothesis import strategies as st

from mismatch import cli
from mismatch.engines import ENGINES
from mismatch.glossary import METRICS
from tests import known
from tests.fuzz import folders
from tests.fuzz.fence import TRIED, controls, inputs, place, untouched
from tests.fuzz.garbage import HOSTILE, TEXT
from tests.fuzz.test_rows import DUMPS, lines
from tests.fuzz.test_study_files import STUDY, written

#: README: what a command may exit with. 70 is a bug.
CODES = {0, 1, 2, 3, 4, 5, 6, 7, 130}


def _words() -> tuple[dict[str, list[str]], list[str]]:
    """The commands with their options, as typer knows them."""
    group: Any = typer.main.get_command(cli.app)
    found = {}
    for name, command in group.commands.items():
        inner = getattr(command, "commands", None) or {"": command}
        for below, one in inner.items():
            options = [o for p in one.params for o in p.opts if o.startswith("-")]
            found[f"{name} {below}".strip()] = options
    return found, [o for p in group.params for o in p.opts]


COMMANDS, GLOBAL = _words()
#: What stands in the folder where the commands run, and what they take.
FILES = ["run", "run/traces/hf/score-1", "run/traces/vllm/decode-1", "study.toml", "dump.jsonl"]
FILES += ["ckpt", "ids.jsonl", "prompts.jsonl", "run/corpus", "new", "nowhere", "."]
VALUES = [
    *FILES,
    *ENGINES,
    "toy:noise=0.1",
    "toy:dtype=fp16",
    "hf:dtype=bf16",
    "jsonl",
    "prime-rl",
    "nemo-rl",
]
VALUES += ["decode", "rollout,decode", "batch", "none", "0", "1", "2", "-1", "1e9", "stale", "--"]
VALUES += [f"{key}={x}" for key in [*METRICS][:5] for x in ("1e300", "-1", "nan", "x")]
VALUES += ["excess.k3=1", folders.PAIR.id]
#: A name that is no UTF-8, as a shell may hand one over; a zero byte cannot be handed over.
WORDS = [h for h in HOSTILE if "\0" not in h and "\ud800" not in h and h[:1] != "/"] + ["\udcff"]
VALUE = st.one_of(
    st.sampled_from(VALUES),
    st.sampled_from(VALUES),
    st.sampled_from(WORDS),
    TEXT.filter(lambda t: "\0" not in t and t[:1] != "/"),
)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A real command with options of its own or of others, most with a value."""
    name = draw(st.sampled_from(sorted(COMMANDS)))
    own = st.sampled_from(COMMANDS[name] or ["--json"])
    others = st.sampled_from(sorted({o for options in COMMANDS.values() for o in options}))
    words = name.split()
    for _ in range(draw(st.integers(0, 6))):
        words += draw(
            st.one_of(
                VALUE.map(lambda v: [v]),
                st.tuples(own, VALUE).map(list),
                st.tuples(own, VALUE).map(list),
                own.map(lambda o: [o]),
                st.tuples(others, VALUE).map("=".join).map(lambda w: [w]),
            )
        )
    return words


#: Each command as it should be written, so that what follows the parsing is met as well.
WHOLE = [
    "run --model ckpt --train toy --infer toy:noise=0.1 --corpus ids.jsonl --out new --json",
    "run --model ckpt --train toy --infer toy --prompts prompts.jsonl --max-tokens 8 --out new",
    "run study.toml --out new",
    "plan study.toml",
    "capture study.toml --only stale --out new",
    "compare run --json",
    "compare run/traces/hf/score-1 run/traces/vllm/decode-1 --out new",
    "import dump.jsonl --format jsonl --out new",
    "attribute run",
    "report run --json",
    "gate run --max k3=1e300",
    "gate run --max k3=1e-9 --json",
    "demo --out new",
    "engines",
    "engines options toy",
    "engines build hf",
]


@st.composite
def spoilt(draw: st.DrawFn) -> list[str]:
    """A whole command with a word or two put in place of others, added or taken away."""
    words = draw(st.sampled_from(WHOLE)).split()
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(words) - 1))
        words[at : at + draw(st.integers(0, 1))] = draw(st.lists(VALUE, max_size=1))
        words = words or [""]
    return words


@pytest.fixture(scope="module")
def here(cheap: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run, a study, a dump, ids, prompts and a checkpoint."""
    root = tmp_path_factory.mktemp("command-line") / "here"
    folders.whole_run(root / "run")
    known.write_checkpoint(root / "ckpt", attention=False)
    (root / "study.toml").write_bytes(written(STUDY))
    (root / "dump.jsonl").write_bytes(lines(DUMPS["jsonl"]))
    (root / "ids.jsonl").write_text('{"token_ids": [1, 2, 3]}\n' * 3)
    (root / "prompts.jsonl").write_text('{"token_ids": [1, 2]}\n')
    return root


def called(words: list[str]) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of the program, in this process and on strict UTF-8."""
    out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors=e) for e in ("strict", "replace"))
    sys.argv, before = ["mismatch-probe", *words], sys.argv
    code: Any = None
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as left:
        code = left.code
    finally:
        sys.argv = before
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for stream in (out, err):
        stream.flush()
    shown = [stream.buffer.getvalue().decode() for stream in (out, err)]  # type: ignore[attr-defined]
    return code, shown[0], shown[1]


@pytest.mark.usefixtures("no_engine")
@inputs(100)
@given(words=st.one_of(command_lines(), spoilt(), st.lists(VALUE, max_size=4)))
@example(words=["report", "\udcff", "--json"])
@example(words=["gate", "run", "--max", "\x1b[31m=1"])
@example(words=["run", "--model", "\udcff", "--train", "toy", "--infer", "toy", "--out", "new"])
def test_any_command_line_ends_in_a_known_exit_code(words: list[str], here: Path) -> None:
    """One of the written exit codes, no traceback, no control character on the screen, one JSON
    document where one was asked for, and nothing changed beside the folder where it ran.
    """
    TRIED["command lines"] += 1
    with place() as root:
        shutil.copytree(here, root / "here", dirs_exist_ok=True)
        with untouched(root, "here"):
            code, out, err = called(words)
    assert code in CODES, (code, err)
    assert "Traceback" not in err and "Traceback" not in out
    assert not controls(err if "--json" in words else out + err)
    if "--json" in words and code not in (0,):
        assert isinstance(json.loads(out), dict)


@pytest.mark.parametrize("words", WHOLE)
@pytest.mark.usefixtures("no_engine")
def test_the_commands_that_are_spoilt_are_whole(words: str, here: Path) -> None:
    """Unspoilt, each gets past the parsing: to its end, or to the engine that dies."""
    with place() as root:
        shutil.copytree(here, root / "here", dirs_exist_ok=True)
        assert called(words.split())[0] in (0, 1, 6), words
