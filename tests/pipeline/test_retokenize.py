"""retokenize on the shipped checkpoint's own tokenizer, through the program itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mismatch import store
from mismatch.capture.roundtrip import Tokenizer
from tests.known import SHIPPED
from tests.pipeline.conftest import Probe

pytestmark = pytest.mark.real  # the tokenizer needs transformers; no engine and no weight is loaded

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content or '' }}"
    "{% for c in m.tool_calls or [] %}<tool_call>"
    '{"name": {{ c.function.name | tojson }}, "arguments": {{ c.function.arguments | tojson }}}'
    "</tool_call>{% endfor %}<|endoftext|>{% endfor %}"
)
PROMPT = "user: add 2 and 3<|endoftext|>assistant: "
EVEN = '<tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call><|endoftext|>'
ODD = '<tool_call>{ "name":"add" , "arguments":{"a":2,"b" :3} }</tool_call><|endoftext|>'


def _encoded(texts: list[str]) -> Iterator[list[int]]:
    asked = [
        {"messages": [{"role": "user", "content": t}], "tools": None, "prompt": False, "where": ""}
        for t in texts
    ]
    answers, _ = Tokenizer(SHIPPED, "{{ messages[0].content }}").ask(asked)
    return (answer["ids"] for answer in answers)


@pytest.fixture(scope="module")
def rollouts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve rollouts: even calls, odd ones, and one even call of other tokens."""
    prompt, even, odd, *letters, rest = _encoded([PROMPT, EVEN, ODD, *EVEN[:4], EVEN[4:]])
    split = [i for ids in letters for i in ids] + rest
    rows = [_row(prompt, ids) for ids in [even] * 5 + [odd] * 6 + [split]]
    path = tmp_path_factory.mktemp("rollouts") / "rollouts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _row(prompt: list[int], ids: list[int]) -> dict[str, Any]:
    return {
        "token_ids": prompt + ids,
        "loss_mask": [0] * len(prompt) + [1] * len(ids),
        "messages": [{"role": "user", "content": "add 2 and 3"}],
    }


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "tools.jinja"
    path.write_text(TEMPLATE)
    return path


def test_an_odd_call_is_repaired_and_the_repair_is_named(
    probe: Probe, rollouts: Path, template: Path, tmp_path: Path
) -> None:
    """Odd white space comes back even, through tokens that were never sampled, as a drift of a tool
    call's white space; even calls come back as they were; other tokens of one text are BPE's."""
    done = probe("retokenize", "--model", SHIPPED, "--rollouts", rollouts, "--out", "o",
                 "--chat-template", template, "--score", "toy", "--json")  # fmt: skip
    assert done.code == 0, done.err
    text, road = done.json["roads"]["text"], done.json["roads"]["template"]
    assert road["causes"]["tool_whitespace"]["rollouts"]["count"] == 6
    assert road["causes"]["bpe"]["rollouts"]["count"] == 1 and road["drifted"]["count"] == 7
    assert list(text["causes"]) == ["bpe"] and text["drifted"]["count"] == 1
    assert road["inserted"]["count"] > 0 and done.json["input"]["rollouts_with_calls"] == 12

    lines = (tmp_path / "o" / "retokenized.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    assert rows[7]["token_ids"] == rows[0]["token_ids"] and rows[7]["inserted"]
    assert not rows[0]["inserted"]

    share = done.json["scores"][0]["roads"]["template"]
    assert share["inserted"]["tokens"] == road["inserted"]["count"]
    assert 0 < share["share"]["gradient"]["low"] < share["share"]["gradient"]["high"] < 1
    assert 'class="t ins' in (tmp_path / "o" / "retokenize.html").read_text()


def test_the_same_command_again_gives_the_same_bytes(
    probe: Probe, rollouts: Path, template: Path, tmp_path: Path
) -> None:
    words = ("retokenize", "--model", SHIPPED, "--rollouts", rollouts, "--chat-template", template)
    said = []
    for _ in range(2):
        assert probe(*words, "--out", "o").code == 0
        said.append((tmp_path / "o" / "retokenize.json").read_bytes())
    assert said[0] == said[1]


def test_rollouts_without_a_tool_call_take_both_roads(probe: Probe, tmp_path: Path) -> None:
    """Plain text drifts too: the shipped template writes a blank before one that was sampled."""
    prompt, words = _encoded(["Question: add 2 and 3\nAnswer:", " The sum is 5."])
    with (tmp_path / "plain.jsonl").open("w") as file:
        for _ in range(8):
            file.write(json.dumps(_row(prompt, words)) + "\n")
    done = probe("retokenize", "--model", SHIPPED, "--rollouts", "plain.jsonl", "--out", "o",
                 "--json")  # fmt: skip
    assert done.code == 0, done.err
    assert done.json["input"]["rollouts_with_calls"] == 0
    assert done.json["roads"]["template"]["causes"]["whitespace"]["rollouts"]["count"] == 8
    assert done.json["roads"]["text"]["drifted"]["count"] == 0


def test_what_cannot_be_taken_down_the_roads_says_so(
    probe: Probe, rollouts: Path, template: Path, tmp_path: Path
) -> None:
    """No tokenizer, no template, a template that fails, ids of another vocabulary:
    each its own sentence and exit code."""
    bare = shutil.copytree(SHIPPED, tmp_path / "bare")
    (bare / "chat_template.jinja").unlink()
    broken = tmp_path / "broken.jinja"
    broken.write_text("{{ raise_exception('no user') }}")
    row = json.loads(rollouts.read_text().splitlines()[0])
    outside = tmp_path / "outside.jsonl"
    outside.write_text(json.dumps({**row, "token_ids": [5000] * len(row["token_ids"])}))

    def said(model: Path, file: Path, *more: object) -> tuple[int, str]:
        done = probe("retokenize", "--model", model, "--rollouts", file, "--out", "x", *more)
        assert not (tmp_path / "x").exists()
        return done.code, done.err

    assert _has(said(bare, rollouts), 2, "no chat template")
    assert _has(said(SHIPPED, rollouts, "--chat-template", broken), 2, "row 1: ", "no user")
    assert _has(said(SHIPPED, outside), 2, "outside the vocabulary")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (bare / file).unlink()
    assert _has(said(bare, rollouts), 2, "no tokenizer that loads")


def _has(said: tuple[int, str], code: int, *words: str) -> bool:
    assert said[0] == code and all(word in said[1] for word in words), said
    return True


def test_an_output_folder_of_another_command_is_refused(
    probe: Probe, rollouts: Path, template: Path, tmp_path: Path
) -> None:
    store.write_text(tmp_path / "o" / "notes.txt", "mine")
    done = probe("retokenize", "--model", SHIPPED, "--rollouts", rollouts, "--out", "o",
                 "--chat-template", template)  # fmt: skip
    assert done.code == 2 and "already holds something else" in done.err
