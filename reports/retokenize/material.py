"""Prompts and rollouts of the study: bfcl-eval's questions in, rows for `retokenize` out.

    python material.py prompts BFCL MODEL OUT          first turns        -> OUT/prompts-1.jsonl
    python material.py second  CORPUS MODEL OUT        their second turns -> OUT/prompts-2.jsonl
    python material.py collect CORPUS_1 CORPUS_2 OUT   what holds a call  -> OUT/rollouts.jsonl

BFCL is the data folder of the package bfcl-eval (Apache-2.0), whose code is never imported; CORPUS
a corpus folder of a capture. Answers of tools are made up ("done"): no function is run.

A 135M model draws a tool call only where it is shown one. Two worked examples stand in the system
message, in one of five ways of writing (STYLES) that models are known to have; a prompt's style is
its number modulo five.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mismatch import store
from mismatch.capture.roundtrip import Tokenizer
from mismatch.retokenize.messages import parse_turn

TEMPLATE = (Path(__file__).parent / "hermes-tools.jinja").read_text(encoding="utf-8")
STYLES = ("canonical", "compact", "loose", "indented", "swapped")
#: Functions of the examples, on no question of bfcl's.
EXAMPLES = (
    ("Water the roses for 5 minutes.", "garden_water", {"plant": "roses", "minutes": 5}),
    ("Wake me at seven, with jazz.", "set_alarm", {"time": "07:00", "sound": "jazz"}),
)
LONGEST_SCHEMA, FIRST_TURNS, CONVERSATIONS = 600, 260, 60


def written(style: str, name: str, arguments: dict[str, Any]) -> str:
    """One tool call in a style; `canonical` is the template's own."""
    call = {"name": name, "arguments": arguments}
    if style == "compact":
        return f"<tool_call>{json.dumps(call, separators=(',', ':'))}</tool_call>"
    if style == "loose":
        text = json.dumps(call, separators=(" , ", " : ")).replace("{", "{ ").replace("}", " }")
    elif style == "indented":
        text = json.dumps(call, indent=2)
    elif style == "swapped":
        text = json.dumps({"arguments": arguments, "name": name})
    else:
        text = json.dumps(call)
    return f"<tool_call>\n{text}\n</tool_call>"


def system(style: str, thinks: bool) -> str:
    """The system message: what to do, and the examples."""
    lines = ["You answer each request with one call of a function."]
    for asked, name, arguments in EXAMPLES:
        thought = f"<think>\nI call {name}.\n</think>\n" if thinks else ""
        lines.append(f"\nRequest: {asked}\nAnswer:\n{thought}{written(style, name, arguments)}")
    return "\n".join(lines)


def _read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")


def single_turns(bfcl: Path) -> list[dict[str, Any]]:
    """Questions of one turn with one function of a short schema."""
    rows = _read(bfcl / "BFCL_v4_simple_python.json") + _read(bfcl / "BFCL_v4_live_simple.json")
    rows = [r for r in rows if len(json.dumps(r["function"])) <= LONGEST_SCHEMA]
    rows = [r for r in rows if all(m["role"] == "user" for m in r["question"][0])]
    return [
        {"id": r["id"], "turns": [r["question"][0][-1]["content"]], "tools": r["function"]}
        for r in rows[:FIRST_TURNS]
    ]


def conversations(bfcl: Path) -> list[dict[str, Any]]:
    """The first two turns of multi-turn entries, with the functions that their answers call."""
    docs = [d for p in sorted((bfcl / "multi_turn_func_doc").glob("*.json")) for d in _read(p)]
    by_name = {d["name"]: {k: d[k] for k in ("name", "description", "parameters")} for d in docs}
    answers = {
        r["id"]: r["ground_truth"]
        for r in _read(bfcl / "possible_answer" / "BFCL_v4_multi_turn_base.json")
    }
    found = []
    for row in _read(bfcl / "BFCL_v4_multi_turn_base.json"):
        called = [c.split("(")[0] for turn in answers[row["id"]][:2] for c in turn]
        tools = [by_name[name] for name in dict.fromkeys(called) if name in by_name][:2]
        turns = [t[-1]["content"] for t in row["question"][:2] if t]
        if len(turns) == 2 and tools and len(json.dumps(tools)) <= 2 * LONGEST_SCHEMA:
            found.append({"id": row["id"], "turns": turns, "tools": tools})
    return found[:CONVERSATIONS]


def prompts(bfcl: Path, model: Path, out: Path) -> None:
    """First turns as ids of the study's template, and what they were made of beside them."""
    rows = []
    for number, entry in enumerate([*single_turns(bfcl), *conversations(bfcl)]):
        style, chats = STYLES[number % len(STYLES)], len(entry["turns"]) > 1
        messages = [
            {"role": "system", "content": system(style, thinks=chats)},
            {"role": "user", "content": entry["turns"][0]},
        ]
        rows.append({"style": style, "messages": messages, **entry})
    _write(out / "about-1.jsonl", rows)
    _write(out / "prompts-1.jsonl", _rendered(model, rows))


