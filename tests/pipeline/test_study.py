"""A study from its file to its summary, on the toy engine: loads are shared, machines may share it,
what cannot run stays in the report.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mismatch import api
from tests import known
from tests.pipeline.conftest import Probe

GRID = """
model = "ckpt"
prompts = "prompts.jsonl"
paths = ["rollout", "decode"]
max_tokens = 10
floor = "none"
[train]
engine = "toy"
dtype = ["fp16", "fp64"]
noise = [0.005, 0.008, 0.01]
[infer]
engine = "toy"
batch = [1, 2, 3, 4, 5, 6]
dtype = "fp64"
"""


@pytest.fixture
def study(tmp_path: Path, attention: Path) -> Path:
    """A grid of twelve cells in a folder of its own, with prompts as ids."""
    shutil.copytree(attention, tmp_path / "ckpt")
    rows = [json.dumps({"token_ids": ids}) for ids in known.sequences(9, 6)]
    (tmp_path / "prompts.jsonl").write_text("\n".join(rows) + "\n")
    path = tmp_path / "grid.toml"
    path.write_text(GRID)
    return path


def test_twelve_cells_that_need_three_loads_start_three_engines(
    study: Path, tmp_path: Path
) -> None:
    """Cells that differ only per request share one engine process, which loads its weights once."""
    seen: list[str] = []
    summary = api.run_study(study, tmp_path / "o", lambda event: seen.append(event["stage"]))
    assert len(api.plan(study, tmp_path / "o")["cells"]) == 12
    assert (seen.count("start"), seen.count("load")) == (3, 3)
    assert list(summary) == ["schema", "study", "pairs"]
    assert len(summary["pairs"]) == 6 * 6 + 6 + 1  # decode by all, rollout by one, and its decode
    assert all(pair["tokens"] for pair in summary["pairs"])


def test_plan_says_what_is_cached_and_what_is_refused(
    study: Path, tmp_path: Path, probe: Probe
) -> None:
    """Before a run everything is to do; afterwards cached; a refused cell gives its reason."""
    spec = "hf:attention=flash_attention_2"
    with study.open("a") as file:
        file.write(f'[[condition]]\nside = "train"\nspec = "{spec}"\nid = "flash"\n')
    before = api.plan(study, tmp_path / "grid-out")["cells"]
    assert {row["status"] for row in before if row["id"] != "flash"} == {"to do"}
    assert "needs a GPU" in before[-1]["status"] and before[-1]["load"] is None
    done = probe("run", "grid.toml", "--json")
    assert done.code == 0
    refused = [p for p in json.loads(done.out)["pairs"] if p["id"].startswith("flash")]
    assert refused and all(p["tokens"] == 0 for p in refused)
    assert "unsupported" in refused[0]["preflight"][0]["evidence"]
    assert "unsupported" in (tmp_path / "grid-out" / "report.md").read_text()
    assert probe("gate", "grid-out", "--max", "k3=1e9").code == 4
    after = api.plan(study, tmp_path / "grid-out")["cells"]
    assert {row["status"] for row in after if row["id"] != "flash"} == {"cached"}


def test_a_study_grows_and_never_takes_another_condition_for_its_own(
    study: Path, tmp_path: Path, probe: Probe
) -> None:
    """A condition that is added is all that is taken; one that keeps its id and changes its options
    is refused, by plan as by run, and nothing is lost."""
    text = (
        study.read_text()
        .replace("[1, 2, 3, 4, 5, 6]", "[1]")
        .replace("[0.005, 0.008, 0.01]", "0.01")
    )
    more = '[[condition]]\nside = "train"\nid = "hot"\nspec = "toy:temperature=2"\n'
    study.write_text(text)
    assert probe("run", study, "--out", tmp_path / "o").code == 0
    study.write_text(text + more)
    grown = probe("run", study, "--out", tmp_path / "o")
    assert (
        grown.code == 0
        and grown.err.count(" captured") == 1
        and "hot/score-1 captured" in grown.err
    )
    assert "hot~" in (tmp_path / "o" / "summary.json").read_text()
    study.write_text(text + more.replace("=2", "=3"))
    for verb in ("plan", "run"):
        refused = probe(verb, study, "--out", tmp_path / "o")
        assert (
            refused.code == 2 and "hot was toy:temperature=2, is toy:temperature=3" in refused.err
        )
    assert (tmp_path / "o" / "traces" / "hot" / "score-1").is_dir()


def test_a_failed_cell_that_is_dropped_from_the_study_is_forgotten(
    study: Path, tmp_path: Path, probe: Probe
) -> None:
    """Its failure spoils the exit code of the study that names it, and of no later one."""
    text = (
        study.read_text()
        .replace("[1, 2, 3, 4, 5, 6]", "[1]")
        .replace("[0.005, 0.008, 0.01]", "0.01")
    )
    breaks = '[[condition]]\nside = "train"\nid = "breaks"\nspec = "python:file=bad.py,object=X"\n'
    (tmp_path / "bad.py").write_text("X = 1\n")
    study.write_text(text + breaks)
    assert probe("run", study, "--out", "o").code == 7
    study.write_text(text)
    assert probe("run", study, "--out", "o").code == 0
    assert not list((tmp_path / "o").glob("failed/breaks/*"))


def test_where_nobody_can_draw_the_ids_that_is_said(study: Path, probe: Probe) -> None:
    """The one who draws cannot run here: no capture is blamed and no folder begun."""
    text = study.read_text()
    study.write_text(text[: text.index("[infer]")] + '[infer]\nengine = "vllm"\ntp = 640\n')
    refused = probe("run", study, "--out", "o")
    assert refused.code == 2 and "tp=640 draws the ids, and it cannot run here" in refused.err


def test_plan_refuses_what_run_refuses(study: Path, probe: Probe) -> None:
    """An engine that cannot be the trainer's side."""
    text = study.read_text()
    study.write_text('model = "ckpt"\nprompts = "prompts.jsonl"\n[train]\nengine = "vllm"\n'
                     + text[text.index("[infer]"):])  # fmt: skip
    said = [probe(verb, study, "--out", "o") for verb in ("plan", "run")]
    assert [s.code for s in said] == [2, 2]
    assert all("vllm cannot be the train side" in s.err for s in said)


