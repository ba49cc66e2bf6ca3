"""gate --junit, plot and diff as commands: exit codes, and --json alone on stdout."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from mismatch import api, cli
from mismatch.errors import MismatchError
from tests.unit.test_diff import a_run


def command(*words: object) -> int:
    """The exit code, as `main` finds it."""
    said = [str(word) for word in words]
    return cli._guarded(lambda: cli.app(said, standalone_mode=False), "--json" in said)


def test_gate_writes_junit_beside_its_verdict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A failed rule is a failure in the file too, and the exit code stays the gate's."""
    run, file = a_run(tmp_path / "a", seed=1), tmp_path / "new" / "junit.xml"
    rules = ("--max", "abs_logprob_diff_p50=1e-9", "--max", "extreme_fraction_2=0.9")
    assert command("gate", run, *rules, "--junit", file, "--json") == 1
    verdict = json.loads(capsys.readouterr().out)
    cases = list(ET.fromstring(file.read_text()).iter("testcase"))
    assert len(cases) == len(verdict["rules"]) == 2
    assert [case[0].tag for case in cases] == ["failure", "system-out"]


@pytest.mark.parametrize("place", ["x.gif", "file/x.png"])
def test_a_figure_that_cannot_be_written_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    """A suffix that is none of the three, and a folder that is a file."""
    (tmp_path / "file").touch()
    assert command("plot", "hist", a_run(tmp_path / "a", seed=1), "--out", tmp_path / place) == 2
    assert command("gate", tmp_path / "a", "--max", "k3=1", "--junit", tmp_path / "file/x") == 2
    for folder in (".", "..", tmp_path):
        assert command("gate", tmp_path / "a", "--max", "k3=1", "--junit", folder) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_plot_writes_a_figure_and_says_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file of the kind that the suffix names, whatever its case; 4 where there is nothing."""
    run = a_run(tmp_path / "a", seed=1)
    assert command("plot", "hist", run, "--out", tmp_path / "new" / "x.PDF", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"written": ["x.PDF"]}
    assert (tmp_path / "new" / "x.PDF").read_bytes().startswith(b"%PDF")
    assert command("plot", "waterfall", run, "--out", tmp_path / "y.png") == 4
    assert not (tmp_path / "y.png").exists()


def test_diff_is_no_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0 for a gap three times as large; 2 for what is no run folder."""
    old, new = a_run(tmp_path / "a", seed=1), a_run(tmp_path / "b", seed=2, size=0.09)
    capsys.readouterr()
    assert command("diff", old, new, "--json") == 0
    assert json.loads(capsys.readouterr().out)["pairs"][0]["metrics"]["k3"]["verdict"].endswith(
        "worse"
    )
    assert command("diff", old, new) == 0
    assert "paired: both runs scored the same ids" in " ".join(capsys.readouterr().out.split())
    assert command("diff", old, tmp_path / "nowhere") == 2


def test_compare_tells_its_progress_on_standard_error_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under --json stdout is one document."""
    run = a_run(tmp_path / "a", seed=1)
    capsys.readouterr()
    assert command("compare", run, "--json") == 0
    assert json.loads(capsys.readouterr().out)["pairs"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["rnu"], "See: mismatch-probe --help"),
        (["engines", "biuld"], "See: mismatch-probe engines --help"),
        (["import", "x.jsonl"], "See: mismatch-probe import --help"),
    ],
)
def test_the_help_of_what_was_understood_is_named(
    capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    """Not that of a verb which is none."""
    assert command(*words) == 2
    assert said in capsys.readouterr().err


def test_a_misspelt_verb_is_told_the_near_one(capsys: pytest.CaptureFixture[str]) -> None:
    """rnu is run."""
    assert command("rnu") == 2
    assert "'run'" in capsys.readouterr().err


@pytest.mark.parametrize("trainer", ["verl", "trl", "slime", "openrlhf", "skyrl", "areal"])
def test_a_trainer_without_a_format_is_sent_to_the_recorder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], trainer: str
) -> None:
    """No other trainer's format is offered; a misspelt format still is."""
    assert command("import", "x.jsonl", "--format", trainer, "--out", tmp_path / "out") == 2
    said = capsys.readouterr().err
    assert "docs/your-trainer.md" in said and "--format jsonl" in said and "Did you" not in said
    assert command("import", "x.jsonl", "--format", "nemo_rl", "--out", tmp_path / "out") == 2
    assert "Did you mean 'nemo-rl'?" in capsys.readouterr().err


def test_what_compare_makes_is_not_to_be_captured_again(tmp_path: Path) -> None:
    """A comparison that is gone and a summary: compare DIR. A trace: capture it."""
    run = a_run(tmp_path / "a", seed=1)

    def hint() -> str:
        with pytest.raises(MismatchError) as caught:
            api.report(run)
        return caught.value.hint

    next(run.glob("comparisons/*/tokens.parquet")).unlink()
    assert "compare DIR makes it again" in hint() and "capture" not in hint()
    api.compare(run)
    (run / "summary.json").write_text("{")
    assert "compare DIR makes it again" in hint()
    (run / "summary.json").unlink()
    assert "compare DIR writes it again" in hint()
    api.compare(run)
    next(run.glob("traces/*/*/provenance.json")).write_text("{}")
    assert "capture it again" in hint()
