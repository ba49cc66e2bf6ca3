"""What the study is made of: bfcl-eval's questions in, ids to train on, prompts and rollouts out.

    python material.py policy  BFCL MODEL OUT        answers to train on      -> OUT/policy.jsonl
    python material.py prompts BFCL MODEL OUT        first turns              -> OUT/prompts-1.jsonl
    python material.py second  CORPUS MODEL OUT      their second turns       -> OUT/prompts-2.jsonl
    python material.py again   MODEL OUT             the first AGAIN prompts  -> OUT/prompts-3.jsonl
    python material.py collect CORPUS_1 CORPUS_2 CORPUS_3 MODEL OUT
                                                     what has a tool call     -> OUT/rollouts.jsonl

BFCL is the data folder of the package bfcl-eval (Apache-2.0), whose code is never imported; CORPUS
the corpus folder of a capture. Entries of even number are for training, those of odd number are
drawn from.
Schemas are cut to names and types, and tools answer "done": no function is run.

A call can be written in many ways (STYLES). The system message names one, or none: then the policy
has seen all five alike.
"""

from __future__ import annotations

import ast
import json
import random
import sys
from pathlib import Path
from typing import Any

from mismatch import store
from mismatch.capture.roundtrip import Tokenizer
from mismatch.retokenize.messages import parse_turn

TEMPLATE = (Path(__file__).parent / "hermes-tools.jinja").read_text(encoding="utf-8")
#: Writes text as it stands: ids of what no template would write.
BARE = "{{ messages[0].content }}"
STYLES = ("canonical", "compact", "loose", "indented", "swapped")
GROUPS = (*STYLES, "unstated")
END, TURN = "<|im_end|>", "<|im_start|>assistant\n"
#: Of schemas, in characters; of a drawn turn, in tokens (make_policy.py and run.sh agree).
LONGEST_SCHEMA, MAX_TOKENS = 400, 96

Entry = dict[str, Any]


# ---------------------------------------------------------------- bfcl's entries