FLASH = """
[[condition]]
side = "train"
id = "flash"
spec = "hf:attention=flash_attention_2"
[[attribute]]
left = "flash"
right = "toy-fp64-batch1"
path = "decode"
"""


@pytest.mark.parametrize("refused", ["sampler", "corner"])
def test_plan_shows_the_cells_and_exits_where_run_would_stop(
    study: Path, probe: Probe, refused: str
) -> None:
    """A sampler or a corner that cannot run here: the cells are listed, and both verbs exit 2."""
    text = study.read_text()
    sampler = text[: text.index("[infer]")] + '[infer]\nengine = "vllm"\ntp = 640\n'
    study.write_text(sampler if refused == "sampler" else text + FLASH)
    assert probe("run", study, "--out", "o").code == 2
    planned, listed = probe("plan", study, "--out", "o"), probe("plan", study, "--json")
    assert (planned.code, listed.code) == (2, 2)
    assert "toy-fp16-noise_0.01" in planned.out and "run would stop here" in planned.out
    assert len(listed.json["refused"]) == 1 and listed.json["cells"]


def test_machines_share_a_study_cell_by_cell(study: Path, tmp_path: Path, probe: Probe) -> None:
    """capture --only takes one cell; who draws the ids comes first; run compares what is there, and
    equals a run that took it all itself.
    """
    early = probe("capture", "grid.toml", "--only", "toy-fp16-noise_0.01", "--out", "a")
    assert early.code == 2 and "toy-fp64-batch1" in early.err
    for cell in ("toy-fp64-batch1", "toy-fp16-noise_0.01"):
        assert probe("capture", "grid.toml", "--only", cell, "--out", "a").code == 0
    assert not (tmp_path / "a" / "summary.json").exists()
    wrong = probe("capture", "grid.toml", "--only", "toy-fp16-noise_0.03", "--out", "a")
    assert wrong.code == 3 and "Did you mean 'toy-fp16-noise_0.0" in wrong.err
    assert probe("run", "grid.toml", "--out", "a").code == 0
    assert probe("run", "grid.toml", "--out", "b").code == 0
    same = [(tmp_path / x / "summary.json").read_bytes() for x in "ab"]
    assert same[0] == same[1]


def test_ids_are_drawn_even_where_the_rollout_is_not_compared(
    study: Path, tmp_path: Path, probe: Probe
) -> None:
    """With prompts and path decode alone the first infer condition still rolls out."""
    study.write_text(GRID.replace('["rollout", "decode"]', '["decode"]'))
    summary = api.run_study(study, tmp_path / "o")
    assert {p["path"] for p in summary["pairs"]} == {"decode"}
    assert all(p["tokens"] for p in summary["pairs"])
    words = ["--model", "ckpt", "--train", "toy", "--infer", "toy", "--prompts", "prompts.jsonl"]
    assert probe("run", *words, "--paths", "decode", "--max-tokens", 5, "--out", "r").code == 0


