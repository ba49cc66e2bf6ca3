"""A study file means what it says, or is refused in one sentence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mismatch.errors import MismatchError
from mismatch.study import Study, pairs_of, read_study

BASE = """
model = "ckpt"
corpus = "ids.jsonl"
[train]
engine = "toy"
dtype = ["fp16", "fp32"]
noise = [0.01, 0.1]
[infer]
engine = "toy"
dtype = "fp64"
"""


def _study(folder: Path, text: str) -> Study:
    path = folder / "study.toml"
    path.write_text(text, encoding="utf-8")
    return read_study(path)


def _with(top: str = "", tables: str = "") -> str:
    return top + BASE + tables


def test_a_side_is_the_product_of_its_axes(tmp_path: Path) -> None:
    """Two dtypes by two noises are four conditions, each with a readable id."""
    study = _study(tmp_path, BASE)
    assert [c.id for c in study.sides["train"]] == [
        "toy-fp16-noise_0.01", "toy-fp16-noise_0.1", "toy-fp32-noise_0.01", "toy-fp32-noise_0.1",
    ]  # fmt: skip
    assert [c.id for c in study.sides["infer"]] == ["toy-fp64"]
    assert study.models[""] == tmp_path / "ckpt"


def test_explicit_conditions_and_excludes(tmp_path: Path) -> None:
    """A condition may have an id of its own; an exclude drops what has all of its options."""
    study = _study(
        tmp_path,
        _with(
            tables='[[condition]]\nside = "train"\nspec = "toy:noise=0.5"\nid = "loud"\n'
            '[[exclude]]\nside = "train"\ndtype = "fp16"\nnoise = 0.1\n'
        ),
    )
    ids = [c.id for c in study.sides["train"]]
    assert ids == ["toy-fp16-noise_0.01", "toy-fp32-noise_0.01", "toy-fp32-noise_0.1", "loud"]


def test_pairs_are_chosen_by_pattern_and_the_train_side_is_left(tmp_path: Path) -> None:
    """Written the other way round, d is still train minus infer; two of a side share a path."""
    study = _study(
        tmp_path,
        _with(
            tables='[[pair]]\nleft = "toy-fp64"\nright = "toy-fp32-*"\npath = "decode"\n'
            '[[pair]]\nleft = "toy-fp16-noise_0.01"\nright = "toy-fp32-noise_0.01"\n'
        ),
    )
    paths = {c.id: ("score",) for c in study.sides["train"]} | {"toy-fp64": ("decode", "prefill")}
    found = [(e.left.id, e.left_path, e.right.id, e.right_path) for e in pairs_of(study, paths)]
    assert found == [
        ("toy-fp32-noise_0.01", "score", "toy-fp64", "decode"),
        ("toy-fp32-noise_0.1", "score", "toy-fp64", "decode"),
        ("toy-fp16-noise_0.01", "score", "toy-fp32-noise_0.01", "score"),
    ]


def test_a_pair_that_two_patterns_name_is_made_once(tmp_path: Path) -> None:
    """Whether one pattern names it twice, from either end, or two patterns do."""
    once = '[[pair]]\nleft = "toy-fp*"\nright = "toy-fp32-*"\n'
    study = _study(tmp_path, _with(tables=once + once))
    paths = {c.id: ("score",) for c in study.sides["train"]} | {"toy-fp64": ("decode",)}
    ends = [
        frozenset({(e.left.id, e.left_path), (e.right.id, e.right_path)})
        for e in pairs_of(study, paths)
    ]
    assert len(ends) == len(set(ends)) == 7


TWO_OF_TRAIN = """
[[attribute]]
left = "toy-fp16-noise_0.01"
right = "toy-fp32-noise_0.01"
path = "nonsense"
"""


def _pairs(study: Study) -> None:
    paths = {c.id: ("score",) for c in study.sides["train"]}
    pairs_of(study, paths | {c.id: ("decode",) for c in study.sides["infer"]})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (_with(top="repeat = 2\n"), "unknown key 'repeat'.*Did you mean 'repeats'"),
        (_with(tables='[[pair]]\nleft = "a"\nright = "b"\npaths = "x"\n'), "unknown key"),
        (_with(top="repeats = 0\n"), "'repeats'"),
        (_with(top='floor = "loud"\n'), "'floor'"),
        (_with(top="model_ = [\n"), "not TOML"),
        (BASE.replace('"toy"', '"tory"', 1), "no engine named 'tory'.*Did you mean 'toy'"),
        (BASE.replace("noise =", "nose ="), "no option 'nose'.*Did you mean 'noise'"),
        (BASE.replace('"fp32"]', '"fp33"]'), "does not take 'fp33'.*Did you mean 'fp32'"),
        (BASE.replace('"fp32"]', '"fp16"]'), "two conditions have the id 'toy-fp16-noise_0.01'"),
        (BASE.replace('["fp16", "fp32"]', "[]"), "axis dtype of .* has no value"),
        (BASE.replace('engine = "toy"\ndtype = "fp64"', ""), "names no engine"),
        (_with(tables='[[exclude]]\ndtype = "bf16"\n'), "no condition.*dtype is fp16, fp32"),
        (_with(tables='[[exclude]]\ndtpe = "fp16"\n'), "No condition has 'dtpe'.*mean 'dtype'"),
        (_with(tables='[[exclude]]\nside = "trian"\n'), "Sides: train, infer.*mean 'train'"),
        (_with(top="paths = []\n"), "study.toml: 'paths' names no path"),
        (_with(top='paths = ["decod"]\n'), "study.toml: 'paths' has no path 'decod'.*'decode'"),
        (BASE.replace('"toy"', '"tory"', 1), r"study.toml: \[train\]: There is no engine named"),
        (BASE.replace('"fp64"', "[[1]]"), r"study.toml: dtype of \[infer\] takes text, a number"),
        (_with(tables='[[condition]]\nside = "train"\nspec = "toy:nose=1"\n'),
         r"study.toml: \[\[condition\]\] number 1: Engine toy has no option 'nose'.*'noise'"),
        (_with(tables='[[pair]]\nleft = "toy-fp6"\nright = "toy-fp64"\n'),
         "study.toml: left of a pair 'toy-fp6' matches no condition"),
        (_with(tables='[[attribute]]\nleft = "toy*"\nright = "toy-fp64"\npath = "decode"\n'),
         "study.toml: left of attribution 'attribution' 'toy\\*' matches 5"),
        (_with(tables=TWO_OF_TRAIN), "has the path 'nonsense'.*Paths: decode, prefill, score"),
        (BASE.replace("noise =", "nose ="), r"study.toml: \[train\]: Engine toy has no option"),
        (_with(tables='[[attribute]]\nid = "a"\nleft = "x"\nright = "y"\npathh = "decode"\n'),
         "unknown key 'attribute.0.pathh'.*mean 'path'"),
        (_with(tables='[[attribute]]\nid = "a"\nleft = "x"\nright = "y"\npath = "decod"\n'),
         "has the path 'decod'.*mean 'decode'"),
        (_with(tables='[[exclude]]\nside = "infer"\n'), "leave no condition on the infer side"),
        (_with(tables='[[pair]]\nleft = "toy-fp2*"\nright = "toy-fp64"\n'), "matches no condition"),
        (
            _with(tables='[[pair]]\nleft = "toy-fp16*"\nright = "toy-fp64"\npath = "prefil"\n'),
            r"has nothing to compare.*Paths taken: toy-fp16.* score; .*toy-fp64 decode.*'prefill'",
        ),
        (BASE.replace("noise =", 'model = "m"\nnoise ='), "has no 'm'"),
        (_with(top='rollout = "toy-fp64"\n'), "the ids are given"),
        (_with(tables='[[attribute]]\nleft = "toy*"\nright = "toy-fp64"\npath = "decode"\n'),
         "matches 5 conditions where one is meant.*They are toy-fp16"),
    ],
)  # fmt: skip
def test_a_bad_study_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    """Unknown keys, options and values, doubled ids, and whatever matches nothing; exit 2."""
    with pytest.raises(MismatchError) as caught:
        _pairs(_study(tmp_path, text))
    assert re.search(says, str(caught.value), re.DOTALL), caught.value
    assert caught.value.exit_code == 2


def test_a_missing_study_is_named(tmp_path: Path) -> None:
    """The file is named when it is not there."""
    with pytest.raises(MismatchError, match=r"nothing.toml does not exist"):
        read_study(tmp_path / "nothing.toml")
