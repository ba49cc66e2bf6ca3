"""report.html: self-contained, inert, the same bytes every time, and nothing dropped in silence."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from mismatch import api, store
from mismatch.errors import MismatchError
from mismatch.report import build
from tests.unit.report import runs
from tests.unit.report.carried import blocks, carried
from tests.unit.report.runs import failed_pair, pair, routed, write_run


class Page(HTMLParser):
    """Tags with their attributes, and the text outside script and style."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self._raw = False
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._raw = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self._raw = False

    def handle_data(self, data: str) -> None:
        if not self._raw:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())


def policy(found: Page) -> str:
    metas = [a for t, a in found.tags if t == "meta" and "http-equiv" in a]
    return metas[0]["content"] or ""


def page(root: Path) -> Page:
    return Page(build(root)[1])


def test_it_is_one_file_that_loads_nothing(run: Path) -> None:
    """No address but of places in itself, no image; and a policy that would forbid them."""
    found = page(run)
    assert not [t for t, _ in found.tags if t in ("link", "img", "iframe", "object", "form")]
    assert not [a for _, a in found.tags if "src" in a]
    assert all((a["href"] or "").startswith("#p=") for _, a in found.tags if "href" in a)
    assert "http://" not in found.source
    assert "https://" not in found.source
    assert policy(found).startswith("default-src 'none'")