def test_topk_and_entropy_reach_the_summary_and_the_report(
    study: Path, tmp_path: Path, probe: Probe
) -> None:
    """Where both sides captured them; a pair of which one side did not has no such key."""
    extra = '[[condition]]\nside = "{}"\nid = "{}-top"\nspec = "toy:topk=5,entropy=true{}"\n'
    plain = GRID.replace("noise = [0.005, 0.008, 0.01]", "noise = 0.01")
    more = extra.format("train", "train", ",temperature=1.2") + extra.format("infer", "infer", "")
    study.write_text(plain + more)
    assert probe("run", "grid.toml").code == 0
    pairs = {
        p["id"]: p for p in json.loads((tmp_path / "grid-out/summary.json").read_text())["pairs"]
    }
    found = pairs["train-top~infer-top.decode"]["distribution"]
    assert set(found) == {
        "top1_flip_rate", "kl_infer_train_lb", "kl_train_infer_lb", "js_lb", "tv_lb",
        "entropy_train", "entropy_infer",
    }  # fmt: skip
    assert found["kl_infer_train_lb"]["value"] > 0 and found["top1_flip_rate"]["value"] == 0
    assert found["entropy_train"]["value"] > found["entropy_infer"]["value"] > 0
    assert "distribution" not in pairs["toy-fp16-noise_0.01~toy-fp64-batch1.decode"]
    for name in ("report.md", "report.html"):
        assert "kl_infer_train_lb" in (tmp_path / "grid-out" / name).read_text()


ENDS = """
[[condition]]
side = "train"
id = "left"
spec = "toy:dtype=fp16,noise=0.05"
[[attribute]]
left = "left"
right = "toy-fp64-batch1"
path = "decode"
"""


def test_an_attribution_replays_its_corners_and_is_checked(
    study: Path, tmp_path: Path, probe: Probe
) -> None:
    """Corners become cells; shares sum to 1; an edited attribution is not believed; no corners, no
    evidence.
    """
    study.write_text(GRID + ENDS)
    assert probe("run", "grid.toml").code == 0
    found = probe("attribute", "grid-out", "--json")
    assert found.code == 0
    (one,) = found.json["attributions"]
    assert sorted(k["knob"] for k in one["knobs"]) == ["batch", "dtype", "engine", "noise"]
    assert abs(sum(k["share"]["value"] for k in one["knobs"]) - 1) < 1e-9
    assert len(one["corners"]) == 16 and one["tokens"] == 90
    assert "owns" in (tmp_path / "grid-out" / "report.md").read_text()
    folder = tmp_path / "grid-out" / "attributions" / "attribution" / "attribution.json"
    folder.write_text(folder.read_text().replace('"dropped": 0', '"dropped": 1'))
    assert probe("attribute", "grid-out").code == 2
    assert probe("report", "grid-out").code == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (('right = "toy-fp64-batch1"', 'right = "left"'), "do not differ"),
        (('path = "decode"', 'path = "decoed"'), "Did you mean 'decode'"),
        (('path = "decode"', 'path = "decode"\nknobs = ["dtype"]'), "leaves out engine, batch"),
        (
            ('path = "decode"',
             'path = "decode"\nknobs = ["engine", "batch", "dtype", "noise", "nose"]'),
            "no knob 'nose'",
        ),
        (
            ('path = "decode"', 'path = "decode"\nknobs = ["dtype", "engine", "dtype"]'),
            "names the knob 'dtype' twice",
        ),
    ],
)  # fmt: skip
def test_bad_attributions(study: Path, probe: Probe, change: tuple[str, str], says: str) -> None:
    """Ends that do not differ, a wrong path or knob: exit 2 and one sentence."""
    study.write_text(GRID + ENDS.replace(*change))
    done = probe("plan", "grid.toml")
    assert done.code == 2 and says in done.err, done.err


def test_a_study_says_everything_itself(study: Path, probe: Probe) -> None:
    """Options beside a study file, and a run with neither, are usage errors."""
    beside = probe("run", "grid.toml", "--train", "toy")
    assert beside.code == 2 and "beside a study file" in beside.err
    neither = probe("run", "--train", "toy")
    assert neither.code == 2 and "takes a study file" in neither.err


@pytest.mark.slow
def test_a_study_killed_at_random_points_resumes_to_the_same_bytes(
    study: Path, tmp_path: Path, probe: Probe
) -> None:
    """Ten runs, each killed outright at a random moment and then resumed, give one summary."""
    assert probe("run", "grid.toml", "--out", "whole").code == 0
    whole = (tmp_path / "whole" / "summary.json").read_bytes()
    program = str(Path(sys.executable).with_name("mismatch-probe"))
    rng = random.Random(0)
    for number in range(10):
        out = tmp_path / f"killed-{number}"
        process = subprocess.Popen(
            [program, "run", str(study), "--out", str(out)],
            env=os.environ.copy(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(rng.uniform(0.3, 4.0))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert probe("run", "grid.toml", "--out", out).code == 0
        assert (out / "summary.json").read_bytes() == whole
