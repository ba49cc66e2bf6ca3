"""Guest of `retokenize`: loads a checkpoint's tokenizer alone, and answers a list of questions.

Run as `INTERPRETER -P -m mismatch.engines.hf.roundtrip FOLDER`; files in FOLDER:

    ask.json     {model, trust_remote_code, chat_template (text, or null: the checkpoint's own),
                  questions}                                               host -> guest
    answer.json  {about, answers}                                          guest -> host
    error.json   {boundary, message}                                       guest -> host

A question is one of these, with "where" (whose it is, for errors):
    {"ids": [...], "runs": [[a, b], ...]}
                                            -> {"text", "ends", "again"}: the text of the ids, and
                                               of each run ids[a:b] by itself {"text", "ids",
                                               "ends"}, encoded anew
    {"messages": [...], "tools": [...]|null, "prompt": bool}
                                            -> {"text", "ids", "ends"} by the chat template
`ends[k]` is the length of the text of the first k + 1 ids.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from mismatch import wire

#: Ids that are decoded together: a prefix grows no longer, so that the cost stays linear.
CHUNK = 32


def main(folder: Path) -> int:
    ask = json.loads((folder / "ask.json").read_text(encoding="utf-8"))
    try:
        boundary = "load"
        tokenizer = _load(ask)
        boundary = "template"
        template = ask["chat_template"] or tokenizer.get_chat_template()
        boundary = "encode"
        answers = [_placed(tokenizer, template, question) for question in ask["questions"]]
    except Exception as reason:
        named = "" if boundary == "encode" else f"{type(reason).__name__}: "
        message = f"{named}{reason}"
        wire.write_json(folder / "error.json", {"boundary": boundary, "message": message})
        return 1
    wire.write_json(folder / "answer.json", {"about": _about(tokenizer), "answers": answers})
    return 0


def _load(ask: dict[str, Any]) -> Any:
    import transformers  # type: ignore[import-not-found]

    return transformers.AutoTokenizer.from_pretrained(
        ask["model"], local_files_only=True, trust_remote_code=ask["trust_remote_code"]
    )


def _about(tokenizer: Any) -> dict[str, Any]:
    import transformers

    return {
        "tokenizer": type(tokenizer).__name__,
        "vocabulary": len(tokenizer),
        "special_ids": sorted(set(tokenizer.all_special_ids)),
        "transformers": transformers.__version__,
    }


def _placed(tokenizer: Any, template: str, question: dict[str, Any]) -> dict[str, Any]:
    """The answer; where there is none, why, and to which question."""
    try:
        return _answer(tokenizer, template, question)
    except Exception as reason:
        raise ValueError(f"{question['where']}: {type(reason).__name__}: {reason}") from reason


def _answer(tokenizer: Any, template: str, question: dict[str, Any]) -> dict[str, Any]:
    if "ids" in question:
        ids = question["ids"]
        again = [_encoded(tokenizer, decode(tokenizer, ids[a:b])) for a, b in question["runs"]]
        return {**_ended(tokenizer, ids), "again": again}
    text = tokenizer.apply_chat_template(
        question["messages"],
        tools=question["tools"],
        chat_template=template,
        add_generation_prompt=question["prompt"],
        tokenize=False,
    )
    return _encoded(tokenizer, text)


def _encoded(tokenizer: Any, text: str) -> dict[str, Any]:
    """A template has written its special tokens itself: none is added."""
    ids = list(tokenizer.encode(text, add_special_tokens=False))
    return {"ids": ids, **_ended(tokenizer, ids)}


def decode(tokenizer: Any, ids: list[int]) -> str:
    """The text as it stands: no special token skipped, no blank tidied away."""
    text: str = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    return text


def _ended(tokenizer: Any, ids: list[int]) -> dict[str, Any]:
    return {"text": decode(tokenizer, ids), "ends": ends(tokenizer, ids)}


def ends(tokenizer: Any, ids: list[int]) -> list[int]:
    """The length of the text of each prefix.

    Counted from the last place where a chunk of ids ended in whole characters; where the text of a
    tokenizer is not that of its chunks put together, from the first id.
    """
    found, start, before = [], 0, 0
    for k in range(len(ids)):
        text = decode(tokenizer, ids[start : k + 1])
        found.append(before + len(text))
        if k + 1 - start >= CHUNK and not text.endswith("\ufffd"):
            start, before = k + 1, found[-1]
    if found and found[-1] != len(decode(tokenizer, ids)):
        return [len(decode(tokenizer, ids[: k + 1])) for k in range(len(ids))]
    return found


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
