"""A run folder as pandas frames, for notebooks: the numbers of summary.json, one row each.

Every function proves first that nothing under the folder changed since it was measured. Log-ratios
are in nats and probabilities are shares of 1. A number without evidence is NaN, never 0; `low` and
`high` bound 95% over sequences, and are NaN where there is no interval. `trusted` is False where an
interval is known to miss the truth too often (docs/metrics.md).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mismatch import store
from mismatch.compare.compare import check
from mismatch.errors import MismatchError, suggest
from mismatch.glossary import METRICS
from mismatch.model import given_path
from mismatch.report.noise import compared_floor, noise
from mismatch.report.pairs import (
    BREAKDOWNS,
    NOTHING,
    SLOTS,
    Estimate,
    Pair,
    breakdown_key,
    estimate,
    lead,
    pairs_of,
)

if TYPE_CHECKING:
    import pandas as pd

_SIZES = ("k3", "abs_logprob_diff_mean")
_PARTS = ("share", "alone_share", "interaction", "alone_k3")


def pairs(folder: str | Path) -> pd.DataFrame:
    """One row a pair.

    id, kind (train-infer, infer-infer, train-train), path; left, right: the two conditions, d is
    left minus right. tokens, sequences: what was compared. sampled_by: who drew the tokens; only
    `infer` makes k3 an estimate of KL(infer‖train). k3 and abs_logprob_diff_mean (nats), each with
    _low, _high, _trusted. floor: the kind that the excess is over (batch or repeat); floor_left,
    floor_right: k3 of each side against itself. excess_k3 with its bounds. noise: the verdict of
    the report, in words.
    """
    return _frame(map(_pair, pairs_of(check(given_path(folder)))), _PAIRS)


def _pair(pair: Pair) -> dict[str, Any]:
    kind = compared_floor(pair)
    floors = [pair.floor(kind, slot, "k3") if kind else None for slot in ("train", "infer")]
    values = [_number((f or NOTHING).value) for f in floors]
    return {
        "id": pair.id,
        "kind": pair.kind,
        "path": pair.path,
        **dict(zip(_SIDES, pair.conditions, strict=True)),
        "tokens": pair.tokens,
        "sequences": pair.sequences,
        "sampled_by": pair.sampled_by,
        **{k: v for key in _SIZES for k, v in _named(key, pair.metric(key)).items()},
        "floor": kind,
        "floor_left": values[0],
        "floor_right": values[1],
        **_named("excess_k3", pair.excess("k3")),
        "noise": noise(pair).verdict,
    }


def metrics(folder: str | Path, pair: str | None = None) -> pd.DataFrame:
    """One row a metric of one pair: key, value, low, high, trusted, space (log, probability,
    ratio, share, count or tokens), level (token or sequence), formula.

    pair: its id; None: the first train-infer pair that has tokens. So in all that follow.
    """
    one = _one(check(given_path(folder)), pair)
    rows = ({"key": key, **_bounds(one.metric(key)), **_about(key)} for key in one.metric_keys)
    return _frame(rows, ("key", *_BOUNDS, "space", "level", "formula"))


def _about(key: str) -> dict[str, str | None]:
    """A key of a later release is shown without words."""
    space, formula, level = METRICS.get(key, (None, None, None))
    return {"space": space, "level": level, "formula": formula}


def tokens(folder: str | Path, pair: str | None = None) -> pd.DataFrame:
    """One row a scored token: sequence_id, position (in the whole sequence), token_id, text
    (missing where no tokenizer told it), lp_train, lp_infer (nats; left and right of any other
    pair), d.

    text is what a model wrote: escape it before it becomes HTML.
    """
    root = given_path(folder)
    one = _one(check(root), pair)
    if not one.tokens:
        return _frame((), _TOKENS)
    frame: pd.DataFrame = store.read_table(
        store.comparison_folder(root, one.id) / "tokens.parquet"
    ).to_pandas()
    about = store.read_provenance(store.trace_folder(root, one.traces[0]))
    texts = store.read_texts(store.inside(root, "corpus", about["corpus"])) or {}
    frame["text"] = [texts.get(str(token)) for token in frame["token_id"]]
    return frame.reindex(columns=_TOKENS)


def breakdown(folder: str | Path, by: str, pair: str | None = None) -> pd.DataFrame:
    """One row a bin that has tokens: bin, tokens, and for k3, abs_logprob_diff_mean,
    logprob_diff_mean (nats) their value, _low, _high, _trusted; abs_logprob_diff_max.

    by: probability (of the right side), position, length, entropy, token_type or turn, as far as
    the pair has it; anything else is `option-value`. No row where the pair has no token.
    """
    name = breakdown_key(by)
    one = _one(check(given_path(folder)), pair)
    if one.tokens and name not in one.breakdown_keys:
        takes = (
            ", ".join(k for k, key in BREAKDOWNS.items() if key in one.breakdown_keys)
            or "none here"
        )
        raise MismatchError("option-value", option="by", value=by, takes=takes)
    rows = (
        {"bin": row.label, "tokens": row.tokens}
        | {k: v for key in _OF_BIN for k, v in _named(key, row.metric(key)).items()}
        | {"abs_logprob_diff_max": _number(row.metric("abs_logprob_diff_max").value)}
        for row in one.breakdown(name)
    )
    named = [column for key in _OF_BIN for column in _named(key, NOTHING)]
    return _frame(rows, ("bin", "tokens", *named, "abs_logprob_diff_max"))


def corrections(folder: str | Path, pair: str | None = None) -> pd.DataFrame:
    """One row a correction, and one more for each bin of lengths: name, level, rule, length (`all`
    or the bin, in scored tokens), affected (share cut, dropped or clipped) and ess (share of the
    sample that the weights leave), each with _low, _high, _trusted. Predicted from d alone.
    """
    one = _one(check(given_path(folder)), pair)
    rows = (
        {
            **{key: getattr(rule, key) for key in ("name", "level", "rule")},
            "length": part.bin or "all",
            **_named("affected", part.affected),
            **_named("ess", part.ess),
        }
        for rule in one.corrections
        for part in (rule.whole, *rule.by_length)
    )
    named = (*_named("affected", NOTHING), *_named("ess", NOTHING))
    return _frame(rows, ("name", "level", "rule", "length", *named))


def ess_by_length(folder: str | Path, pair: str | None = None) -> pd.DataFrame:
    """One row a prefix length, in doublings: length (scored tokens), sequences that have so many,
    tokens, ess (share of the sample left by the weights exp(D)) with _low, _high, _trusted, and
    predicted, exp(-2 length k3).
    """
    one = _one(check(given_path(folder)), pair)
    rows = (
        {
            **{key: getattr(row, key) for key in _COUNTS},
            **_named("ess", row.ess),
            "predicted": _number(row.predicted),
        }
        for row in one.prefixes
    )
    return _frame(rows, (*_COUNTS, *_named("ess", NOTHING), "predicted"))


def forks(folder: str | Path, pair: str | None = None) -> pd.DataFrame:
    """One row a length, four an octave, of each curve: of (`pair`, or a side against itself:
    `batch train`, ...), greedy (True: of a run that one side drew so; False: along another text;
    None: not known), length (scored tokens), sequences for which it is known, share that agrees on
    its first so many with _low, _high, _trusted; median, the token by which half differ, with
    _low, _high, NaN where it is not reached. No row where a side has no likeliest tokens.
    """
    one = _one(check(given_path(folder)), pair)
    floors = {f"{n} {s}": one.forks_of_floor(n, s) for n in ("repeat", "batch") for s in SLOTS}
    rows = (
        {
            "of": name,
            "greedy": found.greedy,
            "length": row.length,
            "sequences": row.sequences,
            **_named("share", row.share),
            **_named("median", found.median),
        }
        for name, found in {"pair": one.forks, **floors}.items()
        if found is not None
        for row in found.agreement
    )
    named = (*_named("share", NOTHING), *_named("median", NOTHING))
    return _frame(rows, ("of", "greedy", "length", "sequences", *named))


def attributions(folder: str | Path) -> pd.DataFrame:
    """One row a knob of each attribution that has all its corners: attribution, left, right
    (traces), knob, share of the gap (1 is all of it), alone_share (toggled alone from the left
    end), interaction (share - alone), alone_k3 (nats), each with _low, _high, _trusted; tokens,
    sequences, method. No row where nothing was attributed.
    """
    rows = (
        {
            "attribution": one["id"],
            "left": one["left"],
            "right": one["right"],
            "knob": knob["knob"],
            **{k: v for key in _PARTS for k, v in _named(key, estimate(knob[key])).items()},
            **{key: one[key] for key in ("tokens", "sequences", "method")},
        }
        for one in check(given_path(folder)).get("attributions", [])
        for knob in one["knobs"]
    )
    named = [column for key in _PARTS for column in _named(key, NOTHING)]
    head = ("attribution", "left", "right", "knob")
    return _frame(rows, (*head, *named, "tokens", "sequences", "method"))


def preflight_rows(folder: str | Path) -> pd.DataFrame:
    """One row a rung of each pair: pair, rung, verdict (pass, fail, not checked), evidence,
    todo.
    """
    rows = (
        {"pair": pair.id, **{key: getattr(row, key) for key in _CHECK}}
        for pair in pairs_of(check(given_path(folder)))
        for row in pair.checks
    )
    return _frame(rows, ("pair", *_CHECK))


# ---------------------------------------------------------------- what all share

_SIDES = ("left", "right")
_BOUNDS = ("value", "low", "high", "trusted")
_TOKENS = ("sequence_id", "position", "token_id", "text", "lp_train", "lp_infer", "d")
_OF_BIN = ("k3", "abs_logprob_diff_mean", "logprob_diff_mean")
_COUNTS = ("length", "sequences", "tokens")
_CHECK = ("rung", "verdict", "evidence", "todo")


def _bounds(found: Estimate) -> dict[str, Any]:
    bounds = (_number(x) for x in (found.value, found.low, found.high))
    return dict(zip(_BOUNDS, (*bounds, found.trusted), strict=True))


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _named(key: str, found: Estimate) -> dict[str, Any]:
    """An estimate as four columns: the value under its own name."""
    return {f"{key}_{k}".removesuffix("_value"): v for k, v in _bounds(found).items()}


_PAIRS = (
    "id", "kind", "path", *_SIDES, "tokens", "sequences", "sampled_by",
    *(column for key in _SIZES for column in _named(key, NOTHING)),
    "floor", "floor_left", "floor_right", *_named("excess_k3", NOTHING), "noise",
)  # fmt: skip


def _one(found: Mapping[str, Any], name: str | None) -> Pair:
    """The pair named; None: the one that the report leads with."""
    all_ = pairs_of(found)
    one = lead(all_) if name is None else next((p for p in all_ if p.id == name), None)
    if one is not None:
        return one
    known = [p.id for p in all_]
    if name is None and all_:
        return all_[0]  # none has a token: its frames are empty
    said, hint = ", ".join(known) or "none", suggest(name or "", known)
    raise MismatchError("no-such-pair", pair=name or "", known=said, hint_extra=hint)


def _frame(rows: Iterable[Mapping[str, Any]], columns: Sequence[str]) -> pd.DataFrame:
    """Rows under these columns, in this order."""
    import pandas as pd  # half a second that no command line should wait for

    return pd.DataFrame(list(rows), columns=list(columns))