def _read(path: Path) -> list[Entry]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _write(path: Path, rows: list[Entry]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")


def _schema(function: Entry) -> Entry:
    properties = function["parameters"].get("properties", {})
    return {
        "name": function["name"],
        "parameters": {name: about.get("type", "any") for name, about in properties.items()},
    }


def singles(bfcl: Path) -> list[Entry]:
    """Entries of one question, one function and one call: turns, tools, answers."""
    found = []
    for name in ("simple_python", "live_simple"):
        answers = {
            r["id"]: r["ground_truth"][0]
            for r in _read(bfcl / "possible_answer" / f"BFCL_v4_{name}.json")
        }
        for row in _read(bfcl / f"BFCL_v4_{name}.json"):
            question = row["question"][0][-1]["content"]
            tools = [_schema(f) for f in row["function"]]
            if len(json.dumps(tools)) + len(question) <= LONGEST_SCHEMA:
                ((function, values),) = answers[row["id"]].items()
                arguments = {k: v[0] for k, v in values.items() if v and v[0] != ""}
                answer = [(function, arguments)]
                turns = {"turns": [question], "answers": [answer]}
                found.append({"id": row["id"], "tools": tools, **turns})
    return found


def conversations(bfcl: Path) -> list[Entry]:
    """The first two turns of multi-turn entries, and at most two calls of each."""
    docs = [d for p in sorted((bfcl / "multi_turn_func_doc").glob("*.json")) for d in _read(p)]
    schemas = {d["name"]: _schema(d) for d in docs}
    truth = {
        r["id"]: r["ground_truth"]
        for r in _read(bfcl / "possible_answer" / "BFCL_v4_multi_turn_base.json")
    }
    found = []
    for row in _read(bfcl / "BFCL_v4_multi_turn_base.json"):
        turns = [t[-1]["content"] for t in row["question"][:2] if t]
        answers = [[_call(c) for c in turn[:2]] for turn in truth[row["id"]][:2]]
        names = dict.fromkeys(name for turn in answers for name, _ in turn)
        tools = [schemas[name] for name in names if name in schemas]
        whole = len(turns) == 2 and all(answers) and len(tools) == len(names)
        if whole and len(json.dumps(tools)) + len("".join(turns)) <= 2 * LONGEST_SCHEMA:
            found.append({"id": row["id"], "tools": tools, "turns": turns, "answers": answers})
    return found


def _call(text: str) -> tuple[str, dict[str, Any]]:
    """`cd(folder='a')` -> ("cd", {"folder": "a"}); read as literals, never run."""
    call = ast.parse(text, mode="eval").body
    assert isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
    named = {k.arg or "": ast.literal_eval(k.value) for k in call.keywords}
    placed = {f"argument_{n}": ast.literal_eval(a) for n, a in enumerate(call.args, 1)}
    return call.func.id, placed | named


# ---------------------------------------------------------------- writing


def written(style: str, calls: list[tuple[str, dict[str, Any]]]) -> str:
    """Tool calls in a style; `canonical` is the template's own."""
    return ("" if style == "compact" else "\n").join(_written(style, *call) for call in calls)


def _written(style: str, name: str, arguments: dict[str, Any]) -> str:
    call = {"name": name, "arguments": arguments}
    if style == "compact":
        return f"<tool_call>{json.dumps(call, separators=(',', ':'))}</tool_call>"
    if style == "loose":
        text = json.dumps(call, separators=(" , ", " : "))
        text = "{ " + text[1:-1] + " }"
    elif style == "indented":
        text = json.dumps(call, indent=2)
    elif style == "swapped":
        text = json.dumps({"arguments": arguments, "name": name})
    else:
        text = json.dumps(call)
    return f"<tool_call>\n{text}\n</tool_call>"


def _prompt(entry: Entry, group: str) -> list[Entry]:
    style = "" if group == "unstated" else f" Style: {group}."
    said = f"You answer each request with calls of functions.{style}"
    return [
        {"role": "system", "content": said},
        {"role": "user", "content": entry["turns"][0]},
    ]


def _between(question: str) -> str:
    """What stands between the end of one sampled turn and the next one's first token."""
    return (
        f"\n<|im_start|>user\n<tool_response>\ndone\n</tool_response>{END}\n"
        f"<|im_start|>user\n{question}{END}\n{TURN}"
    )


def _answer(entry: Entry, turn: int, style: str) -> str:
    calls = entry["answers"][turn]
    thought = f"<think>\nI call {calls[0][0]}.\n</think>\n" if len(entry["turns"]) > 1 else ""
    return thought + written(style, calls) + END


def _rendered(model: Path, rows: list[Entry]) -> list[list[int]]:
    """The prompts' ids, by the study's template."""
    questions = [
        {"messages": r["messages"], "tools": r["tools"], "prompt": True, "where": r["id"]}
        for r in rows
    ]
    return [a["ids"] for a in Tokenizer(model, TEMPLATE).ask(questions)[0]]


def _encoded(model: Path, texts: list[str]) -> list[list[int]]:
    questions = [
        {"messages": [{"role": "user", "content": t}], "tools": None, "prompt": False, "where": ""}
        for t in texts
    ]
    return [a["ids"] for a in Tokenizer(model, BARE).ask(questions)[0]]


# ---------------------------------------------------------------- the verbs


def policy(bfcl: Path, model: Path, out: Path) -> None:
    """Rows {token_ids, loss_mask} of answered prompts, for make_policy.py."""
    rng = random.Random(0)
    rows, texts = [], []
    for number, entry in enumerate([*singles(bfcl)[::2], *conversations(bfcl)[::2]]):
        group = GROUPS[number % len(GROUPS)]
        style = rng.choice(STYLES) if group == "unstated" else group
        rows.append({**entry, "messages": _prompt(entry, group)})
        own = [_answer(entry, turn, style) for turn in range(len(entry["turns"]))]
        texts.append([own[0], *(p for t, a in zip(entry["turns"][1:], own[1:], strict=True)
                                for p in (_between(t), a))])  # fmt: skip
    prompts = _rendered(model, rows)
    parts = iter(_encoded(model, [part for own in texts for part in own]))
    made = []
    for prompt, own in zip(prompts, texts, strict=True):
        ids, mask = list(prompt), [0] * len(prompt)
        for k, part in enumerate([next(parts) for _ in own]):
            ids, mask = ids + part, mask + [int(k % 2 == 0)] * len(part)
        made.append({"token_ids": ids, "loss_mask": mask})
    rng.shuffle(made)
    _write(out / "policy.jsonl", made)


def prompts(bfcl: Path, model: Path, out: Path) -> None:
    """First turns as ids, and what they were made of beside them."""
    entries = [*singles(bfcl)[1::2], *conversations(bfcl)[1::2]]
    rows = []
    for number, entry in enumerate(entries):
        group = GROUPS[number % len(GROUPS)]
        rows.append({**entry, "group": group, "messages": _prompt(entry, group)})
    _write(out / "about-1.jsonl", rows)
    _write(out / "prompts-1.jsonl", [{"token_ids": ids} for ids in _rendered(model, rows)])


def sampled(corpus: Path) -> list[tuple[list[int], list[int]]]:
    """(ids, loss mask) of each drawn sequence."""
    found, _, _ = store.load_corpus(corpus)
    return [
        (i.tolist(), s.astype(int).tolist())
        for i, s in zip(found.token_ids, found.scored, strict=True)
    ]


def _last_run(mask: list[int]) -> int:
    return len(mask) - mask[::-1].index(0)


def _turn_texts(model: Path, rows: list[tuple[list[int], list[int]]]) -> list[str]:
    """The text of each sequence's last sampled turn, without its end."""
    questions = [{"ids": ids[_last_run(mask) :], "runs": [], "where": ""} for ids, mask in rows]
    answers, _ = Tokenizer(model, BARE).ask(questions)
    return [a["text"].removesuffix(END) for a in answers]


def second(corpus: Path, model: Path, out: Path) -> None:
    """The next prompt of each conversation whose first turn called a function and ended: the ids
    so far as they were drawn, then the tool's answer and the next question.
    """
    rows, about = sampled(corpus), _read(out / "about-1.jsonl")
    texts = _turn_texts(model, rows)
    between = _encoded(model, [_between(row["turns"][-1]) for row in about])
    kept, ids = [], []
    for number, ((own, mask), row, text) in enumerate(zip(rows, about, texts, strict=True)):
        is_cut = len(mask) - _last_run(mask) >= MAX_TOKENS
        if len(row["turns"]) < 2 or is_cut or not parse_turn(text).calls:
            continue
        more = [
            {"role": "assistant"},
            {"role": "tool", "content": "done"},
            {"role": "user", "content": row["turns"][1]},
            {"role": "assistant"},
        ]
        ids.append({"token_ids": own + between[number]})
        old = mask + [0] * len(between[number])
        kept.append({**row, "messages": [*row["messages"], *more], "mask": old, "first": number})
    _write(out / "about-2.jsonl", kept)
    _write(out / "prompts-2.jsonl", ids)


#: Prompts that are drawn from twice, as in a group of rollouts.
AGAIN = 64


def again(model: Path, out: Path) -> None:
    """A second rollout of the first prompts."""
    _write(out / "prompts-3.jsonl", _read(out / "prompts-1.jsonl")[:AGAIN])


def collect(first: Path, later: Path, third: Path, model: Path, out: Path) -> None:
    """Rollouts in which a call parses: a conversation of two turns takes its first turn's place."""
    about, rows = _read(out / "about-1.jsonl"), sampled(first)
    more, longer = _read(out / "about-2.jsonl"), sampled(later)
    replaced = {row["first"] for row in more}
    about, rows = about + about[:AGAIN], rows + sampled(third)
    texts = _turn_texts(model, rows)
    kept = [
        _row(ids, mask, row)
        for number, ((ids, mask), row, text) in enumerate(zip(rows, about, texts, strict=True))
        if number not in replaced and parse_turn(text).calls
    ]
    for (ids, mask), row in zip(longer, more, strict=True):
        old = row["mask"]
        kept.append(_row(ids, old + mask[len(old) :], row))
    _write(out / "rollouts.jsonl", kept)
    counts = {
        "drawn": len(rows),
        "kept": len(kept),
        "of_two_turns": len(more),
        "drawn_by_group": {g: sum(r["group"] == g for r in about) for g in GROUPS},
        "kept_by_group": {g: sum(r["group"] == g for r in kept) for g in GROUPS},
    }
    (out / "counts.json").write_text(store.dump_json(counts), "utf-8")
    print(json.dumps(counts))


def _row(ids: list[int], mask: list[int], about: Entry) -> Entry:
    row = {"token_ids": ids, "loss_mask": mask, "messages": about["messages"]}
    return {**row, "tools": about["tools"], "id": about["id"], "group": about["group"]}


VERBS = {"policy": policy, "prompts": prompts, "second": second, "again": again, "collect": collect}

if __name__ == "__main__":
    VERBS[sys.argv[1]](*map(Path, sys.argv[2:]))
