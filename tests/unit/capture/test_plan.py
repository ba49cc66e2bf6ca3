"""Which captures a run takes and which pairs it compares."""

from __future__ import annotations

from itertools import chain

import pytest

from mismatch.capture import plan
from mismatch.engines import ENGINES, parse_condition
from mismatch.model import Floor, PairSpec
from mismatch.study import default_pairs

VLLM, HF = parse_condition("vllm:dtype=bf16"), parse_condition("hf:dtype=bf16")


def _names(paths: list[str], repeats: int, floor: str) -> list[str]:
    got = plan.tasks(ENGINES["vllm"], VLLM, paths, repeats, floor, 20)  # type: ignore[arg-type]
    return [t.capture.name for t in got]


def test_a_rollout_is_captured_once_and_first() -> None:
    """Its repeats and its other batch composition are forced decodes of the same ids."""
    assert _names(["rollout"], 2, "batch") == ["rollout-1", "decode-1", "decode-batch"]


def test_three_paths_share_their_decodes() -> None:
    """Nothing is captured twice: rollout's floors are decode's captures."""
    names = _names(["rollout", "decode", "prefill"], 2, "batch")
    assert names == [
        "rollout-1", "decode-1", "decode-2", "prefill-1", "prefill-2", "decode-batch",
        "prefill-batch",
    ]  # fmt: skip


def test_one_repeat_and_no_floor_is_one_capture_each() -> None:
    """--repeats 1 --floor none takes just what the pairs need."""
    assert _names(["decode", "prefill"], 1, "none") == ["decode-1", "prefill-1"]


@pytest.mark.parametrize("sequences", [1, 2, 7, 8, 9, 30])
@pytest.mark.parametrize("spec", ["vllm", "vllm:batch=8", "vllm:batch=3", "hf", "hf:batch=8"])
def test_every_sequence_is_in_exactly_one_call(spec: str, sequences: int) -> None:
    """Whatever the batch, each capture replays the whole corpus once."""
    condition = parse_condition(spec)
    path = "score" if spec.startswith("hf") else "decode"
    engine = ENGINES[condition.engine]
    for task in plan.tasks(engine, condition, [path], 1, "batch", sequences):
        assert sorted(chain.from_iterable(task.capture.groups)) == list(range(sequences))


@pytest.mark.parametrize("spec", ["vllm", "vllm:batch=8", "hf", "hf:batch=8"])
def test_the_batch_floor_is_another_composition(spec: str) -> None:
    """Other order and other batch size than the condition's own."""
    condition = parse_condition(spec)
    path = "score" if spec.startswith("hf") else "decode"
    base, other = plan.tasks(ENGINES[condition.engine], condition, [path], 1, "batch", 20)
    assert max(map(len, base.capture.groups)) != max(map(len, other.capture.groups))
    assert list(chain.from_iterable(other.capture.groups)) != list(range(20))


def _pairs(paths: tuple[str, ...], repeats: int, floor: Floor) -> list[PairSpec]:
    ends = default_pairs([HF], [VLLM], {VLLM.id: paths})
    return [plan.pair(e, repeats, floor) for e in ends]


def test_pairs_come_train_infer_first_in_the_order_of_the_paths() -> None:
    """Then each two paths of the engine against each other."""
    specs = _pairs(("rollout", "decode", "prefill"), 2, "batch")
    assert [s.path for s in specs] == [
        "rollout", "decode", "prefill", "rollout..decode", "rollout..prefill", "decode..prefill",
    ]  # fmt: skip
    assert [s.kind for s in specs] == ["train-infer"] * 3 + ["infer-infer"] * 3
    assert specs[0].floors == {
        "repeat": {"train": ("hf-bf16/score-2",), "infer": ("vllm-bf16/decode-1",)},
        "batch": {"train": ("hf-bf16/score-batch",), "infer": ("vllm-bf16/decode-batch",)},
    }
    assert len({s.id for s in specs}) == 6


def test_without_floors_a_pair_names_none() -> None:
    """One capture has no floor: null, never 0."""
    assert _pairs(("decode",), 1, "none")[0].floors == {}


def test_an_end_is_no_floor_of_its_own_gap() -> None:
    """Forced decodes repeat a rollout, but the one it is held against is not subtracted from it."""
    by_path = {s.path: s for s in _pairs(("rollout", "decode"), 3, "none")}
    assert by_path["rollout..decode"].floors == {
        "repeat": {
            "train": ("vllm-bf16/decode-2",),
            "infer": ("vllm-bf16/decode-2", "vllm-bf16/decode-3"),
        }
    }
    assert _pairs(("rollout", "decode"), 1, "none")[2].floors == {}
