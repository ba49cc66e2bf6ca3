"""Every error a user can meet: its exit code, what happened, and what to do. One table.

Exit codes: 0 pass · 1 gate failed · 2 usage, bad input or bad study · 3 nothing selected ·
4 no evidence or inconclusive · 5 not comparable · 6 every capture failed · 7 some captures failed ·
70 bug · 130 interrupted.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PASS, GATE_FAILED, BAD_INPUT, NOTHING_SELECTED, NO_EVIDENCE = 0, 1, 2, 3, 4
NOT_COMPARABLE, ALL_FAILED, SOME_FAILED, BUG, INTERRUPTED = 5, 6, 7, 70, 130


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the table: exit code, the sentence, and the way out. `{...}` are fields."""

    exit_code: int
    message: str
    hint: str


ERRORS: dict[str, Entry] = {
    # conditions and options
    "condition-syntax": Entry(
        BAD_INPUT,
        "'{text}' is not a condition.",
        "Write ENGINE or ENGINE:key=value,key=value, for example hf:dtype=bf16,attention=sdpa.",
    ),
    "unknown-engine": Entry(
        BAD_INPUT, "There is no engine named '{engine}'.", "Engines: {known}.{hint_extra}"
    ),
    "unknown-option": Entry(
        BAD_INPUT,
        "Engine {engine} has no option '{option}'.",
        "Its options: {known}; {arguments}.{hint_extra}",
    ),
    "option-value": Entry(
        BAD_INPUT, "Option {option} does not take '{value}'.", "It takes {takes}.{hint_extra}"
    ),
    "condition-refused": Entry(
        BAD_INPUT, "{condition} cannot run here: {reason}.", "Change that option and run again."
    ),
    "sampler-refused": Entry(
        BAD_INPUT,
        "{condition} draws the ids, and it cannot run here: {reason}.",
        "Name another with rollout=ID in the study, give a corpus, or bring the folder from a "
        "machine that has drawn them.",
    ),
    "wrong-side": Entry(
        BAD_INPUT,
        "Engine {engine} cannot be the {side} side: it has no path {path}.",
        "Engines that can: {known}.",
    ),
    "path-not-taken": Entry(
        BAD_INPUT,
        "Engine {engine} has no path {path}.",
        "It has {own}, and takes them all where no path is named. Engines with {path}: {known}.",
    ),
    "unknown-path": Entry(
        BAD_INPUT, "There is no path '{path}'.", "Paths: rollout, decode, prefill.{hint_extra}"
    ),
    "usage": Entry(BAD_INPUT, "{what}", "{todo}"),
    "bad-study": Entry(BAD_INPUT, "{file}: {reason}.", "Mend the study file.{hint_extra}"),
    "corners-refused": Entry(
        BAD_INPUT,
        "Attribution '{attribution}' needs corners that cannot run here: {corners}.",
        "Capture them on a machine that can (capture STUDY --only ID), and bring the output folder "
        "here; or drop the attribution.",
    ),
    # inputs
    "file-missing": Entry(BAD_INPUT, "{what} {file} does not exist.", "Check the path."),
    "no-path": Entry(BAD_INPUT, "{path} is no path: {reason}.", "Give a shorter or plainer name."),
    "file-unreadable": Entry(BAD_INPUT, "{file} cannot be read: {reason}.", "{todo}"),
    "bad-row": Entry(BAD_INPUT, "{file}, line {line}: {reason}.", "{todo}"),
    "empty-input": Entry(
        NOTHING_SELECTED, "{file} holds no rows.", "Give a file with at least one row."
    ),
    "nothing-scored": Entry(
        NOTHING_SELECTED,
        "{file} has no token to score.",
        "Position 0 is never scored: give sequences of two tokens or more, with a 1 in loss_mask.",
    ),
    "unknown-schema": Entry(
        BAD_INPUT,
        "{file}, line {line}: {name} {found} is unknown.",
        "This release reads {known}; export again or update mismatch-probe.",
    ),
    "bad-record": Entry(
        BAD_INPUT,
        "Nothing was recorded: {reason}.",
        "Give arrays of one shape (align='response' for values of the last tokens only), "
        "log-probabilities in nats, and an attention_mask where the batch is padded.",
    ),
    "record-failed": Entry(
        BAD_INPUT,
        "Recording to {file} failed: {reason}.",
        "Check the path, its permissions and the free space; whole lines before it are kept.",
    ),
    "not-a-checkpoint": Entry(
        BAD_INPUT,
        "{folder} is not a checkpoint: {reason}.",
        "Give the folder of a Hugging Face checkpoint (config.json and *.safetensors); "
        "export FSDP or Megatron weights to that form first.",
    ),
    "id-outside-vocabulary": Entry(
        BAD_INPUT,
        "{file}, sequence {row}: token id {token_id} is outside the vocabulary of {size}.",
        "The ids come from another tokenizer, or the checkpoint is not the one that was sampled.",
    ),
    "sequence-too-long": Entry(
        BAD_INPUT,
        "{file}, sequence {row} needs {length} positions; {limiter} allows {limit}.",
        "Shorten the sequence, lower --max-tokens, or use a checkpoint with a longer context.",
    ),
    # retokenize
    "no-tokenizer": Entry(
        BAD_INPUT,
        "{folder} has no tokenizer that loads: {reason}.",
        "Give the checkpoint's folder with its tokenizer files (tokenizer.json, "
        "tokenizer_config.json).",
    ),
    "no-chat-template": Entry(
        BAD_INPUT,
        "{folder} has no chat template: {reason}.",
        "Give one with --chat-template FILE.jinja.",
    ),
    "template-failed": Entry(
        BAD_INPUT,
        "The chat template of {folder} cannot render these messages: {reason}.",
        "Give messages that the template takes, or another one with --chat-template.",
    ),
    # output folders and artifacts
    "out-not-ours": Entry(
        BAD_INPUT,
        "{folder} already holds something else ({reason}).",
        "Give --out a new folder, or the same command to resume it.{hint_extra}",
    ),
    "in-use": Entry(
        BAD_INPUT,
        "Another run is using {folder} now.",
        "Wait until it has ended, or give --out another folder.",
    ),
    "out-of-space": Entry(
        BAD_INPUT,
        "Writing {file} failed: {reason}.",
        "Free some space or choose another place; the same command resumes.",
    ),
    "not-writable": Entry(
        BAD_INPUT,
        "Writing {file} failed: {reason}.",
        "Choose a place that you may write to; the same command resumes.",
    ),
    "not-an-artifact": Entry(
        BAD_INPUT,
        "{folder} cannot be read as a {kind}: {reason}.",
        "A run is an --out folder; in it lie run.json, traces/CONDITION/CAPTURE and corpus/ID; "
        "where summary.json alone is gone, compare DIR writes it again.",
    ),
    "artifact-changed": Entry(
        BAD_INPUT,
        "{file} was changed after it was sealed ({reason}).",
        "Nothing is believed from it: {again}.",
    ),
    "artifact-too-new": Entry(
        BAD_INPUT,
        "{file} has schema {found}; this release reads {known}.",
        "Update mismatch-probe to read it.",
    ),
    "no-such-cell": Entry(
        NOTHING_SELECTED, "The study has no cell '{cell}'.", "Cells: {known}.{hint_extra}"
    ),
    "needs-rollout": Entry(
        BAD_INPUT,
        "{cell} replays ids that are not there yet.",
        "They are drawn by {drawn_by}: capture it first, and bring the study's output folder here.",
    ),
    "no-such-pair": Entry(
        BAD_INPUT, "There is no pair '{pair}' here.", "Pairs: {known}.{hint_extra}"
    ),
    "no-common-pair": Entry(
        NOTHING_SELECTED,
        "{old} and {new} have no pair in common: {in_old}; against {in_new}.",
        "Match two of different names: --pair OLD_ID=NEW_ID.",
    ),
    "not-comparable": Entry(
        NOT_COMPARABLE,
        "{left} and {right} are not comparable: {reason}.",
        "Compare traces that replayed the same corpus.",
    ),
    # figures
    "unknown-figure": Entry(
        BAD_INPUT, "There is no figure '{name}'.", "Figures: {known}.{hint_extra}"
    ),
    "nothing-to-plot": Entry(
        NO_EVIDENCE, "{figure} has nothing to draw of {what}: {reason}.", "{todo}"
    ),
    # gate
    "unknown-metric": Entry(
        BAD_INPUT, "There is no metric '{metric}' to gate on.", "{known}{hint_extra}"
    ),
    "bad-rule": Entry(
        BAD_INPUT,
        "'{rule}' is not a rule.",
        "Write --max k3=1e-3 or --max excess.k3=5e-4; the limit is a finite number.",
    ),
    # engines and captures
    "engine-missing": Entry(
        BAD_INPUT,
        "Engine {engine} cannot run here: {reason}.",
        "{build} an interpreter that has it: {engine}:python=/path/to/bin/python.",
    ),
    "build-failed": Entry(
        BAD_INPUT, "Building the environment of {engine} failed: {reason}.", "{todo}"
    ),
    "captures-failed-all": Entry(
        ALL_FAILED, "Every capture failed; the first: {first}.", "The engine logs are in {logs}."
    ),
    "captures-failed-some": Entry(
        SOME_FAILED,
        "{count} of {total} captures failed; the first: {first}.",
        "What finished is kept; the same command redoes only what is missing. Logs: {logs}.",
    ),
    "interrupted": Entry(
        INTERRUPTED, "Interrupted.", "The same command resumes from the last finished call."
    ),
    "bug": Entry(
        BUG,
        "This is a bug in mismatch-probe: {reason}.",
        "Set MISMATCH_DEBUG=1 for the traceback and report it with the command you ran.",
    ),
}