def _rendered(model: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    asked = [
        {"messages": r["messages"], "tools": r["tools"], "prompt": True, "where": r["id"]}
        for r in rows
    ]
    answers, _ = Tokenizer(model, TEMPLATE).ask(asked)
    return [{"token_ids": a["ids"]} for a in answers]


def sampled(corpus: Path) -> list[tuple[list[int], list[int]]]:
    """(ids, loss mask) of each drawn sequence."""
    found, _, _ = store.load_corpus(corpus)
    return [
        (i.tolist(), s.astype(int).tolist())
        for i, s in zip(found.token_ids, found.scored, strict=True)
    ]


def _turn_texts(model: Path, rows: list[tuple[list[int], list[int]]]) -> list[str]:
    """The text of each sequence's last run of sampled ids, without the end of its turn."""
    asked = [{"ids": ids[_last_run(mask) :], "runs": [], "where": ""} for ids, mask in rows]
    answers, _ = Tokenizer(model, TEMPLATE).ask(asked)
    return [a["text"].removesuffix("<|im_end|>") for a in answers]


def _last_run(mask: list[int]) -> int:
    return len(mask) - mask[::-1].index(0)


def second(corpus: Path, model: Path, out: Path) -> None:
    """The next prompt of each conversation whose first turn called a function and ended: the ids
    so far as they were drawn, then the tool's answer and the next question.
    """
    rows, about = sampled(corpus), _read(out / "about-1.jsonl")
    texts = _turn_texts(model, rows)
    glue = _rendered_glue(model, about)
    next_prompts, kept = [], []
    for number, (row, text) in enumerate(zip(about, texts, strict=True)):
        turn = parse_turn(text)
        ids, mask = rows[number]
        if len(row["turns"]) < 2 or not turn.calls or len(mask) - _last_run(mask) >= MAX_TOKENS:
            continue
        next_prompts.append({"token_ids": ids + glue[number]})
        more = [
            {"role": "assistant"},
            {"role": "tool", "content": "done"},
            {"role": "user", "content": row["turns"][1]},
            {"role": "assistant"},
        ]
        messages = [*row["messages"], *more]
        old = mask + [0] * len(glue[number])
        kept.append({**row, "messages": messages, "mask": old, "first": number})
    _write(out / "about-2.jsonl", kept)
    _write(out / "prompts-2.jsonl", next_prompts)


#: Of a turn; one that is as long was cut, and cannot be followed by another.
MAX_TOKENS = 100


def _rendered_glue(model: Path, about: list[dict[str, Any]]) -> list[list[int]]:
    """The ids between two sampled turns, which do not depend on them: the line break after the
    end of a turn, the tool's answer, the next question and the start of the next turn.
    """
    texts = [
        f"\n<|im_start|>user\n<tool_response>\ndone\n</tool_response><|im_end|>\n"
        f"<|im_start|>user\n{row['turns'][-1]}<|im_end|>\n<|im_start|>assistant\n"
        for row in about
    ]
    bare = "{{ messages[0].content }}"
    asked = [
        {"messages": [{"role": "user", "content": t}], "tools": None, "prompt": False, "where": ""}
        for t in texts
    ]
    answers, _ = Tokenizer(model, bare).ask(asked)
    return [a["ids"] for a in answers]


def collect(first: Path, second: Path, model: Path, out: Path) -> None:
    """Rollouts in which a call parses: a conversation of two turns takes its first turn's place."""
    about, rows = _read(out / "about-1.jsonl"), sampled(first)
    more, longer = _read(out / "about-2.jsonl"), sampled(second)
    texts = _turn_texts(model, rows)
    replaced = {row["first"] for row in more}
    kept = [
        _row(ids, mask, row)
        for number, ((ids, mask), row, text) in enumerate(zip(rows, about, texts, strict=True))
        if number not in replaced and parse_turn(text).calls
    ]
    for (ids, mask), row in zip(longer, more, strict=True):
        old = row["mask"]
        kept.append(_row(ids, old + mask[len(old) :], row))
    _write(out / "rollouts.jsonl", kept)
    drawn = {style: sum(r["style"] == style for r in about) for style in STYLES}
    found = {style: sum(r["style"] == style for r in kept) for style in STYLES}
    counts = {"drawn": len(rows), "kept": len(kept), "two_turns": len(more)}
    counts |= {"drawn_by_style": drawn, "kept_by_style": found}
    (out / "counts.json").write_text(store.dump_json(counts), "utf-8")
    print(json.dumps(counts))


def _row(ids: list[int], mask: list[int], about: dict[str, Any]) -> dict[str, Any]:
    row = {"token_ids": ids, "loss_mask": mask, "messages": about["messages"]}
    return {**row, "tools": about["tools"], "id": about["id"], "group": about["style"]}


VERBS = {"prompts": prompts, "second": second, "collect": collect}

if __name__ == "__main__":
    VERBS[sys.argv[1]](*map(Path, sys.argv[2:]))
