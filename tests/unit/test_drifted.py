"""retokenize.json's figures against rollouts whose drift is known by construction."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mismatch.model import Condition
from mismatch.retokenize import drift
from mismatch.retokenize.rollouts import Rollout
from mismatch.verbs.drifted import rates, summary
from mismatch.verbs.examples import Scored
from mismatch.verbs.roads import Travelled
from tests.unit.retokenize.pieces import END, answer, encode, rollout

EVEN = '<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call><end>'
ODD = EVEN.replace('{"a": 1}', '{"a":1}')
PROMPT = "user:?bot:"


def _rollout(sampled: str, group: str) -> Rollout:
    return replace(rollout((PROMPT, False), (sampled, True)), messages=[], group=group)


def _travelled(odd: int, even: int) -> Travelled:
    """`odd` rollouts whose call is repaired, `even` ones that come back as they were."""
    rows = [_rollout(ODD, "odd")] * odd + [_rollout(EVEN, "even")] * even
    reads = [drift.read(r, answer(r.ids.tolist()), {END}) for r in rows]
    rendered = answer(encode(PROMPT + EVEN))
    pairs = list(zip(rows, reads, strict=True))
    again = [[answer(r.ids[a:b].tolist()) for a, b in r.runs] for r in rows]
    text = [drift.by_text(r, k, own) for (r, k), own in zip(pairs, again, strict=True)]
    template = [drift.by_template(r, k, rendered, {END}) for r, k in pairs]
    about = {"tokenizer": "pieces", "vocabulary": 99}
    roads = {"text": tuple(text), "template": tuple(template)}
    return Travelled(tuple(rows), tuple(reads), roads, about)


def _values(travelled: Travelled, inserted: float) -> dict[tuple[str, int], np.ndarray]:
    """ln p = -0.5 for every scored token, and `inserted` for each inserted one."""
    values = {}
    for n, row in enumerate(travelled.rollouts):
        values["sampled", n] = np.where(row.sampled, -0.5, np.nan)
        found = travelled.roads["template"][n]
        assert found is not None
        if found.spans:
            own = np.where(found.trained, -0.5, np.nan)
            values["template", n] = np.where(found.inserted, inserted, own)
    return values


def _summary(travelled: Travelled, *scores: Scored) -> dict[str, Any]:
    return summary({}, travelled, scores)


def test_rates_are_those_of_the_construction() -> None:
    """10 of 40 rollouts are repaired, by one token each; the text road changes none."""
    found = _summary(_travelled(10, 30))
    road, text = found["roads"]["template"], found["roads"]["text"]
    assert road["drifted"]["count"] == 10 and road["drifted"]["value"] == 0.25
    assert road["drifted"]["low"] < 0.25 < road["drifted"]["high"]
    assert list(road["causes"]) == ["tool_whitespace"] and text["causes"] == {}
    assert road["inserted"]["count"] == 10 and road["lost"]["count"] == 10
    per_1000 = road["inserted"]["per_1000"]["value"]
    assert per_1000 == pytest.approx(1000 * 10 / road["sampled_tokens"])
    assert text["drifted"]["value"] == 0 and text["drifted"]["high"] > 0
    unseen = 1000 * (1 - 0.025 ** (1 / 40))  # of rollouts that are all equally long
    assert text["inserted"]["per_1000"]["high"] == pytest.approx(unseen)


def test_each_group_has_its_own_rate() -> None:
    groups = _summary(_travelled(10, 30))["groups"]
    assert {name: g["drifted"]["value"] for name, g in groups.items()} == {"odd": 1.0, "even": 0.0}


def test_a_row_without_messages_is_in_no_rate_of_the_template() -> None:
    travelled = _travelled(2, 2)
    found = rates(travelled.rollouts, [None, *travelled.roads["template"][1:]])
    assert found["rollouts"] == 3 and found["drifted"]["count"] == 1


def test_inserted_tokens_stand_against_the_sampled_ones() -> None:
    """Medians and shares of the road's whole batch, rollouts that it left alone among them."""
    travelled = _travelled(10, 30)
    one = Scored(Condition("toy", {}), "score", _values(travelled, -7.0))
    (found,) = _summary(travelled, one)["scores"]
    road = found["roads"]["template"]
    assert found["sampled"]["median"]["value"] == -0.5
    assert road["inserted"]["median"]["value"] == -7 and road["inserted"]["tokens"] == 10
    kept = road["kept"]["tokens"]
    weights = 10 * -np.expm1(-7), kept * -np.expm1(-0.5)
    assert road["share"]["gradient"]["value"] == pytest.approx(weights[0] / sum(weights))
    assert road["share"]["tokens"]["value"] == pytest.approx(10 / (10 + kept))
    assert found["roads"]["text"]["inserted"]["tokens"] == 0


def test_what_an_engine_could_not_say_is_counted_and_left_out() -> None:
    """-inf and NaN among trained tokens: no median and no share is taken from them."""
    travelled = _travelled(10, 30)
    values = _values(travelled, -7.0)
    values["sampled", 39][-1] = np.inf
    values["template", 0][-1] = -np.inf
    (found,) = _summary(travelled, Scored(Condition("toy", {}), "score", values))["scores"]
    assert found["not_finite"] == 1 and found["roads"]["template"]["not_finite"] == 2
    assert found["sampled"]["median"]["value"] == -0.5


def test_examples_come_worst_first_and_show_both_sides() -> None:
    travelled = _travelled(3, 5)
    values = _values(travelled, -7.0)
    values["template", 2][travelled.roads["template"][2].inserted] = -9.0  # type: ignore[union-attr]
    found = _summary(travelled, Scored(Condition("toy", {}), "score", values))
    first, second = found["examples"]
    assert (first["row"], first["least"], second["least"]) == (3, -9.0, -7.0)
    gone = [t["text"] for t in first["before"] if t["state"] == "changed"]
    (new,) = (t for t in first["after"] if t["state"] == "inserted")
    assert gone == [":"] and new["text"] == ": " and new["logprobs"] == {"toy": -9.0}
    assert first["after"][0]["state"] == "off"


def test_a_rollout_of_which_a_road_leaves_no_id_is_in_no_share() -> None:
    """Ids without text: the road has nothing to train on, and nothing breaks."""
    travelled = _travelled(2, 2)
    row = Rollout(np.array([5, 6], np.int32), np.array([True, True]), [], None, "")
    known = drift.read(row, answer([5, 6]), {END})
    gone = drift.by_text(row, known, [{"ids": [], "text": "", "ends": []}])
    left = drift.by_template(row, known, answer([5, 6]), {END})
    roads = {
        "text": (*travelled.roads["text"], gone),
        "template": (*travelled.roads["template"], left),
    }
    rows = (*travelled.rollouts, row)
    reads = (*travelled.reads, known)
    travelled = replace(travelled, rollouts=rows, reads=reads, roads=roads)
    values = {**_values(travelled, -9.0), ("sampled", 4): np.array([np.nan, -0.5])}
    (score,) = _summary(travelled, Scored(Condition("hf", {}), "score", values))["scores"]
    kept = [score["roads"][road]["kept"]["tokens"] for road in ("text", "template")]
    trained = sum(int(r.sampled.sum()) for r in rows[:4])
    assert kept == [trained, trained - 2 + 1]