def test_the_policy_admits_the_page_s_own_script_and_style_alone(run: Path) -> None:
    """The hashes are those of the script and style as they stand, or nothing would run."""
    found = page(run)
    for tag in ("script", "style"):
        own = re.findall(rf"<{tag}>(.*?)</{tag}>", found.source, re.DOTALL)
        assert len(own) == 1
        digest = base64.b64encode(hashlib.sha256(own[0].encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in policy(found)
    assert not [a for _, a in found.tags if "style" in a]


def test_hostile_text_is_inert(run: Path) -> None:
    """Token texts, facts and errors make no tag, no handler and no second script that runs."""
    found = page(run)
    scripts = [a for t, a in found.tags if t == "script"]
    assert len([a for a in scripts if a.get("type") != "application/json"]) == 1
    assert len(scripts) == len(blocks(run / "report.html")) + 1  # each block ends where it should
    assert not [a for _, a in found.tags for name in a if name.startswith("on")]
    assert "onerror=alert(1)" in found.text  # shown, as text
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", found.source)


def test_names_in_a_figure_are_cleaned_as_names_in_the_text_are(run: Path) -> None:
    """Of an attribution, which is drawn: its title and its knobs."""
    share = runs.estimate(1.0)
    names = ("share", "alone_share", "interaction", "alone_k3")
    knob = {"knob": "\u202e\x1b" + runs.HOSTILE, "resolved_from_next": True}
    one = {
        "id": "\u202e" + runs.HOSTILE, "left": "l", "right": "r", "missing": [], "tokens": 100,
        "sequences": 10, "dropped": 0, "method": "shapley", "gap": {"k3": share},
        "knobs": [knob | dict.fromkeys(names, share)],
    }  # fmt: skip
    summary = store.read_json(run / "summary.json") | {"attributions": [one]}
    store.write_text(run / "summary.json", store.dump_json(summary))
    found = page(run)
    assert "waterfall of \\u202e" in found.source
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", found.source)
    assert not [t for t, _ in found.tags if t == "img"]


def test_token_text_is_whole_in_its_block_and_harmless(run: Path) -> None:
    """It reads back as it was but for what is invisible; nothing in it can end the block or start
    a tag, whatever it is read as.
    """
    words = carried(build(run)[1])[0].vocabulary[runs.SHA]
    assert words["2"][0] == runs.HOSTILE.replace(" ", "·")
    assert words["3"][0] == "\\x1b[31m" and words["4"][0] == "\\u202e\\ud800"
    source = (run / "report.html").read_text(encoding="utf-8")
    for text in re.findall(r'application/json" id="[^"]*">(.*?)</script>', source, re.DOTALL):
        assert text.isascii() and not set(text) & set("<>&")


def test_equal_inputs_give_equal_bytes(run: Path, tmp_path: Path) -> None:
    """Building twice, and building a copy elsewhere with other capture times, changes nothing."""
    first = [path.read_bytes() for path in build(run)]
    assert [path.read_bytes() for path in build(run)] == first
    for path in run.glob("traces/*/*/provenance.json"):
        changed = store.read_json(path) | {"started": "2030-01-01", "seconds": 1.0}
        store.write_text(path, store.dump_json(changed))
    moved = run.rename(tmp_path / "elsewhere")
    assert [path.read_bytes() for path in build(moved)] == first


def test_a_failed_pair_is_shown_with_its_reason(run: Path) -> None:
    """The failed cell stands in the table and its error in the list of captures."""
    found = page(run)
    assert "The capture failed:" in found.text
    assert "sglang/decode-1" in found.text
    assert "load: ImportError:" in found.text


def test_the_headline_and_the_floors_come_first(run: Path) -> None:
    """The verdict is the heading; gap, floors and the deterministic repeat stand under it."""
    text = page(run).text
    head = text[: text.index("All pairs")]
    assert head.index("Preflight") < head.index("The gap is more than noise")
    assert "The gap is more than noise: 6.7 times the floors" in head
    for said in ("1.00e-3", "batch floor, train", "batch floor, infer", "not the noise"):
        assert said in head


def test_every_figure_names_pair_path_size_and_space(run: Path) -> None:
    """No figure stands without a caption that says what it is of."""
    source = page(run).source
    captions = re.findall(r"<figcaption>(.*?)</figcaption>", source, re.DOTALL)
    assert len(captions) == source.count("<figure")
    for caption in captions:
        assert re.search("(log|probability|ratio) space", caption)
        assert ", path " in caption
        assert "100 tokens in 10 sequences" in caption


def test_the_page_carries_both_values_of_every_token_shown(run: Path) -> None:
    """Bit for bit what the comparison holds, with the unscored tokens between, the worst first."""
    found = carried(build(run)[1])[0]
    table = store.read_table(run / "comparisons" / pair()["id"] / "tokens.parquet")
    sequence, position = (table[n].to_numpy() for n in ("sequence_id", "position"))
    largest = [max(abs(table["d"].to_numpy()[sequence == s])) for s in found.raw["number"]]
    assert largest == sorted(largest, reverse=True) and len(largest) == runs.SEQUENCES
    for k, number in enumerate(found.raw["number"]):
        held, rows = found.held(k), sequence == number
        assert held.position.tolist() == list(range(runs.LENGTH))
        assert held.position[held.scored].tolist() == position[rows].tolist()
        assert held.left.tolist() == table["lp_train"].to_numpy()[rows].tolist()
        assert held.right.tolist() == table["lp_infer"].to_numpy()[rows].tolist()
        assert held.ids[held.scored].tolist() == table["token_id"].to_numpy()[rows].tolist()
        assert found.words(k)[:2] == ["·the", "⏎"]


def test_numbers_of_each_sequence_are_those_of_its_tokens(run: Path) -> None:
    """D, mean |d|, max |d| and where it is."""
    found = carried(build(run)[1])[0]
    for k in range(runs.SEQUENCES):
        held, raw = found.held(k), found.raw
        d = held.left.astype(float) - held.right
        worst = held.position[held.scored][np.argmax(np.abs(d))]
        assert raw["worst"][k] == worst and raw["tokens"][k] == len(d)
        for name, value in (("total", sum(d)), ("mean", np.abs(d).mean())):
            assert raw[name][k] == pytest.approx(value, rel=1e-4, abs=1e-7)


def test_a_long_sequence_is_cut_and_the_page_says_so(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five positions around the worst token, the others counted."""
    monkeypatch.setattr("mismatch.report.data.LONGEST", 5)
    found = page(run)
    assert "10 long sequences cut to 5 positions around the worst token" in found.text
    first = carried(run / "report.html")[0]
    for k, worst in enumerate(first.raw["worst"]):
        assert len(first.held(k).position) == 5 and worst in first.held(k).position
        assert first.raw["held"][k]["hidden"] == 7


def test_what_the_page_has_no_room_for_is_counted(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three sequences of 104 bytes fit into 430 of base64; five are listed; the rest is counted."""
    monkeypatch.setattr("mismatch.report.data.ROOM_OF_LEAD", 430)
    monkeypatch.setattr("mismatch.report.data.LISTED_OF_LEAD", 5)
    said = "3 of 10 sequences with their tokens, those with the largest |d| first"
    assert f"{said}, as many as 0.00043 MB of this page hold" in page(run).text
    assert "2 more are listed with their numbers alone, 5 are not listed" in page(run).text
    first = carried(run / "report.html")[0].raw
    assert len(first["held"]) == 3 and len(first["number"]) == 5


def test_a_list_that_ends_before_the_room_does_is_the_reason(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for all, a list of five: the page does not say that it was full."""
    monkeypatch.setattr("mismatch.report.data.LISTED_OF_LEAD", 5)
    said = "5 of 10 sequences with their tokens, those with the largest |d| first"
    assert f"{said}, as many as the list has, 5 are not listed." in page(run).text
    assert "of this page hold" not in page(run).text


def test_a_sequence_larger_than_the_room_is_cut_to_it(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst token is on the page, however little room there is."""
    monkeypatch.setattr("mismatch.report.data.ROOM_OF_LEAD", 60)
    first = carried(build(run)[1])[0]
    assert len(first.raw["held"]) == 1
    assert 0 < len(first.held(0).position) < 5
    assert first.raw["worst"][0] in first.held(0).position


def test_missing_texts_show_ids_and_say_so(tmp_path: Path) -> None:
    """Without token texts the viewer shows ids."""
    run = write_run(tmp_path / "run", pair(), texts=False)
    assert "No token texts were recorded: ids are shown." in page(run).text
    assert carried(run / "report.html")[0].words(0)[:4] == ["‹0›", "‹1›", "‹2›", "‹3›"]


def test_a_folder_without_traces_or_corpus_still_reports(run: Path) -> None:
    """What is not there is said to be missing; the numbers stand."""
    for name in ("traces", "corpus", "failed"):
        run.joinpath(name).rename(run / f"away-{name}")
    text = page(run).text
    assert "nothing can be said about how they differ" in text
    assert "The corpus is not in this folder" in text


def test_a_folder_without_comparisons_still_reports(run: Path) -> None:
    """A summary alone: the numbers stand, and what is drawn of tokens is said to be missing."""
    run.joinpath("comparisons").rename(run / "away")
    found = page(run)
    assert "The compared tokens of this pair are not in this folder" in found.text
    assert "1.00e-3" in found.text and "The gap by probability" in found.text
    assert list(blocks(run / "report.html")) == ["vocabulary"]


def test_what_is_not_in_the_folder_is_not_said_to_be_not_finite(tmp_path: Path) -> None:
    """No comparison and no breakdown: nothing is known of d, so nothing is said of it."""
    run = write_run(tmp_path / "run", pair(breakdowns={}))
    run.joinpath("comparisons").rename(run / "away")
    text = page(run).text
    assert "The compared tokens of this pair are not in this folder" in text
    assert "No token has a finite d" not in text
    lost = np.full(100, np.nan)
    known = write_run(tmp_path / "lost", pair(nan_tokens=100, breakdowns={}), d=lost)
    assert "No token has a finite d" in page(known).text


@pytest.mark.parametrize("schema", [2, "1", None])
def test_a_summary_of_another_schema_is_refused_in_one_sentence(run: Path, schema: object) -> None:
    """No page is written of what cannot be read as it was meant."""
    summary = store.read_json(run / "summary.json") | {"schema": schema}
    store.write_text(run / "summary.json", store.dump_json(summary))
    with pytest.raises(MismatchError) as refused:
        api.report(run)
    assert refused.value.code == "artifact-too-new" and "summary.json" in str(refused.value)
    assert not (run / "report.html").exists()


def test_nan_tokens_are_counted_shown_and_first(tmp_path: Path) -> None:
    """The heading counts them, the histogram says what it left out, the viewer has them first."""
    d = np.linspace(-0.1, 0.1, 100)
    d[[34, 35]] = np.nan
    found = page(write_run(tmp_path / "run", pair(nan_tokens=2), d=d))
    assert "No evidence: 2 NaN and 0 infinite tokens" in found.text
    assert "2 tokens not finite, not drawn" in found.text
    assert "those with values that are not finite first" in found.text
    first = carried(tmp_path / "run" / "report.html")[0]
    assert first.raw["number"][0] == 3 and first.raw["lost"][:2] == [2, 0]
    assert int(np.isnan(first.held(0).left).sum()) == 2
    assert first.raw["largest"][0] is None and first.raw["mean"][0] is not None


def test_a_floor_says_its_interval_wherever_it_is_drawn(tmp_path: Path) -> None:
    """In the table its bar is left out, and not what is said of it; only the gap has a bar."""
    found = page(write_run(tmp_path / "run", pair()))
    said = "batch floor, train: 1.00e-4 [8.00e-5, 1.20e-4]"
    assert found.source.count(f"<title>{said}</title>") == 2  # the headline and the table
    assert "1.00e-4, no interval" not in found.source
    row = re.findall(r'<td class="strip">(.*?)</td>', found.source)[0]
    assert row.count("range gap") == 1 and "range floor" not in row


def test_few_sequences_say_why_there_is_no_interval(tmp_path: Path) -> None:
    """No whiskers and no verdict below eight sequences."""
    none = {"k2": runs.estimate(1e-3, None), "k3": runs.estimate(1e-3, None)}
    few = pair(sequences=4, metrics=runs.metrics(1e-3, None), excess=none)
    text = page(write_run(tmp_path / "run", few)).text
    assert "No interval: too few sequences to tell the gap from noise" in text
    assert "no interval (fewer than 8 sequences)" in text


def test_an_interval_that_is_not_trusted_is_marked(tmp_path: Path) -> None:
    """In the tile, the table and the strip's label; the excess then has no verdict."""
    excess = {key: {**runs.estimate(1e-3), "trusted": False} for key in ("k2", "k3")}
    found = page(write_run(tmp_path / "run", pair(excess=excess)))
    assert "Interval not trusted: the sequences are too few or too unlike" in found.text
    assert found.text.count("[8.00e-4, 1.20e-3], interval not trusted") >= 2


def test_strips_of_intervals_that_are_not_trusted_are_hollow_and_dotted(tmp_path: Path) -> None:
    """In the headline and in the table, with a word on it in both captions; no other is."""
    marked = {**runs.metrics(1e-3), "k3": {**runs.estimate(1e-3), "trusted": False}}
    found = page(write_run(tmp_path / "marked", pair(metrics=marked)))
    for kind in ("range gap doubted", "dot gap doubted"):
        assert found.source.count(f'class="{kind}"') == 2
    assert 'class="dot floor doubted"' not in found.source
    assert found.text.count("Hollow, dotted: interval not trusted.") == 2
    other = page(write_run(tmp_path / "other", pair()))
    assert "Hollow, dotted" not in other.text and ' doubted"' not in other.source


def test_checks_stand_in_the_order_of_the_rungs(tmp_path: Path) -> None:
    """Whatever they said, and on whatever pair; what failed stands above the others."""

    def ladder(*verdicts: str) -> list[dict[str, str]]:
        names = ("L0 weights", "L1 tokens", "L2 sampling", "L3 routing")
        return [
            {"rung": name, "verdict": verdict, "evidence": f"{name} {verdict}", "todo": ""}
            for name, verdict in zip(names, verdicts, strict=True)
        ]

    one = pair(preflight=ladder("pass", "not checked", "pass", "not checked"))
    two = pair("prefill", preflight=ladder("not checked", "pass", "pass", "fail"))
    found = page(write_run(tmp_path / "run", one, two))
    rows = re.findall(r"<tr><td>(L\d) \w+</td><td><span[^>]*>([^<]*)<", found.source)
    assert rows == [
        ("L3", "fail"), ("L0", "not checked"), ("L0", "pass"), ("L1", "not checked"),
        ("L1", "pass"), ("L2", "pass"), ("L3", "not checked"),
    ]  # fmt: skip


def test_null_metrics_and_missing_floors_are_dashes(tmp_path: Path) -> None:
    """A pair without floor, excess or breakdowns is drawn with what it has."""
    bare = pair(floor=None, excess=None, breakdowns={}, preflight=[])
    text = page(write_run(tmp_path / "run", bare)).text
    assert "not captured" in text
    assert "No floor: whether the gap is noise is not known" in text
    assert "would look like a gap" in text
    assert "—" in text


@pytest.mark.parametrize("pairs", [(), (failed_pair(),)])
def test_nothing_compared_is_a_page_that_says_no_evidence(
    tmp_path: Path, pairs: tuple[runs.Summary, ...]
) -> None:
    """No pair, or only failed ones: a page, a reason, no number."""
    text = page(write_run(tmp_path / "run", *pairs)).text
    assert "No evidence: no token was compared" in text


def test_an_exact_pair_draws_without_a_scale(tmp_path: Path) -> None:
    """All d at 0: one bar, no division by a median of nothing."""
    exact = pair(k3=0.0, excess=None)
    text = page(write_run(tmp_path / "run", exact, d=np.zeros(100))).text
    assert "Bit-equal: the two sides agree exactly" in text
    assert "d is exactly 0 on 100 tokens (100.0%)" in text


def test_differing_facts_are_marked_and_times_left_out(run: Path) -> None:
    """Rows that differ carry the mark; times of capture are not on the page."""
    found = page(run)
    assert ("tr", {"class": "differs"}) in found.tags
    assert "facts.observed.attention" in found.text
    assert "2026-08-01" not in found.source


def test_sampled_by_limits_what_k3_is_called(tmp_path: Path) -> None:
    """Only tokens the infer side sampled make k3 an estimate of KL."""
    for who, said in (("infer", "k3 estimate KL"), ("other", "not KL"), ("unknown", "not known")):
        assert said in page(write_run(tmp_path / who, pair(sampled_by=who))).text


def test_every_layer_s_routes_are_shown_and_a_replay_stands_beside_them(tmp_path: Path) -> None:
    """In the pair that has them, all layers; foreign words of a replay are text."""
    words = "all tokens" + runs.HOSTILE
    one = pair(routes=routed(), replayed={"train": words})
    found = page(write_run(tmp_path / "run", one, pair("prefill")))
    assert found.text.count("Which experts each token was sent to") == 1
    assert "router_flip_rate, layer 0" in found.text and "0.900 beyond chance" in found.text
    assert "k3, routes agree" in found.text and "routes differ" not in found.text
    assert "routes replayed: all tokens" in found.text
    assert not [t for t, _ in found.tags if t == "img"]
