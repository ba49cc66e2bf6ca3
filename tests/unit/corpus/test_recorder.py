"""The recorder: the importer reads back what a trainer handed over, or nothing is written."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from mismatch.corpus.recorded import READERS, Recorded
from mismatch.corpus.recorder import record
from mismatch.errors import MismatchError

NAN = np.nan


def read(path: Path) -> Recorded:
    return READERS["jsonl"]([path])


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def one(**changes: Any) -> dict[str, Any]:
    """The keywords of a valid call with one sequence of four tokens."""
    call = {
        "token_ids": [5, 6, 7, 8],
        "loss_mask": [0, 0, 1, 1],
        "infer_logprobs": [0.0, -3.0, -1.0, -2.0],
        "train_logprobs": [0.0, -3.0, -1.5, -2.5],
    }
    return {**call, **changes}


class Tensor:
    """What record may use of a torch tensor; bfloat16 ones cannot become numpy without float()."""

    def __init__(self, values: Any, bf16: bool = False, stage: str = "graph") -> None:
        self.values, self.bf16, self.stage = np.asarray(values), bf16, stage
        self.ndim = self.values.ndim

    def detach(self) -> Tensor:
        return Tensor(self.values, self.bf16, "device")

    def cpu(self) -> Tensor:
        assert self.stage == "device"
        return Tensor(self.values, self.bf16, "host")

    def float(self) -> Tensor:
        return Tensor(self.values.astype(np.float32), False, self.stage)

    def numpy(self) -> np.ndarray:
        assert self.stage == "host"
        if self.bf16:
            raise TypeError("Got unsupported ScalarType BFloat16")
        return self.values


def bits(values: np.ndarray) -> list[int | None]:
    """float32 as their bits (-0.0 is not 0.0), any NaN as None."""
    pairs = zip(values.tolist(), values.view(np.uint32).tolist(), strict=True)
    return [None if value != value else pattern for value, pattern in pairs]


LOGPROB = st.floats(max_value=0.0, width=32) | st.just(NAN)


@st.composite
def sequences(draw: st.DrawFn) -> dict[str, np.ndarray]:
    n = draw(st.integers(1, 8))
    return {
        "token_ids": draw(arrays.arrays(np.int64, n, elements=st.integers(0, 2**31 - 1))),
        "loss_mask": draw(arrays.arrays(bool, n)),
        "infer_logprobs": draw(arrays.arrays(np.float32, n, elements=LOGPROB)),
        "train_logprobs": draw(arrays.arrays(np.float32, n, elements=LOGPROB)),
    }


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(batch=st.lists(sequences(), min_size=1, max_size=4))
def test_the_importer_reads_back_exactly_what_was_given(tmp_path: Path, batch: list[Any]) -> None:
    """Scored values survive bit for bit, NaN, -inf and -0.0 among them; ids and masks too."""
    path = tmp_path / "gap.jsonl"
    path.unlink(missing_ok=True)
    last = {"token_ids": [1, 2], "loss_mask": [0, 1], "infer_logprobs": [0, 0]}
    batch = [*batch, {**last, "train_logprobs": [0, 0]}]
    record(path, **{name: [row[name] for row in batch] for name in batch[0]})
    found = read(path)
    for k, row in enumerate(batch):
        scored = np.array(row["loss_mask"], bool)
        scored[0] = False
        np.testing.assert_array_equal(found.corpus.token_ids[k], row["token_ids"])
        np.testing.assert_array_equal(found.corpus.scored[k], scored)
        for name, side in (("infer_logprobs", found.infer), ("train_logprobs", found.train)):
            assert bits(side[k][scored]) == bits(np.asarray(row[name], np.float32)[scored])


def test_a_single_sequence_a_batch_and_a_ragged_list_are_taken(tmp_path: Path) -> None:
    """1-D is one row, 2-D and lists of 1-D are one row for each sequence."""
    path = tmp_path / "gap.jsonl"
    record(path, **one())
    record(path, **{name: np.array([value, value]) for name, value in one().items()})
    record(path, **{name: [value, np.array(value[:3])] for name, value in one().items()})
    assert [len(row["token_ids"]) for row in lines(path)] == [4, 4, 4, 4, 3]


def test_only_scored_values_are_written(tmp_path: Path) -> None:
    """What the importer never reads is null, so that nobody else reads it either."""
    path = tmp_path / "gap.jsonl"
    record(path, **one(loss_mask=[1, 0, 1, 1]))
    expected = {
        "token_ids": [5, 6, 7, 8],
        "loss_mask": [0, 0, 1, 1],
        "infer_logprobs": [None, None, -1.0, -2.0],
        "train_logprobs": [None, None, -1.5, -2.5],
    }
    assert lines(path) == [expected]


def test_no_mask_scores_every_position_with_values(tmp_path: Path) -> None:
    """None is everything but position 0, or the whole response."""
    path = tmp_path / "gap.jsonl"
    record(path, **one(loss_mask=None))
    short = {"infer_logprobs": [-1.0, -2.0], "train_logprobs": [-1.0, -2.0]}
    record(path, **one(loss_mask=None, **short), align="response")
    assert [row["loss_mask"] for row in lines(path)] == [[0, 1, 1, 1], [0, 0, 1, 1]]


def test_tensors_are_taken_without_torch(tmp_path: Path) -> None:
    """Tensors with a gradient, on a device, in bfloat16 or as float masks become plain rows."""
    path = tmp_path / "gap.jsonl"
    plain = one()
    record(
        path,
        token_ids=Tensor([plain["token_ids"]]),
        loss_mask=Tensor([np.array(plain["loss_mask"], np.float32)], bf16=True),
        infer_logprobs=[Tensor(plain["infer_logprobs"])],
        train_logprobs=Tensor([plain["train_logprobs"]], bf16=True),
    )
    record(path, **plain)
    first, second = lines(path)
    assert first == second


def test_ids_of_tensors_are_not_rounded(tmp_path: Path) -> None:
    """Ids above 2**24 would change in float32."""
    path = tmp_path / "gap.jsonl"
    record(path, **one(token_ids=Tensor([2**24 + 1, 2**31 - 1, 1, 2])))
    assert lines(path)[0]["token_ids"][:2] == [2**24 + 1, 2**31 - 1]


def test_response_aligned_values_cover_the_last_tokens(tmp_path: Path) -> None:
    """verl and TRL hand over the response alone; the mask may be as short, or whole."""
    path = tmp_path / "gap.jsonl"
    sides = {"infer_logprobs": [-1.0, -2.0], "train_logprobs": [-1.5, -2.5]}
    for mask in ([1, 1], [0, 0, 1, 1]):
        record(path, **one(loss_mask=mask, **sides), align="response")
    record(path, **one())
    first, second, full = lines(path)
    assert first == second == full


def test_padding_is_dropped_on_either_side(tmp_path: Path) -> None:
    """verl's layout: prompts padded left, responses right, values for the response columns."""
    path = tmp_path / "gap.jsonl"
    record(
        path,
        token_ids=[[0, 0, 5, 6, 7, 8, 0], [1, 2, 3, 4, 5, 6, 7]],
        attention_mask=[[0, 0, 1, 1, 1, 1, 0], [1, 1, 1, 1, 1, 1, 1]],
        loss_mask=[[1, 1, 0], [1, 1, 1]],
        infer_logprobs=[[-1.0, -2.0, 7.0], [-1.0, -2.0, -3.0]],
        train_logprobs=[[-1.5, -2.5, NAN], [-1.0, -2.0, -3.0]],
        align="response",
    )
    first, second = lines(path)
    record(tmp_path / "plain.jsonl", **one())
    assert first == lines(tmp_path / "plain.jsonl")[0]
    assert second["loss_mask"] == [0, 0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"infer_logprobs": [-1.0, -2.0]}, "2 infer_logprobs and 4 train_logprobs"),
        ({"infer_logprobs": [-1.0], "train_logprobs": [-1.0]}, "align='response' takes"),
        ({"infer_logprobs": [0.0] * 5, "train_logprobs": [0.0] * 5}, "5 log-probabilities for 4"),
        ({"loss_mask": [0, 1]}, "loss_mask of row 0 has 2 entries for 4"),
        ({"loss_mask": [0, 0, 0, 2]}, "loss_mask of row 0 does not hold 0 and 1"),
        ({"loss_mask": [0, 0, 0, NAN]}, "loss_mask of row 0 does not hold 0 and 1"),
        ({"token_ids": [5, 6, 7, -1]}, "token_ids of row 0 does not hold token ids"),
        ({"token_ids": [5, 6, 7, 2**31]}, "token_ids of row 0 does not hold token ids"),
        ({"token_ids": [5, 6, 7, 8.0]}, "token_ids of row 0 does not hold token ids"),
        ({"token_ids": [True] * 4}, "token_ids of row 0 does not hold token ids"),
        ({"token_ids": []}, "token_ids of row 0 does not hold token ids"),
        ({"token_ids": np.zeros((0, 4), int)}, "token_ids holds no sequence"),
        ({"token_ids": np.zeros((1, 1, 4), int)}, "token_ids has shape (1, 1, 4)"),
        ({"token_ids": 5}, "token_ids has shape ()"),
        ({"token_ids": [[5, 6, 7, 8]] * 2}, "loss_mask holds 1 sequences, token_ids 2"),
        ({"train_logprobs": [0, -1, -1, 0.5]}, "train_logprobs of row 0 is 0.5 at token 3"),
        ({"train_logprobs": [0, -1, -1, np.inf]}, "train_logprobs of row 0 is inf at token 3"),
        ({"train_logprobs": ["a", "b", "c", "d"]}, "train_logprobs of row 0 does not hold numbers"),
        ({"train_logprobs": None}, "train_logprobs is None"),
        ({"attention_mask": [1, 1]}, "attention_mask of row 0 has 2 entries"),
        ({"attention_mask": [0, 0, 0, 0]}, "row 0 is padding alone"),
        ({"attention_mask": [1, 0, 1, 1]}, "has a hole"),
        ({"attention_mask": [1, 1, 1, 0]}, "scores position 3, which attention_mask drops"),
        ({"align": "left"}, "align is 'left'"),
    ],
)
def test_invalid_arrays_are_named_and_nothing_is_written(
    tmp_path: Path, changes: Any, said: str
) -> None:
    """Each fault says which array and row; the file is not even created."""
    path = tmp_path / "gap.jsonl"
    with pytest.raises(MismatchError) as caught:
        record(path, **one(**changes))
    assert caught.value.code == "bad-record"
    assert said in caught.value.message
    assert not path.exists()


