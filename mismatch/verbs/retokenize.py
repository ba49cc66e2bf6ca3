"""retokenize: rollouts down both roads, what drifts and why, and what real engines make of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mismatch import report, store
from mismatch.capture import claim
from mismatch.capture.checkpoint import Checkpoint, check_fits, inspect
from mismatch.capture.roundtrip import Tokenizer
from mismatch.compare.align import Tokens
from mismatch.corpus import jsonl
from mismatch.corpus.prompts import check_encodable, check_messages
from mismatch.engines import parse_condition
from mismatch.errors import MismatchError
from mismatch.model import Condition, Corpus, make_corpus
from mismatch.retokenize.rollouts import Rollout, about_row
from mismatch.verbs.drifted import summary
from mismatch.verbs.examples import Scored
from mismatch.verbs.replay import replay, scoring_path
from mismatch.verbs.roads import Travelled, travel
from mismatch.verbs.run import Notify


def retokenize(
    model: Path,
    rollouts: Path,
    out: Path,
    chat_template: Path | None,
    score: Sequence[str],
    trust_remote_code: bool,
    notify: Notify,
) -> dict[str, Any]:
    """Writes retokenize.json (returned), .md and .html, retokenized.jsonl; with `score` replay/.

    Raises the errors of its inputs: `bad-row`, `nothing-scored`, `id-outside-vocabulary`,
    `no-tokenizer`, `no-chat-template`, `template-failed`, `captures-failed-all`.
    """
    conditions = [parse_condition(text) for text in score]
    checkpoint = inspect(model)
    rows = read_rollouts(rollouts)
    corpus = make_corpus([(r.ids, r.sampled) for r in rows])
    check_fits(checkpoint, corpus, rollouts.name, [(c, 1) for c in conditions])
    template = None if chat_template is None else _text(chat_template)
    asked = {
        "verb": "retokenize",
        "model": checkpoint.digest,
        "ids": corpus.sha,
        "template": None if template is None else store.text_digest(template),
        "conversations": store.text_digest(
            store.dump_json([[r.messages, r.tools, r.group] for r in rows])
        ),
        "score": [c.spec for c in conditions],
        "trust_remote_code": trust_remote_code,
    }
    claim.check(out, asked, [])
    tokenizer = Tokenizer(checkpoint.path, template, trust_remote_code)
    travelled = travel(rows, tokenizer)
    with claim.claimed(out, asked, []) as root:
        scores = _scores(root, conditions, checkpoint, travelled, trust_remote_code, notify)
        found = summary(asked, travelled, scores)
        _write(root, found, travelled)
        return found


def read_rollouts(path: Path) -> tuple[Rollout, ...]:
    """The file's rows; `bad-row` with what is wrong, `nothing-scored` where no id was sampled."""
    found = []
    for number, row in jsonl.rows(path):
        place = jsonl.Place(path, number)
        ids = jsonl.token_ids(place, row)
        mask = jsonl.loss_mask(place, row, len(ids))
        if row.get("messages") is not None:
            check_messages(place, row["messages"], placeholders=True)
        check_encodable(place, "tools", row.get("tools"))
        try:
            found.append(about_row(row, ids, mask))
        except ValueError as reason:
            raise place.bad(str(reason), ROW) from None
    if not any(r.sampled.any() for r in found):
        raise MismatchError("nothing-scored", file=path)
    return tuple(found)


ROW = (
    'Write {"token_ids", "loss_mask", "messages", "tools", "group"}; in messages each sampled '
    'turn is {"role": "assistant"} without content.'
)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise MismatchError("file-missing", what="Chat template", file=path) from None
    except (OSError, UnicodeDecodeError) as reason:
        todo = "Give a Jinja template in UTF-8."
        raise MismatchError("file-unreadable", file=path, reason=reason, todo=todo) from None


# ---------------------------------------------------------------- real engines


def _scores(
    root: Path,
    conditions: Sequence[Condition],
    checkpoint: Checkpoint,
    travelled: Travelled,
    trust_remote_code: bool,
    notify: Notify,
) -> list[Scored]:
    """Each condition's values of the rollouts as they were drawn and as the roads left them."""
    if not conditions:
        return []
    corpus, places = _to_score(travelled)
    check_fits(checkpoint, corpus, "the retokenised rollouts", [(c, 1) for c in conditions])
    taken = replay(conditions, checkpoint, corpus, root / "replay", trust_remote_code, notify)
    return [
        Scored(condition, scoring_path(condition), _by_place(taken[condition.id], places))
        for condition in conditions
    ]


#: Road ("sampled": as drawn) and row -> number of the sequence that was replayed.
Places = dict[tuple[str, int], int]


def _to_score(travelled: Travelled) -> tuple[Corpus, Places]:
    """The rollouts as drawn, then each of them that a road has changed."""
    sequences = [(r.ids, r.sampled) for r in travelled.rollouts]
    places: Places = {("sampled", n): n for n in range(len(sequences))}
    for road, drifts in travelled.roads.items():
        for n, found in enumerate(drifts):
            if found is not None and found.spans and len(found.ids):
                places[road, n] = len(sequences)
                sequences.append((found.ids, found.trained))
    return make_corpus(list(sequences)), places


def _by_place(tokens: Tokens, places: Places) -> dict[tuple[str, int], np.ndarray]:
    """Each replayed sequence's log-probabilities, as `Scored` holds them."""
    said = np.where(np.isnan(tokens.logprob), np.inf, tokens.logprob)
    values = np.where(tokens.scored, said, np.nan)
    ends = np.searchsorted(tokens.sequence, np.arange(len(places) + 1))
    return {key: values[ends[n] : ends[n + 1]] for key, n in places.items()}


# ---------------------------------------------------------------- files


def _write(root: Path, found: Mapping[str, Any], travelled: Travelled) -> None:
    store.write_text(root / "retokenize.json", store.dump_json(found))
    store.write_text(root / "retokenized.jsonl", "".join(_lines(travelled)))
    report.build_retokenize(root)


def _lines(travelled: Travelled) -> list[str]:
    """Rows that `run --corpus` reads: what a trainer that goes through messages trains on."""
    return [
        store.dump_line(
            {
                "token_ids": found.ids.tolist(),
                "loss_mask": found.trained.astype(int).tolist(),
                "inserted": np.flatnonzero(found.inserted).tolist(),
                "row": n + 1,
            }
        )
        for n, found in enumerate(travelled.roads["template"])
        if found is not None
    ]
