"""Frames: the numbers of summary.json and of the comparisons, one row each, none made up."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from mismatch import api, frames, store
from mismatch.errors import MismatchError
from mismatch.shapes import Pair
from tests.unit.report import runs

#: A real run of two engines: floors, an attribution, texts and entropy (notebooks/data/make.sh).
STUDY = Path(__file__).parents[2] / "notebooks" / "data" / "study"
ROWS, LENGTH, SHIFT = 9, 5, 0.125
PAIR = "recorded-train~recorded-infer.rollout"


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """Nine sequences of which four tokens each are scored, and d is 1/8 everywhere."""
    row = {
        "token_ids": list(range(LENGTH)),
        "infer_logprobs": [None] + [-1.0] * (LENGTH - 1),
        "train_logprobs": [None] + [SHIFT - 1.0] * (LENGTH - 1),
    }
    dump = tmp_path / "dump.jsonl"
    dump.write_text((json.dumps(row) + "\n") * ROWS)
    api.import_dumps("jsonl", dump, tmp_path / "run")
    return tmp_path / "run"


def summary() -> dict[str, Any]:
    return dict(store.read_json(STUDY / "summary.json"))


def test_a_pair_is_a_row_of_what_is_known_of_it(recorded: Path) -> None:
    """d = left - right; k3 is worked out by hand; without a floor there is NaN, not 0. The
    verdict is the report's: values that are all equal are no model's."""
    (row,) = api.pairs(recorded).to_dict("records")
    assert (row["id"], row["kind"], row["path"]) == (PAIR, "train-infer", "rollout")
    assert (row["left"], row["right"]) == ("recorded-train", "recorded-infer")
    assert (row["tokens"], row["sequences"]) == (ROWS * (LENGTH - 1), ROWS)
    assert row["k3"] == pytest.approx(math.expm1(SHIFT) - SHIFT)
    assert row["floor"] is None and math.isnan(row["floor_left"]) and math.isnan(row["excess_k3"])
    assert row["noise"] == "check failed"


def test_tokens_are_those_that_were_compared(recorded: Path) -> None:
    """One row a scored token, in order; no tokenizer told their text."""
    frame = api.tokens(recorded)
    assert frame["position"].tolist() == list(range(1, LENGTH)) * ROWS
    assert np.array_equal(frame["d"], frame["lp_train"].astype(float) - frame["lp_infer"])
    assert frame["d"].eq(SHIFT).all() and frame["text"].isna().all()


def test_metrics_are_the_summarys_with_their_words() -> None:
    """Every key of the pair, in its order, with space and formula; null bounds are NaN."""
    pair = summary()["pairs"][0]
    frame = api.metrics(STUDY, pair["id"]).set_index("key")
    assert list(frame.index) == list(pair["metrics"])
    known = [k for k, v in pair["metrics"].items() if v["low"] is not None]
    assert [frame.loc[k, "low"] for k in known] == [pair["metrics"][k]["low"] for k in known]
    assert frame.loc["ratio_max", ["low", "high"]].isna().all()
    assert tuple(frame.loc["k3", ["space", "level"]]) == ("log", "token")
    assert frame["formula"].notna().all()


def test_the_first_train_infer_pair_is_meant_where_none_is_named() -> None:
    """The pair that the report leads with, and another one when it is named."""
    ids = api.pairs(STUDY)["id"].tolist()
    assert len(ids) > 1
    assert api.tokens(STUDY).equals(api.tokens(STUDY, ids[0]))
    assert not api.tokens(STUDY, ids[1]).equals(api.tokens(STUDY, ids[0]))


def test_floors_and_excess_stand_beside_the_gap() -> None:
    """The batch floors of both sides, and what is left above them."""
    for row, pair in zip(api.pairs(STUDY).itertuples(), summary()["pairs"], strict=True):
        assert row.floor == "batch"
        batch = pair["floor"]["batch"]
        floors = [batch[slot]["k3"]["value"] for slot in ("train", "infer")]
        assert [row.floor_left, row.floor_right] == floors
        assert row.excess_k3_low == pair["excess"]["k3"]["low"]


def test_texts_are_the_corpus_own() -> None:
    """Where a tokenizer told them, every token has its text, unescaped."""
    frame = api.tokens(STUDY)
    texts = store.read_texts(next((STUDY / "corpus").iterdir())) or {}
    assert frame["text"].tolist() == [texts[str(t)] for t in frame["token_id"]]


@pytest.mark.parametrize("by", ["probability", "position", "length", "entropy", "token_type"])
def test_a_breakdown_holds_every_token_once(by: str) -> None:
    """Bins share the pair's tokens out."""
    frame = api.breakdown(STUDY, by)
    assert frame["tokens"].sum() == len(api.tokens(STUDY)) and frame["k3"].notna().all()


