"""diff OLD NEW: what changed in the gap, and in what made it."""

from __future__ import annotations

import copy
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mismatch import api, store
from mismatch.capture.run import seal_recorded_trace
from mismatch.errors import MismatchError
from mismatch.model import Corpus, make_corpus
from mismatch.report.change import diff as show
from mismatch.verbs.diff import _likely as likely

LENGTH = 21
IDS = make_corpus([(np.arange(LENGTH) + k, None) for k in range(20)])
OTHERS = make_corpus([(np.arange(LENGTH) + 7 * k + 1, None) for k in range(24)])


def seal(root: Path, trace: str, values: list[np.ndarray], ids: Corpus, **about: Any) -> Path:
    made = {"condition": trace.split("/")[0], "model": "m1", **about}
    seal_recorded_trace(root, trace, ids, values, "test", {}, **made)
    return root / "traces" / trace


def probabilities(ids: Corpus) -> list[np.ndarray]:
    """Of the infer side, in nats: the same for the same ids."""
    rng = np.random.default_rng(99)
    return [(-0.5 - rng.exponential(1, LENGTH)).astype(np.float32) for _ in range(len(ids))]


def a_run(
    folder: Path,
    *,
    seed: int,
    size: float = 0.03,
    ids: Corpus = IDS,
    infer: str = "vllm",
    **about: Any,
) -> Path:
    """A run folder of one pair, hf against `infer`, with d of that size."""
    rng = np.random.default_rng(seed)
    right = probabilities(ids)
    left = [(v + rng.normal(0, size, LENGTH)).astype(np.float32) for v in right]
    source = folder.with_name(folder.name + "-source")
    one = seal(source, "hf/score-1", left, ids)
    other = seal(source, f"{infer}/decode-1", right, ids, **about)
    api.compare_traces(one, other, folder)
    return folder


def the_pair(found: dict[str, Any]) -> dict[str, Any]:
    (one,) = found["pairs"]
    return dict(one)


def lines(found: dict[str, Any], width: int = 80) -> list[str]:
    console = Console(width=width, record=True, file=io.StringIO())
    show(found, console)
    return console.export_text().splitlines()


def printed(found: dict[str, Any], width: int = 80) -> str:
    return " ".join(" ".join(lines(found, width)).split())


def test_the_same_ids_are_paired_and_a_larger_gap_is_worse(tmp_path: Path) -> None:
    """d three times as large; old and new are what each run's summary says."""
    old, new = a_run(tmp_path / "a", seed=1), a_run(tmp_path / "b", seed=2, size=0.09)
    pair = the_pair(api.diff(old, new))
    assert pair["how"].startswith("paired")
    for key in ("abs_logprob_diff_mean", "k3"):
        row = pair["metrics"][key]
        assert row["verdict"] == "more than noise: worse" and row["chance"] < 0.01
        for name, folder in (("old", old), ("new", new)):
            (element,) = json.loads((folder / "summary.json").read_text())["pairs"]
            assert row[name] == element["metrics"][key]
        assert row["difference"]["value"] == pytest.approx(
            row["new"]["value"] - row["old"]["value"]
        )
    assert 2 < pair["metrics"]["abs_logprob_diff_mean"]["ratio"]["value"] < 4


def test_other_ids_are_independent_and_say_so(tmp_path: Path) -> None:
    """Drawn anew: no sequence stands against another."""
    old, new = a_run(tmp_path / "a", seed=1), a_run(tmp_path / "b", seed=2, ids=OTHERS)
    found = api.diff(old, new)
    assert the_pair(found)["how"].startswith("independent")
    assert the_pair(found)["sequences"] == [20, 24]
    assert the_pair(found)["metrics"]["k3"]["verdict"] == "not more than noise"
    assert "independent: the ids of the two runs differ" in printed(found)


def test_what_made_the_traces_is_told_where_it_changed(tmp_path: Path) -> None:
    """Another checkpoint on one side; nothing on the other."""
    old, new = a_run(tmp_path / "a", seed=1), a_run(tmp_path / "b", seed=1, model="m2")
    found = api.diff(old, new)
    changed = the_pair(found)["changed"]
    assert changed["infer"] == [["model.digest", "m1", "m2"]] and changed["train"] == []
    assert "model.digest: m1 -> m2" in printed(found)
    assert "infer vllm/decode-1: 1 fact changed" in printed(found)
    assert "train hf/score-1: every recorded fact is the same." in printed(found)


def test_a_line_for_each_pair_comes_first(tmp_path: Path) -> None:
    """The verdict on k3 and on mean abs d, with the ratio's interval; then the tables."""
    old, new = a_run(tmp_path / "a", seed=1), a_run(tmp_path / "b", seed=2, size=0.09)
    found = api.diff(old, new)
    twin = {**the_pair(found), "id": "x~y", "new_id": "x~y"}
    first, second, blank, *_ = lines({**found, "pairs": [the_pair(found), twin]}, 80)
    assert re.fullmatch(
        r"hf~vllm.decode: k3 worse, \S+ \[\S+, \S+\] times; mean abs d worse, \S+ \[.*\] times",
        first.strip(),
    )
    assert second.startswith("x~y: k3 worse, ") and not blank.strip()