def test_a_bad_row_keeps_the_whole_batch_out(tmp_path: Path) -> None:
    """Rows before the bad one are not written either."""
    path = tmp_path / "gap.jsonl"
    batch = {name: [value, value] for name, value in one().items()}
    batch["infer_logprobs"] = [[0, 0, -1, -2], [0, 0, -1, 3.0]]
    with pytest.raises(MismatchError, match="row 1"):
        record(path, **batch)
    assert not path.exists()


def test_a_mask_may_not_score_what_has_no_value(tmp_path: Path) -> None:
    """A whole-sequence mask that scores prompt tokens contradicts response-aligned values."""
    sides = {"infer_logprobs": [-1.0, -2.0], "train_logprobs": [-1.0, -2.0]}
    with pytest.raises(MismatchError, match="scores position 1, which has no log-probability"):
        record(tmp_path / "x", **one(loss_mask=[0, 1, 1, 1], **sides), align="response")


def test_a_call_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several ranks may append to one file because no call is split."""
    written = []
    real = os.write

    def spy(file: int, data: bytes) -> int:
        written.append(data)
        return real(file, data)

    monkeypatch.setattr(os, "write", spy)
    path = tmp_path / "new/folder/gap.jsonl"
    record(path, **{name: [value] * 3 for name, value in one().items()})
    assert len(written) == 1
    assert path.read_bytes() == written[0]
    assert written[0].count(b"\n") == 3


def test_a_row_after_a_torn_line_is_a_line_of_its_own(tmp_path: Path) -> None:
    """A writer died within its line: the next row is not glued to it, and whole files gain none."""
    path = tmp_path / "gap.jsonl"
    path.write_text('{"token_ids": [5, 6')
    record(path, **one())
    record(path, **one())
    torn, *rows = path.read_text().splitlines()
    assert torn == '{"token_ids": [5, 6'
    assert [json.loads(row)["token_ids"] for row in rows] == [one()["token_ids"]] * 2


def test_a_write_that_fails_or_is_cut_short_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder in the way and a full disk both raise, instead of losing rows in silence."""
    with pytest.raises(MismatchError) as caught:
        record(tmp_path, **one())
    assert caught.value.code == "record-failed"
    monkeypatch.setattr(os, "write", lambda file, data: 3)
    with pytest.raises(MismatchError, match="torn"):
        record(tmp_path / "gap.jsonl", **one())