def test_a_correction_has_a_row_for_all_lengths_and_one_for_each_bin() -> None:
    """`all` first, then the bins, as the summary has them."""
    pair = summary()["pairs"][0]
    frame = api.corrections(STUDY, pair["id"])
    assert frame["length"].eq("all").sum() == len(pair["corrections"])
    assert len(frame) == sum(1 + len(one["by_length"]) for one in pair["corrections"])
    parts = [part for one in pair["corrections"] for part in (one, *one["by_length"])]
    left = [None if math.isnan(x) else x for x in frame["ess"]]
    assert left == [part["ess"]["value"] for part in parts]
    lengths = api.ess_by_length(STUDY, pair["id"])
    assert lengths["length"].tolist() == [row["length"] for row in pair["ess_by_length"]]
    assert lengths["predicted"].tolist() == [row["predicted"] for row in pair["ess_by_length"]]


def test_forks_have_a_row_for_each_length_of_each_curve(
    monkeypatch: pytest.MonkeyPatch, recorded: Path
) -> None:
    """Of the pair and of each floor; an end that is not reached is NaN; without top-k no row."""
    made = runs.summary_of(runs.pair(forks=runs.forks_with_floors()))
    none = api.forks(recorded)
    monkeypatch.setattr(frames, "check", lambda root: made)
    frame = api.forks("run")
    assert frame["of"].unique().tolist() == ["pair", "batch train", "batch infer"]
    assert frame["length"].tolist() == list(range(1, 9)) * 3
    first = frame.iloc[0]
    assert (first["greedy"], first["share"], first["median"]) == (True, 1.0, 4.0)
    assert math.isnan(first["median_high"]) and first["median_low"] == 3.0
    assert not len(none) and list(none) == list(frame)


@pytest.mark.parametrize(
    "agreement", [[], [{"length": 0, "sequences": 10, "share": runs.estimate(1.0)}]]
)
def test_forks_without_a_curve_are_no_summary(agreement: list[Any]) -> None:
    """Of sequences that were followed a share is known, at the first token or later."""
    Pair.model_validate(runs.pair(forks=runs.forks_with_floors()))
    Pair.model_validate(runs.pair(forks=runs.forks(sequences=0, agreement=[])))
    with pytest.raises(ValidationError, match="agreement"):
        Pair.model_validate(runs.pair(forks=runs.forks(agreement=agreement)))


def test_the_shares_of_an_attribution_are_the_whole_gap(recorded: Path) -> None:
    """One row a knob, shares sum to 1; a folder without any gives no row, and the columns."""
    frame = api.attributions(STUDY)
    assert sorted(frame["knob"]) == ["dtype", "engine"]
    assert frame["share"].sum() == pytest.approx(1)
    none = api.attributions(recorded)
    assert not len(none) and list(none) == list(frame)


def test_every_rung_is_a_row() -> None:
    """Nothing that the preflight said is left out, a rung that was not checked least of all."""
    rows = [(p["id"], r["rung"], r["verdict"]) for p in summary()["pairs"] for r in p["preflight"]]
    found = api.preflight_rows(STUDY)[["pair", "rung", "verdict"]]
    assert list(found.itertuples(index=False, name=None)) == rows


@pytest.mark.parametrize("read", [api.metrics, api.tokens, api.corrections, api.ess_by_length])
def test_an_unknown_pair_is_told_those_that_are_there(recorded: Path, read: Any) -> None:
    """The error that plot and gate give."""
    with pytest.raises(MismatchError, match=f"There is no pair 'rollou' here.*{PAIR}") as error:
        read(recorded, "rollou")
    assert error.value.code == "no-such-pair"


def test_an_unknown_breakdown_is_told_those_that_are_there(recorded: Path) -> None:
    """Of an import there is no token type: it is not an empty frame."""
    with pytest.raises(MismatchError, match="probability, position, length") as error:
        api.breakdown(recorded, "token_type")
    assert error.value.code == "option-value"


def test_where_no_breakdown_is_there_it_takes_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error does not end in an empty list."""
    made = runs.summary_of(runs.pair(breakdowns={}))
    monkeypatch.setattr(frames, "check", lambda root: made)
    with pytest.raises(MismatchError, match="none here"):
        api.breakdown("run", "position")


def test_nothing_is_read_from_a_folder_that_changed(recorded: Path) -> None:
    """Frames are checked like every other number."""
    trace = recorded / "traces" / "recorded-train" / "score-1"
    file = trace / "provenance.json"
    file.write_text(file.read_text().replace("jsonl", "jsonk"))
    for read in (api.pairs, api.tokens, api.attributions, api.preflight_rows):
        with pytest.raises(MismatchError) as error:
            read(recorded)
        assert error.value.code == "artifact-changed"


def test_a_pair_that_failed_is_a_row_without_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its k3 is NaN and its verdict says why; its own frames are empty, with their columns."""
    monkeypatch.setattr(frames, "check", lambda root: runs.summary_of(runs.failed_pair()))
    (row,) = api.pairs("run").to_dict("records")
    assert math.isnan(row["k3"]) and row["tokens"] == 0 and row["noise"] == "failed"
    for read in (api.metrics, api.tokens, api.corrections, api.ess_by_length):
        assert not len(read("run")) and len(list(read("run"))) > 1
