"""Trainer dumps: what is read, what is never read, and what is refused."""

from __future__ import annotations

import json
import math
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mismatch.corpus.recorded import READERS, Recorded
from mismatch.errors import MismatchError


def ours(**changes: Any) -> dict[str, Any]:
    """A row of our own format; positions 2 and 3 are scored."""
    row = {
        "token_ids": [5, 6, 7, 8],
        "loss_mask": [0, 0, 1, 1],
        "infer_logprobs": [None, None, -1.0, -2.0],
        "train_logprobs": [None, None, -1.5, -2.5],
    }
    return {**row, **changes}


def prime(**changes: Any) -> dict[str, Any]:
    """A row of prime-rl's token export, filler at index 0, with fields that nobody needs."""
    row = {
        "schema_version": 1,
        "step": 3,
        "token_ids": [5, 6, 7, 8],
        "position_ids": [0, 1, 2, 3],
        "loss_mask": [False, False, True, True],
        "inference_logprobs": [0.0, 0.0, -1.0, -2.0],
        "trainer_logprobs": [-10.8, -3.0, -1.5, -2.5],
        "mismatch_kl": [None, None, 0.1, 0.1],
        "env_name": "gsm",
    }
    return {**row, **changes}


def nemo(**changes: Any) -> dict[str, Any]:
    """A row of NeMo-RL's log, padded to 6 tokens, every field in a slice of one."""
    row = {
        "content": ["a"],
        "rewards": [0.5],
        "input_lengths": [4],
        "token_ids": [[5, 6, 7, 8, 0, 0]],
        "token_loss_mask": [[0.0, 0.0, 1.0, 1.0, 0.0, 0.0]],
        "sample_loss_mask": [1.0],
        "generation_logprobs": [[0.0, 0.0, -1.0, -2.0, 0.0, 0.0]],
        "prev_logprobs": [[0.0, -0.5, -1.5, -2.5, 0.0, 0.0]],
        "idx": 0,
    }
    return {**row, **changes}


MAKERS = {"jsonl": ours, "prime-rl": prime, "nemo-rl": nemo}
FIELDS = {
    "nemo-rl": ("generation_logprobs", "prev_logprobs"),
    "jsonl": ("infer_logprobs", "train_logprobs"),
    "prime-rl": ("inference_logprobs", "trainer_logprobs"),
}
BOTH = pytest.mark.parametrize("form", ["jsonl", "prime-rl"])