class MismatchError(Exception):
    """A user-facing error: a row of ERRORS with its fields filled in. Shown without a traceback."""

    def __init__(self, code: str, **fields: Any) -> None:
        entry = ERRORS[code]
        fields.setdefault("hint_extra", "")
        fields.setdefault("again", _again(fields.get("file")))
        self.code = code
        self.exit_code = entry.exit_code
        self.message = entry.message.format(**fields)
        self.hint = entry.hint.format(**fields)
        super().__init__(f"{self.message} {self.hint}")

    def as_json(self) -> dict[str, dict[str, str]]:
        """The document `--json` prints for an error."""
        return {"error": {"code": self.code, "message": self.message, "hint": self.hint}}


def _again(file: Any) -> str:
    """How an artifact comes back: what was measured from the traces is measured again, anything
    else was captured."""
    path = Path(str(file))
    of_a_result = path.parent.parent.name in ("comparisons", "attributions")
    if path.name == "summary.json" or (of_a_result and path.name != "run.json"):
        return "compare DIR makes it again from the traces"
    return "capture it again, or restore the original file"


def suggest(word: str, known: Iterable[str], likeness: float = 0.5) -> str:
    """' Did you mean X?' when a known word is so near (0 to 1), else nothing."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=likeness)
    return f" Did you mean '{near[0]}'?" if near else ""