def test_a_changed_fact_is_told_once(tmp_path: Path) -> None:
    """Of a side that two pairs share, and of two captures that it changed of, below all tables."""
    old, new = a_run(tmp_path / "a", seed=1), a_run(tmp_path / "b", seed=1, model="m2")
    found = api.diff(old, new)
    one, twin, third = (copy.deepcopy(the_pair(found)) for _ in range(3))
    third["traces"]["infer"] = ["vllm/prefill-1", "vllm/prefill-1"]
    third["changed"]["infer"].append(["threads", "1", "2"])
    said = printed({**found, "pairs": [one, twin, third]}, 200)
    assert said.count("model.digest: m1 -> m2") == 1
    both = "infer vllm/decode-1 (in 2 pairs), infer vllm/prefill-1: 1 fact changed model.digest"
    assert both in said and "infer vllm/prefill-1: 1 fact changed threads: 1 -> 2" in said
    assert said.count("every recorded fact is the same") == 1


def test_no_verdict_is_shown_beside_an_interval_that_is_not_trusted(tmp_path: Path) -> None:
    """Unknown with the reason, in the first line and in the table, and no chance beside it."""
    old, new = a_run(tmp_path / "a", seed=1), a_run(tmp_path / "b", seed=2, size=0.09)
    pair = copy.deepcopy(the_pair(api.diff(old, new)))
    assert pair["metrics"]["k3"]["chance"] < 0.05
    for row in pair["metrics"].values():
        row |= {"verdict": "no evidence", "reason": "interval not trusted: too few sequences"}
        row["difference"]["trusted"] = False
    said = printed({"pairs": [pair], "only_old": [], "only_new": []}, 200)
    tables = said.partition("More than noise:")[0]
    assert "times (interval not trusted); mean abs d unknown" in said
    assert "worse" not in tables and "%)" not in tables


def test_a_failed_check_leaves_no_evidence_and_the_rung_is_named(tmp_path: Path) -> None:
    """A new run whose values are shifted by one token has a gap that is no numerics."""
    old = a_run(tmp_path / "a", seed=1)
    right = probabilities(IDS)
    source = tmp_path / "source"
    one = seal(source, "hf/score-1", [np.roll(v, 1) for v in right], IDS)
    other = seal(source, "vllm/decode-1", right, IDS)
    api.compare_traces(one, other, tmp_path / "b")
    found = api.diff(old, tmp_path / "b")
    rows = the_pair(found)["metrics"].values()
    assert {row["verdict"] for row in rows} == {"no evidence"}
    assert all("the check 'L1 tokens' failed" in row["reason"] for row in rows)
    rungs = {rung["rung"]: rung["new"] for rung in the_pair(found)["preflight"]}
    assert rungs["L1 tokens"] == "fail"
    assert "Check 'L1 tokens': pass -> fail" in printed(found)


def test_pairs_of_one_side_are_named_and_two_names_can_be_matched(tmp_path: Path) -> None:
    """Without a common pair it is an error that lists both; --pair OLD=NEW matches them."""
    old, new = a_run(tmp_path / "a", seed=1), a_run(tmp_path / "b", seed=2, infer="vllm2")
    with pytest.raises(MismatchError) as caught:
        api.diff(old, new)
    assert (caught.value.code, caught.value.exit_code) == ("no-common-pair", 3)
    assert "--pair hf~vllm.decode=hf~vllm2.decode" in caught.value.message
    with pytest.raises(MismatchError, match=r"--pair hf~vllm\.decode=hf~vllm2\.decode"):
        api.diff(old, new, "hf~vllm.decode")
    pair = the_pair(api.diff(old, new, "hf~vllm.decode=hf~vllm2.decode"))
    assert pair["new_id"] == "hf~vllm2.decode" and pair["how"].startswith("paired")
    with pytest.raises(MismatchError, match="no pair 'hf~vllm3"):
        api.diff(old, new, "hf~vllm.decode=hf~vllm3.decode")


def test_the_likeliest_match_has_the_kind_the_path_and_the_closest_name() -> None:
    """A pair of another kind is never named, one of another path only behind one of the same."""

    def pair(kind: str, path: str) -> dict[str, str]:
        return {"kind": kind, "path": path}

    old = {"hf~v-bf16.decode": pair("train-infer", "decode"), "v..x": pair("infer-infer", "x")}
    new = {
        "hf~v-bf16.decode2": pair("train-infer", "prefill"),
        "hf~v-fp16.decode": pair("train-infer", "decode"),
        "hf~other.decode": pair("train-infer", "decode"),
        "v-bf16..x": pair("train-train", "x"),
    }
    assert likely(old, new) == ["--pair hf~v-bf16.decode=hf~v-fp16.decode"]
    assert likely(old, {"v-bf16..x": pair("train-train", "x")}) == []


def test_a_folder_that_was_edited_is_refused(tmp_path: Path) -> None:
    """Nothing is told of numbers that are not those of the traces."""
    old, new = a_run(tmp_path / "a", seed=1), a_run(tmp_path / "b", seed=2)
    summary = new / "summary.json"
    summary.write_text(summary.read_text().replace('"tokens": 400', '"tokens": 401', 1))
    with pytest.raises(MismatchError) as caught:
        api.diff(old, new)
    assert caught.value.code == "artifact-changed"


def test_the_document_is_the_same_wherever_the_folders_lie(tmp_path: Path) -> None:
    """No path and no time in it; nothing of the table is cut on 80 columns."""
    old, new = a_run(tmp_path / "a", seed=1), a_run(tmp_path / "b", seed=2, size=0.09)
    found = api.diff(old, new)
    assert store.dump_json(found) == store.dump_json(api.diff(old, new))
    assert str(tmp_path) not in store.dump_json(found)
    for width in (80, 120):
        assert "…" not in printed(found, width) and "worse" in printed(found, width)
