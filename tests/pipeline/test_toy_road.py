"""The whole road on the toy engine: run, compare, report, gate, resume, and what breaks it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mismatch import store, wire
from tests.pipeline.conftest import Probe, toy_run

TRAIN, INFER = "toy-noise_0.05", "toy"


def _tree(root: Path) -> dict[str, bytes]:
    names = ("summary.json", "report.md", "report.html")
    return {name: (root / name).read_bytes() for name in names}


def test_a_run_leaves_every_promised_file(
    probe: Probe, attention: Path, prompts: Path, tmp_path: Path
) -> None:
    """Corpus, sealed traces, comparisons, summary and report, with the keys of the contract."""
    done = probe(*toy_run(attention, "--prompts", prompts, "--repeats", 2, "--out", "o", "--json"))
    assert done.code == 0, done.err
    root = tmp_path / "o"
    summary = done.json
    assert list(summary) == ["schema", "command", "pairs"]
    assert summary == store.read_json(root / "summary.json")
    keys = [
        "id", "kind", "train", "infer", "path", "tokens", "sequences", "nan_tokens", "inf_tokens",
        "sampled_by", "metrics", "floor", "excess", "breakdowns", "ess_by_length", "corrections",
        "preflight",
    ]  # fmt: skip
    assert list(summary["pairs"][0]) == keys
    assert [p["path"] for p in summary["pairs"][:3]] == ["rollout", "decode", "prefill"]
    assert summary["pairs"][0]["sampled_by"] == "infer"
    first = root / "traces" / INFER / "rollout-1"
    assert {p.name for p in first.iterdir()} == {
        "job.json", "provenance.json", "tokens.parquet", "worker.log", "MANIFEST.json",
    }  # fmt: skip
    (corpus,) = (root / "corpus").iterdir()
    assert {"sequences.parquet", "corpus.json"} <= {p.name for p in corpus.iterdir()}
    for pair in summary["pairs"]:
        assert (root / "comparisons" / pair["id"] / "tokens.parquet").is_file()
    assert not (root / ".work").exists()


def test_equal_inputs_give_equal_bytes_and_no_secrets_of_the_machine(
    probe: Probe, attention: Path, prompts: Path, tmp_path: Path
) -> None:
    """summary.json carries no time, host, pid or path."""
    for out in ("a", "b"):
        probe(*toy_run(attention, "--prompts", prompts, "--out", out))
    assert _tree(tmp_path / "a") == _tree(tmp_path / "b")
    assert str(tmp_path) not in (tmp_path / "a" / "summary.json").read_text()


def test_a_corpus_of_an_earlier_run_replays_with_its_recorded_rollout(
    probe: Probe, attention: Path, prompts: Path, tmp_path: Path
) -> None:
    """`--corpus FOLDER --paths rollout` reads what was recorded; another condition is `other`."""
    probe(*toy_run(attention, "--prompts", prompts, "--out", "a"))
    (corpus,) = (tmp_path / "a" / "corpus").iterdir()
    same = probe(
        *toy_run(attention, "--corpus", corpus, "--paths", "rollout", "--out", "b", "--json")
    )
    assert same.code == 0 and same.json["pairs"][0]["sampled_by"] == "infer"
    first = store.read_json(tmp_path / "a" / "summary.json")["pairs"][0]
    assert same.json["pairs"][0]["metrics"] == first["metrics"]
    other = probe(
        "run", "--model", attention, "--train", "toy", "--infer", "toy:noise=0.01",
        "--corpus", corpus, "--paths", "decode", "--out", "c", "--json",
    )  # fmt: skip
    assert other.json["pairs"][0]["sampled_by"] == "other"


def _named(path: Path) -> set[tuple[int, int, int]]:
    """(sequence, position, token) of a topk.parquet."""
    rows = store.read_table(path).to_pylist()
    return {(r["sequence_id"], r["position"], r["token_id"]) for r in rows}


def test_the_trainer_scores_the_tokens_that_the_sampler_liked(
    probe: Probe, attention: Path, prompts: Path, tmp_path: Path
) -> None:
    """Beside its own top-k: in a run, and in a replay of the corpus that the run left."""
    plain = ("--train", "toy:topk=1,noise=0.05")
    words = ("--infer", "toy:topk=4", "--prompts", prompts, "--max-tokens", 12, "--out", "a")
    assert probe("run", "--model", attention, *plain, *words).code == 0
    (corpus,) = (tmp_path / "a" / "corpus").iterdir()
    words = ("--infer", "toy:topk=4", "--paths", "decode", "--corpus", corpus, "--out", "b")
    assert probe("run", "--model", attention, *plain, *words).code == 0
    for root in ("a", "b"):
        trainer, sampler = (
            _named(*tmp_path.glob(f"{root}/traces/{trace}/topk.parquet"))
            for trace in ("toy-noise*/score-1", "toy-topk4/decode-1")
        )
        assert sampler <= trainer
        assert len(sampler) == 4 * 12 * 12


def test_the_gate_follows_the_bounds(probe: Probe, attention: Path, prompts: Path) -> None:
    """Inside, outside and straddling limits: exit 0, 1 and 4, the word in --json."""
    summary = probe(*toy_run(attention, "--prompts", prompts, "--out", "o", "--json")).json
    k3 = summary["pairs"][0]["metrics"]["k3"]
    assert 0 < k3["low"] < k3["value"] < k3["high"]
    for limit, code, word in (
        (k3["high"] * 3, 0, "pass"),
        (k3["low"] / 3, 1, "fail"),
        (k3["value"], 4, "inconclusive"),
    ):
        verdict = probe("gate", "o", "--max", f"k3={limit}", "--json")
        assert (verdict.code, verdict.json["verdict"]) == (code, word)


def test_values_of_two_distributions_are_not_comparable(
    probe: Probe, attention: Path, corpus: Path, tmp_path: Path
) -> None:
    """The trainer at T = 1.2 against the engine at T = 1: the gate exits 5 whatever the limit, and
    the report says that it may not be numerics."""
    words = ("--train", "toy:temperature=1.2", "--infer", "toy", "--corpus", corpus)
    assert probe("run", "--model", attention, *words, "--out", "o").code == 0
    verdict = probe("gate", "o", "--max", "k3=100", "--json")
    assert (verdict.code, verdict.json["verdict"]) == (5, "not_comparable")
    for name in ("report.md", "report.html"):
        assert "temperature 1.2 against 1" in (tmp_path / "o" / name).read_text()


def test_an_excess_needs_a_floor(probe: Probe, attention: Path, corpus: Path) -> None:
    """Without a floor excess is null and the gate has no evidence; an absolute limit needs none."""
    probe(*toy_run(attention, "--corpus", corpus, "--floor", "none", "--out", "o"))
    assert probe("gate", "o", "--max", "excess.k3=1").code == 4
    assert probe("gate", "o", "--max", "k3=1").code == 0


def test_too_few_sequences_are_no_evidence(probe: Probe, attention: Path, corpus: Path) -> None:
    """Fewer than 8 sequences have no interval: exit 4 whatever the limit."""
    probe(*toy_run(attention, "--corpus", corpus, "--limit", 7, "--out", "o"))
    verdict = probe("gate", "o", "--max", "k3=100", "--json")
    assert (verdict.code, verdict.json["verdict"]) == (4, "no_evidence")


# ---------------------------------------------------------------- engines that break


@pytest.mark.parametrize(
    ("fault", "boundary", "lost"),
    [
        ("load:die", "load", {"score-1", "score-batch"}),
        ("score:die@3", "score", {"score-batch"}),
        ("score:sigkill@3", "signal", {"score-batch"}),
        ("score:positive@1", "seal", {"score-1"}),
    ],
)
def test_a_broken_engine_loses_its_own_cell_only(
    probe: Probe, attention: Path, corpus: Path, tmp_path: Path,
    fault: str, boundary: str, lost: set[str],
) -> None:  # fmt: skip
    """The failed cell is stored with boundary and log, siblings go on, a rerun mends just that."""
    command = [
        "run", "--model", attention, "--train", "toy:noise=0.05,batch=8", "--infer", "toy",
        "--corpus", corpus, "--out", "o",
    ]  # fmt: skip
    broken = probe(*command, env={"MISMATCH_TOY_FAULT": fault})
    only_infer = fault.startswith("load")
    assert broken.code == (6 if only_infer else 7), broken.err
    failed = {p.parent.name: store.read_json(p) for p in tmp_path.glob("o/failed/*/*/error.json")}
    assert lost <= set(failed) and all(failed[n]["boundary"] == boundary for n in lost)
    assert all(
        (p.parent / "worker.log").is_file() for p in tmp_path.glob("o/failed/*/*/error.json")
    )
    said = (tmp_path / "o" / "summary.json").read_text()  # an engine's words stay in the logs
    assert "asked to die" not in said and str(tmp_path) not in said
    if "score-1" in lost:
        assert probe("gate", "o", "--max", "k3=100").code == 4
    kept = {p: p.stat().st_mtime_ns for p in tmp_path.glob("o/traces/*/*/MANIFEST.json")}

    mended = probe(*command)
    assert mended.code == 0, mended.err
    assert not list(tmp_path.glob("o/failed/*/*/error.json"))
    assert all(p.stat().st_mtime_ns == t for p, t in kept.items()), "a finished trace was redone"
    probe(*command[:-1], "clean")
    assert _tree(tmp_path / "o") == _tree(tmp_path / "clean")


def test_a_resume_within_a_capture_makes_the_missing_calls_alone(
    probe: Probe, attention: Path, corpus: Path, tmp_path: Path
) -> None:
    """Two of three calls were answered when the engine died: the rerun makes one, and tokens and
    facts are those of a run that never broke."""
    words = [*_TRAIN_BY_FOUR, "--model", attention, "--corpus", corpus]
    assert probe(*words, "--out", "whole").code == 0
    died = probe(*words, "--out", "o", env={"MISMATCH_TOY_FAULT": "score:die@3"})
    assert died.code == 7 and "1 of 2 captures failed" in died.err  # the rollout engine's is there
    parts = list((tmp_path / "o" / ".work").glob("train-*/parts/*/*/0*.npz"))
    assert [len(wire.load_arrays(p)["calls"]) for p in parts] == [2]
    # It would die again at a second call.
    assert probe(*words, "--out", "o", env={"MISMATCH_TOY_FAULT": "score:die@2"}).code == 0
    broken, whole = (
        tmp_path / name / "traces" / "toy-batch4-noise_0.05" / "score-1" for name in ("o", "whole")
    )
    table = "tokens.parquet"
    assert (broken / table).read_bytes() == (whole / table).read_bytes()
    facts = [store.read_json(f / "provenance.json")["facts"] for f in (broken, whole)]
    assert facts[0] == facts[1]


_TRAIN_BY_FOUR = (
    "run", "--train", "toy:noise=0.05,batch=4", "--infer", "toy", "--paths", "decode",
    "--floor", "none",
)  # fmt: skip


@pytest.mark.parametrize("change", ["versions", "switches"])
def test_another_maker_never_finishes_what_one_began(
    probe: Probe, attention: Path, corpus: Path, tmp_path: Path, change: str
) -> None:
    """An upgrade or another thread setting between two calls of a capture: all are made anew."""
    words = [*_TRAIN_BY_FOUR, "--model", attention, "--corpus", corpus, "--out", "o"]
    probe(*words, env={"MISMATCH_TOY_FAULT": "score:die@3"})
    again = {"MISMATCH_TOY_FAULT": "score:die@2"}
    if change == "switches":
        again["OMP_NUM_THREADS"] = "7"
    else:
        (note,) = tmp_path.glob("o/.work/train-*/maker.json")
        maker = store.read_json(note)
        maker["versions"]["numpy"] = "0.1"
        note.write_text(store.dump_json(maker))
    assert probe(*words, env=again).code == 7  # it made a second call


def test_a_floor_is_never_taken_with_other_libraries(
    probe: Probe, attention: Path, corpus: Path, tmp_path: Path
) -> None:
    """score-1 was sealed, numpy was upgraded, score-batch is missing: it fails and says why."""
    command = toy_run(attention, "--corpus", corpus, "--out", "o")
    assert probe(*command).code == 0
    (first,) = tmp_path.glob("o/traces/toy-noise*/score-1/provenance.json")
    said = first.read_text()
    first.write_text(re.sub(r'"numpy": "[^"]+"', '"numpy": "0.1"', said))
    shutil.rmtree(first.parent.with_name("score-batch"))
    done = probe(*command, "--json")
    errors = [store.read_json(p) for p in tmp_path.glob("o/failed/*/score-batch/error.json")]
    assert done.code != 0 and [e["type"] for e in errors] == ["OtherVersions"]
    assert "numpy 0.1" in errors[0]["message"]


def test_a_hang_is_ended_by_the_timeout(
    probe: Probe, attention: Path, corpus: Path, tmp_path: Path
) -> None:
    """No sign of life for --timeout seconds: the guest is ended and the cell says timeout."""
    done = probe(
        *toy_run(attention, "--corpus", corpus, "--timeout", 3, "--out", "o"),
        env={"MISMATCH_TOY_FAULT": "score:hang@1"},
    )
    assert done.code in (6, 7)
    errors = [store.read_json(p) for p in tmp_path.glob("o/failed/toy-noise*/score-1/error.json")]
    assert [e["boundary"] for e in errors] == ["timeout"]


def test_nan_is_kept_counted_and_no_evidence(probe: Probe, attention: Path, corpus: Path) -> None:
    """A NaN never becomes 0, and never a pass."""
    env = {"MISMATCH_TOY_FAULT": "score:nan@1"}
    done = probe(*toy_run(attention, "--corpus", corpus, "--out", "o", "--json"), env=env)
    assert done.code == 0 and done.json["pairs"][0]["nan_tokens"] == 12
    verdict = probe("gate", "o", "--max", "k3=100", "--json")
    assert (verdict.code, verdict.json["verdict"]) == (4, "no_evidence")


def test_a_run_of_nothing_but_nan_is_no_success(
    probe: Probe, attention: Path, tmp_path: Path
) -> None:
    """Every capture was taken and no token is finite: the report is there, the exit code is 4."""
    (tmp_path / "two.jsonl").write_text('{"token_ids": [1, 2]}\n')
    env = {"MISMATCH_TOY_FAULT": "score:nan"}
    done = probe(*toy_run(attention, "--corpus", "two.jsonl", "--out", "o", "--json"), env=env)
    assert (done.code, done.json["pairs"][0]["nan_tokens"]) == (4, 1)
    assert (tmp_path / "o" / "report.html").is_file()


def test_a_pair_that_lost_its_trace_keeps_no_old_comparison(
    probe: Probe, attention: Path, corpus: Path, tmp_path: Path
) -> None:
    """compare again without the trace: the gate finds no evidence, not a damaged folder."""
    probe(*toy_run(attention, "--corpus", corpus, "--out", "o"))
    shutil.rmtree(tmp_path / "o" / "traces" / INFER)
    assert probe("compare", "o").code == 4
    assert probe("gate", "o", "--max", "k3=1").code == 4


def test_a_failed_rollout_blocks_the_trainer_with_a_reason(
    probe: Probe, attention: Path, prompts: Path, tmp_path: Path
) -> None:
    """No ids, no scores: every capture failed, exit 6, and the same command resumes."""
    command = toy_run(attention, "--prompts", prompts, "--out", "o")
    assert probe(*command, env={"MISMATCH_TOY_FAULT": "rollout:die"}).code == 6
    assert probe(*command).code == 0


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_no_children_and_no_half_folder(
    attention: Path, corpus: Path, tmp_path: Path, probe: Probe, stop: signal.Signals
) -> None:
    """Ctrl-C: exit 130, the guest is gone, every folder under traces/ is whole, a rerun resumes."""
    import os

    out = tmp_path / "o"
    command = [str(x) for x in toy_run(attention, "--corpus", corpus, "--out", out)]
    program = str(Path(sys.executable).with_name("mismatch-probe"))
    env = {**os.environ, "MISMATCH_TOY_FAULT": "score:hang@1"}
    process = subprocess.Popen(
        [program, *command],
        env=env,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts background jobs with SIGINT ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler) and None,
    )
    try:
        events = out / ".work" / "train-toy" / "events.jsonl"
        deadline = time.monotonic() + 60
        while not (events.is_file() and "score-1" in events.read_text()):
            assert time.monotonic() < deadline, "the guest never began to score"
            time.sleep(0.05)
        process.send_signal(stop)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130 and "Interrupted" in err and "Traceback" not in err
    alive = subprocess.run(["pgrep", "-f", str(out)], capture_output=True, text=True, check=False)
    assert not alive.stdout.strip(), "a guest outlived its host"
    folders = list(out.glob("traces/*/*"))
    assert folders and all((f / "MANIFEST.json").is_file() for f in folders)
    assert probe(*command).code == 0


# ---------------------------------------------------------------- artifacts that were touched


@pytest.mark.parametrize("when", ["before compare", "after compare"])
@pytest.mark.parametrize("how", ["truncate", "edit"])
def test_a_touched_trace_is_never_believed(
    probe: Probe, attention: Path, corpus: Path, tmp_path: Path, when: str, how: str
) -> None:
    """compare, report and gate all refuse a trace whose bytes changed, with exit 2."""
    probe(*toy_run(attention, "--corpus", corpus, "--out", "o"))
    tokens = tmp_path / "o" / "traces" / INFER / "decode-1" / "tokens.parquet"
    data = bytearray(tokens.read_bytes())
    data[len(data) // 2] ^= 1
    tokens.write_bytes(bytes(data) if how == "edit" else bytes(data[:-100]))
    if when == "before compare":
        shutil.rmtree(tmp_path / "o" / "comparisons")
        (tmp_path / "o" / "summary.json").unlink()
        commands = [["compare", "o"]]
    else:
        commands = [["report", "o"], ["gate", "o", "--max", "k3=1"], ["compare", "o"]]
    for command in commands:
        done = probe(*command, "--json")
        assert done.code == 2 and done.json["error"]["code"] == "artifact-changed", command


def test_a_touched_summary_is_never_believed(
    probe: Probe, attention: Path, corpus: Path, tmp_path: Path
) -> None:
    """A friendlier number, or a dropped pair, in summary.json is found by the gate."""
    probe(*toy_run(attention, "--corpus", corpus, "--out", "o"))
    path = tmp_path / "o" / "summary.json"
    original = path.read_text()
    for touch in ("number", "pair"):
        summary = json.loads(original)
        if touch == "number":
            summary["pairs"][0]["metrics"]["k3"]["high"] = 0.0
        else:
            del summary["pairs"][0]
        path.write_text(json.dumps(summary))
        assert probe("gate", "o", "--max", "k3=1").code == 2


@pytest.mark.parametrize(
    "plan",
    [{}, {"schema": 2}, {"schema": 1, "pairs": [{"id": "x"}], "request": {}}, {"schema": 1}, [1]],
)
def test_a_run_json_that_is_none_is_said(probe: Probe, tmp_path: Path, plan: object) -> None:
    """A plan of another shape or schema is bad input, never a crash."""
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "run.json").write_text(json.dumps(plan))
    assert probe("compare", "o").code == 2


# ---------------------------------------------------------------- two machines


def test_traces_from_two_runs_compare_with_their_floors(
    probe: Probe, attention: Path, corpus: Path
) -> None:
    """Train against infer whichever is named first; the captures beside them serve as floors."""
    probe(*toy_run(attention, "--corpus", corpus, "--repeats", 2, "--out", "a"))
    probe(*toy_run(attention, "--corpus", corpus, "--repeats", 2, "--out", "b"))
    left, right = f"a/traces/{INFER}/decode-1", f"b/traces/{TRAIN}/score-1"
    done = probe("compare", left, right, "--out", "c", "--json")
    assert done.code == 0, done.err
    (pair,) = done.json["pairs"]
    assert pair["kind"] == "train-infer" and pair["path"] == "decode"
    assert set(pair["floor"]) == {"repeat", "batch"} and pair["excess"]
    assert probe("gate", "c", "--max", "k3=1").code == 0
    same = probe("compare", left, f"b/traces/{INFER}/decode-1", "--out", "d", "--json").json
    assert same["pairs"][0]["kind"] == "infer-infer"
    assert same["pairs"][0]["metrics"]["exact_fraction"]["value"] == 1.0


def test_traces_of_other_ids_are_not_comparable(
    probe: Probe, attention: Path, corpus: Path
) -> None:
    """Different tokens have no gap: exit 5."""
    probe(*toy_run(attention, "--corpus", corpus, "--out", "a"))
    probe(*toy_run(attention, "--corpus", corpus, "--limit", 9, "--out", "b"))
    done = probe(
        "compare", f"a/traces/{INFER}/decode-1", f"b/traces/{TRAIN}/score-1", "--out", "c", "--json"
    )
    assert done.code == 5 and done.json["error"]["code"] == "not-comparable"