def a_file(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(form: str, folder: Path, *rows: Any) -> Recorded:
    return READERS[form]([a_file(folder / "dump.jsonl", *rows)])


def refusal(form: str, folder: Path, *rows: Any) -> MismatchError:
    with pytest.raises(MismatchError) as caught:
        read(form, folder, *rows)
    return caught.value


@BOTH
def test_values_stand_at_their_own_token(tmp_path: Path, form: str) -> None:
    """The value at t belongs to token t; what is not scored comes out as NaN, in float32."""
    found = read(form, tmp_path, MAKERS[form]())
    assert found.corpus.token_ids[0].tolist() == [5, 6, 7, 8]
    assert found.corpus.scored[0].tolist() == [False, False, True, True]
    np.testing.assert_array_equal(found.infer[0], np.float32([np.nan, np.nan, -1, -2]))
    np.testing.assert_array_equal(found.train[0], np.float32([np.nan, np.nan, -1.5, -2.5]))
    assert found.infer[0].dtype == found.train[0].dtype == np.float32


def test_nemo_rl_is_read_without_its_padding(tmp_path: Path) -> None:
    """Slices of one are opened, padding is cut, a sample that does not train scores nothing."""
    flat = {k: v[0] if isinstance(v, list) else v for k, v in nemo().items()}
    for row in (nemo(), flat):
        found = read("nemo-rl", tmp_path, row, nemo(sample_loss_mask=[0.0]))
        assert [ids.tolist() for ids in found.corpus.token_ids] == [[5, 6, 7, 8]] * 2
        assert [int(s.sum()) for s in found.corpus.scored] == [2, 0]
        np.testing.assert_array_equal(found.infer[0], np.float32([np.nan, np.nan, -1, -2]))
        np.testing.assert_array_equal(found.train[0], np.float32([np.nan, np.nan, -1.5, -2.5]))
        assert (
            found.about["format"] == "nemo-rl" and "padding was cut off" in found.about["alignment"]
        )


def test_a_row_that_is_not_nemo_rls_is_refused_by_its_field(tmp_path: Path) -> None:
    """The field, the number or both lengths stand in the sentence."""
    lacking = {k: v for k, v in nemo().items() if k != "prev_logprobs"}
    cases = {
        "field 'prev_logprobs' is missing": lacking,
        "input_lengths is 7, token_ids has 6": nemo(input_lengths=[7]),
        "input_lengths is true": nemo(input_lengths=True),
        "prev_logprobs has 3 entries, token_ids has 6": nemo(prev_logprobs=[[0.0, -1.0, -1.0]]),
        "sample_loss_mask is null": nemo(sample_loss_mask=[None]),
        "sample_loss_mask is a list": nemo(sample_loss_mask=[[0.0]]),
        'sample_loss_mask is "0"': nemo(sample_loss_mask=["0"]),
        "sample_loss_mask is NaN": nemo(sample_loss_mask=[float("nan")]),
        "loss_mask[2] is 0.5": nemo(token_loss_mask=[[0, 0, 0.5, 1, 0, 0]]),
        "generation_logprobs[3] is 0.5, above 0": nemo(
            generation_logprobs=[[0.0, 0.0, -1.0, 0.5, 0.0, 0.0]]
        ),
    }
    for said, row in cases.items():
        error = refusal("nemo-rl", tmp_path, nemo(), row)
        assert error.code == "bad-row" and "line 2:" in error.message
        assert said in error.message
    assert (
        "nemo-rl's form"
        in refusal("jsonl", tmp_path, nemo(token_ids=[5, 6], loss_mask=[0, 1])).hint
    )


def test_a_folder_of_nemo_rls_log_is_read_in_order_of_steps(tmp_path: Path) -> None:
    """Step 2 comes before step 10, and other files are left out."""
    for step in (10, 2):
        ids = [[step, 6, 7, 8, 0, 0]]
        a_file(tmp_path / f"exp/train_data_step{step}.jsonl", nemo(token_ids=ids))
    a_file(tmp_path / "exp/val_data_step2.jsonl", {"not": "ours"})
    found = READERS["nemo-rl"]([tmp_path])
    assert [int(ids[0]) for ids in found.corpus.token_ids] == [2, 10]


@BOTH
def test_what_is_not_scored_is_never_read(tmp_path: Path, form: str) -> None:
    """Index 0 and unscored positions may hold anything, whatever the mask says of index 0."""
    junk = ["x", 99.0, -1.0, {}]
    masked = [True, False, True, False]
    left, right = FIELDS[form]
    found = read(form, tmp_path, MAKERS[form](**{left: junk, right: junk}, loss_mask=masked))
    assert found.corpus.scored_tokens == 1
    np.testing.assert_array_equal(found.infer[0], np.float32([np.nan, np.nan, -1, np.nan]))


@BOTH
def test_null_at_a_scored_position_is_nan_and_kept(tmp_path: Path, form: str) -> None:
    """Null means that the engine had no number there: it is counted later, not dropped."""
    left, _ = FIELDS[form]
    found = read(form, tmp_path, MAKERS[form](**{left: [0, 0, None, -2]}))
    assert math.isnan(found.infer[0][2])
    assert found.corpus.scored_tokens == 2


def test_the_readmes_row_of_a_dump_says_what_null_is(tmp_path: Path) -> None:
    """Its nulls are where the mask leaves out; without it they are NaN, as the text says."""
    text = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    row = json.loads(re.search(r'^    (\{"token_ids".*?\})$', text, re.M | re.S)[1])  # type: ignore[index]
    found = read("jsonl", tmp_path / "masked", row)
    assert found.corpus.scored_tokens == 2 and np.isfinite(found.infer[0][2:]).all()
    del row["loss_mask"]
    found = read("jsonl", tmp_path / "whole", row)
    assert found.corpus.scored_tokens == 3 and math.isnan(found.infer[0][1])
    assert "a null at a scored token is counted as NaN" in text


@BOTH
def test_non_finite_literals_are_read(tmp_path: Path, form: str) -> None:
    """NaN and -Infinity come out as they are; a number below the range of float32 is -inf."""
    left, right = FIELDS[form]
    row = MAKERS[form](**{left: [0, 0, math.nan, -math.inf], right: [0, 0, -1e300, -1]})
    found = read(form, tmp_path, row)
    assert math.isnan(found.infer[0][2])
    assert found.infer[0][3] == found.train[0][2] == -np.inf


@BOTH
def test_about_says_what_was_read(tmp_path: Path, form: str) -> None:
    """Format, version, rows, alignment and what was ignored; it fits into strict JSON."""
    rows = [MAKERS[form](), MAKERS[form](loss_mask=[1, 0, 1, 1])]
    about = read(form, tmp_path, *rows).about
    json.dumps(about, allow_nan=False)
    assert about["format"] == form
    assert about["schema_version"] == (1 if form == "prime-rl" else None)
    assert about["rows"] == 2
    assert "the value at t is the log-probability of token t" in about["alignment"]
    assert "in 1 of 2 rows: it never is" in about["notes"][-1]
    ignored = "Values at index 0 were ignored in 2 of 2 rows"
    assert about["notes"][0].startswith(ignored) == (form == "prime-rl")


def test_without_a_mask_ours_scores_everything_but_position_0(tmp_path: Path) -> None:
    """loss_mask is optional in our own format."""
    row = ours(infer_logprobs=[0, -1, -1, -1], train_logprobs=[0, -1, -1, -1])
    del row["loss_mask"]
    found = read("jsonl", tmp_path, row)
    assert found.corpus.scored[0].tolist() == [False, True, True, True]
    assert len(found.about["notes"]) == 1


def test_sequences_without_scored_tokens_are_kept(tmp_path: Path) -> None:
    """They keep their place, so that row numbers still match the file."""
    found = read("jsonl", tmp_path, ours(loss_mask=[0, 0, 0, 0]), ours())
    assert [int(s.sum()) for s in found.corpus.scored] == [0, 2]
    assert np.isnan(found.infer[0]).all()


def test_nothing_scored_at_all_is_an_error(tmp_path: Path) -> None:
    """A dump whose masks select nothing exits 3."""
    assert refusal("jsonl", tmp_path, ours(loss_mask=[1, 0, 0, 0])).code == "nothing-scored"


@BOTH
@pytest.mark.parametrize("side", [0, 1])
def test_a_bad_side_is_named(tmp_path: Path, form: str, side: int) -> None:
    """File, line, field, position and value or both lengths stand in the sentence."""
    field = FIELDS[form][side]
    make = MAKERS[form]
    cases = {
        f"{field} has 3 entries, token_ids has 4": make(**{field: [0, 0, -1]}),
        f"{field} has 5 entries, token_ids has 4": make(**{field: [0, 0, -1, -1, -1]}),
        f"{field}[3] is 0.5, above 0": make(**{field: [0, 0, -1, 0.5]}),
        f"{field}[2] is 0.0002, above 0": make(**{field: [0, 0, 2e-4, -1]}),
        f"{field}[2] is Infinity, above 0": make(**{field: [0, 0, math.inf, -1]}),
        f'{field}[2] is "-1", not a number': make(**{field: [0, 0, "-1", -1]}),
        f"{field}[3] is true, not a number": make(**{field: [0, 0, -1, True]}),
        f"{field}[2] is a list, not a number": make(**{field: [0, 0, [-1], -1]}),
        f"{field}[2] is -1000": make(**{field: [0, 0, -(10**400), -1]}),
        f"{field} is null, not a list": make(**{field: None}),
        f"field '{field}' is missing": {k: v for k, v in make().items() if k != field},
    }
    for said, row in cases.items():
        error = refusal(form, tmp_path, make(), row)
        assert error.code == "bad-row"
        assert f"{tmp_path / 'dump.jsonl'}, line 2:" in error.message
        assert said in error.message


def test_rounding_above_zero_is_tolerated(tmp_path: Path) -> None:
    """A float32 log-softmax may overshoot by rounding: 1e-4 is kept as it is."""
    found = read("jsonl", tmp_path, ours(train_logprobs=[None, None, 1e-4, -1]))
    assert found.train[0][2] == np.float32(1e-4)


@pytest.mark.parametrize("version", [0, 2, "1", 1.0, True, None])
def test_another_schema_of_prime_rl_is_refused(tmp_path: Path, version: Any) -> None:
    """The error names file, line, the version found and the one this release reads."""
    error = refusal("prime-rl", tmp_path, prime(), prime(schema_version=version))
    assert error.code == "unknown-schema"
    assert "line 2" in error.message
    assert json.dumps(version) in error.message
    assert "reads 1;" in error.hint


def test_a_missing_schema_version_is_refused(tmp_path: Path) -> None:
    """No version is no reason to guess one."""
    row = prime()
    del row["schema_version"]
    error = refusal("prime-rl", tmp_path, row)
    assert error.code == "unknown-schema"
    assert "none given" in error.message


def test_prime_rl_needs_its_mask(tmp_path: Path) -> None:
    """Scoring prompt tokens by default would compare fillers."""
    row = prime()
    del row["loss_mask"]
    assert "'loss_mask' is missing" in refusal("prime-rl", tmp_path, row).message


def test_a_dump_in_the_other_form_is_recognised(tmp_path: Path) -> None:
    """Importing prime-rl's export as jsonl says which format it is, and the other way round."""
    assert "prime-rl's form" in refusal("jsonl", tmp_path, prime()).hint
    assert "jsonl's form" in refusal("prime-rl", tmp_path, ours(schema_version=1)).hint


def test_a_folder_of_token_exports_is_read_in_order_of_steps(tmp_path: Path) -> None:
    """Step 2 comes before step 10, rank 2 before rank 10; markers and other files are left out."""
    names = [(10, 0), (2, 10), (2, 2), (2, 0)]
    for number, (step, rank) in enumerate(names):
        path = tmp_path / f"run/token_exports/step_{step}/rank_{rank}.jsonl"
        a_file(path, prime(token_ids=[number, 1, 2, 3]))
        (path.parent / "STABLE").touch()
        a_file(path.parent / "rank_0_notes.jsonl", {"not": "ours"})
    found = READERS["prime-rl"]([tmp_path])
    assert [int(ids[0]) for ids in found.corpus.token_ids] == [3, 2, 1, 0]
    assert found.about["files"] == 4


def test_a_folder_without_exports_is_an_error(tmp_path: Path) -> None:
    """An empty folder is named, never an empty corpus."""
    with pytest.raises(MismatchError) as caught:
        READERS["prime-rl"]([tmp_path])
    assert caught.value.code == "file-missing"
    assert str(tmp_path) in caught.value.message


@BOTH
def test_no_file_is_a_usage_error(form: str) -> None:
    """Importing nothing is not a success."""
    with pytest.raises(MismatchError) as caught:
        READERS[form]([])
    assert caught.value.exit_code == 2


@BOTH
def test_one_empty_file_among_others_is_an_error(tmp_path: Path, form: str) -> None:
    """A file that lost its rows is not passed over."""
    full, empty = a_file(tmp_path / "a.jsonl", MAKERS[form]()), a_file(tmp_path / "b.jsonl")
    with pytest.raises(MismatchError) as caught:
        READERS[form]([full, empty])
    assert caught.value.code == "empty-input"
    assert "b.jsonl" in caught.value.message


VALUE = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=2)
LIST = st.lists(VALUE, max_size=4) | VALUE
NAMES = ["token_ids", "loss_mask", "schema_version", "input_lengths", "token_loss_mask"]
NAMES += [name for names in FIELDS.values() for name in names]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    form=st.sampled_from(sorted(MAKERS)),
    changes=st.dictionaries(st.sampled_from(NAMES), LIST, max_size=3),
)
def test_garbage_never_gives_a_traceback(tmp_path: Path, form: str, changes: Any) -> None:
    """Any values in any fields are either a dump of equal lengths or a readable error."""
    with suppress(MismatchError):
        found = read(form, tmp_path, MAKERS[form](**changes))
        for ids, scored, infer, train in zip(
            found.corpus.token_ids, found.corpus.scored, found.infer, found.train, strict=True
        ):
            assert len(ids) == len(scored) == len(infer) == len(train)
            assert not (infer[scored] > 1e-4).any()
