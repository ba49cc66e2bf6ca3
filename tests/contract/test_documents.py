"""Every command that the README and the documents print, run as printed on real engines.

What stands for the reader's own is put in its place (CKPT, a server's address, an interpreter), and
runs are made short. Each section has a folder of its own, as a reader would.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mismatch import store
from mismatch.capture import environment
from mismatch.engines import ENGINES, parse_condition
from tests.known import SHIPPED

pytestmark = [pytest.mark.slow, pytest.mark.real]

ROOT = Path(__file__).parents[2]
DOCUMENTS = ("README.md", "docs/my-run-collapsed.md", "docs/studies.md", "docs/retokenize.md",
             "docs/your-trainer.md")  # fmt: skip
FIRST = "README.md: Your own checkpoint"
#: Verdicts of a gate on a short run; every other command must end with 0.
VERDICTS = {"gate": (0, 1, 4)}

STUDY = """
model = "ckpt"
prompts = "prompts.jsonl"
paths = ["prefill"]
floor = "none"
limit = 8
max_tokens = 12
[train]
engine = "hf"
dtype = ["fp32", "bf16"]
[infer]
engine = "vllm"
dtype = "bf16"
eager = true
[[attribute]]
id = "dtype-and-engine"
left = "hf-fp32"
right = "vllm-bf16-eager"
path = "prefill"
"""


def _sections() -> dict[str, list[str]]:
    """`document: heading` -> its commands, continuations joined."""
    found: dict[str, list[str]] = {}
    for document in DOCUMENTS:
        text = (ROOT / document).read_text(encoding="utf-8").replace("\\\n", " ")
        for part in re.split(r"^#+ ", text, flags=re.MULTILINE):
            heading = part.partition("\n")[0]
            commands = re.findall(r"^    mismatch-probe (.+)$", part, re.MULTILINE)
            if commands:
                found[f"{document}: {heading}"] = commands
    return found


SECTIONS = _sections()


def _parameters() -> list[object]:
    return [
        pytest.param(name, id=name, marks=pytest.mark.sglang if "sglang:" in "".join(c) else ())
        for name, c in SECTIONS.items()
        if name != FIRST
    ]


def _words(command: str, instead: dict[str, str]) -> list[str]:
    """As a shell would see it, with the reader's own in place and short rollouts."""
    for placeholder, real in instead.items():
        command = command.replace(placeholder, real)
    words = shlex.split(command, comments=True)
    if words[0] == "run" and "--model" in words:
        if "--max-tokens" in words:
            at = words.index("--max-tokens")
            del words[at : at + 2]
        words += ["--limit", "10", "--max-tokens", "16"]
    return words


def _run(words: list[str], folder: Path) -> None:
    program = Path(sys.executable).with_name("mismatch-probe")
    done = subprocess.run(
        [str(program), *words], cwd=folder, capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode in VERDICTS.get(words[0], (0,)), (words, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr


def _furnish(folder: Path) -> None:
    """What a reader has before the first command."""
    folder.mkdir()
    (folder / "ckpt").symlink_to(SHIPPED)
    (folder / "moe").symlink_to(SHIPPED.parent / "qwen3moe-gsm-3.4m")
    prompts = (ROOT / "mismatch/shipped/demo-prompts.jsonl").read_text(encoding="utf-8")
    (folder / "prompts.jsonl").write_text("\n".join(prompts.splitlines()[:10]) + "\n")
    (folder / "study.toml").write_text(STUDY)
    shutil.copy(ROOT / "examples/torch_module.py", folder / "my_trainer.py")
    row = {"token_ids": [1, 87, 3, 9], "loss_mask": [0, 0, 1, 1],
           "infer_logprobs": [None, None, -0.31, -1.2],
           "train_logprobs": [None, None, -0.3, -1.25]}  # fmt: skip
    rows = [{**row, "token_ids": [1, 80 + k, 3, 9]} for k in range(10)]
    (folder / "dump.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`out` of the README's first run, which other sections read."""
    folder = tmp_path_factory.mktemp("documents") / "first"
    _furnish(folder)
    for command in SECTIONS[FIRST]:
        _run(_words(command, {"CKPT": "ckpt"}), folder)
    return folder / "out"


def _with_runs(folder: Path, commands: list[str], first_run: Path) -> dict[str, str]:
    """Folders of earlier runs, where the section does not make them; how its traces are called."""
    if not any("--out out" in command for command in commands):
        shutil.copytree(first_run, folder / "out")
    text = " ".join(commands)
    if "study-out" in text and "--out study-out" not in text:
        _run(["run", "study.toml", "--out", "study-out"], folder)
    (trace,) = (p for p in (first_run / "traces").iterdir() if p.name.startswith("vllm"))
    for machine in ("a100", "h100"):
        if f"{machine}/" in text:
            shutil.copytree(first_run, folder / machine)
    if "rollouts.jsonl" in text:
        (sealed,) = (first_run / "corpus").iterdir()
        corpus, _, _ = store.load_corpus(sealed)
        rows = [{"token_ids": ids.tolist(), "loss_mask": scored.astype(int).tolist()}
                for ids, scored in zip(corpus.token_ids, corpus.scored, strict=True)]  # fmt: skip
        (folder / "rollouts.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    return {"traces/vllm-bf16/": f"traces/{trace.name}/"}


@pytest.mark.parametrize("section", _parameters())
def test_a_sections_commands_run_as_printed(
    section: str, tmp_path: Path, first_run: Path, serve: Callable[..., str]
) -> None:
    """In their order, in one folder, each ends as the document says."""
    commands = SECTIONS[section]
    folder = tmp_path / "reader"
    _furnish(folder)
    python, _ = environment.interpreter(ENGINES["hf"], parse_condition("hf"))
    instead = {
        "CKPT": "ckpt",
        "MOE": "moe",
        "/path/to/bin/python": str(python),
        "--only ID": "--only hf-bf16",
        **_with_runs(folder, commands, first_run),
    }
    if "http://" in "".join(commands):
        instead["http://127.0.0.1:8000"] = serve("vllm_server", SHIPPED)
    for command in commands:
        _run(_words(command, instead), folder)


def test_every_document_with_commands_is_run() -> None:
    """A new document joins the list."""
    written = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "README.md", *(ROOT / "docs").glob("*.md"))
        if re.search(r"^    mismatch-probe ", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert written == set(DOCUMENTS) and FIRST in SECTIONS
