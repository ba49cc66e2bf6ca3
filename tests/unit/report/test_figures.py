"""Figures: drawn is what was measured, the caption says of what, and the bytes are equal."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import rcParams
from matplotlib.cbook import STEP_LOOKUP_MAP
from matplotlib.figure import Figure

from mismatch import store
from mismatch.errors import MismatchError
from mismatch.report import figures
from mismatch.report.axes import log_axis
from tests.unit.report import runs
from tests.unit.report.runs import (
    estimate,
    failed_pair,
    inner_pair,
    metrics,
    pair,
    summary_of,
    write_run,
)

ID = f"{runs.TRAIN}~{runs.INFER}.decode"


def rich(**changes: Any) -> dict[str, Any]:
    """A pair with everything that a figure may ask for."""
    lengths = [
        {"length": n, "sequences": 9, "tokens": 9 * n, "ess": estimate(0.9), "predicted": 0.95}
        for n in (1, 2, 4, 8)
    ]
    weights = [
        {"name": "token-tis", "level": "token", "rule": "r clipped at 2", "affected": estimate(0.1),
         "ess": estimate(0.8), "by_length": []},
        {"name": "gspo-clip", "level": "sequence", "rule": "s clipped", "affected": estimate(0.3),
         "ess": {**estimate(0.7), "trusted": False}, "by_length": []},
    ]  # fmt: skip
    more = {"ess_by_length": lengths, "corrections": weights, "forks": runs.forks_with_floors()}
    known = metrics(1e-3) | {"seq_log_ratio_slope_per_1k": estimate(-0.5)}
    return pair(metrics=known, **more, **changes)


def attribution(title: str = "a") -> dict[str, Any]:
    knobs = [
        {"knob": knob, "share": estimate(share), "alone_share": estimate(share),
         "interaction": estimate(0.0), "alone_k3": estimate(1e-4), "resolved_from_next": True}
        for knob, share in (("dtype", 1.2), ("engine", -0.2))
    ]  # fmt: skip
    return {
        "id": title, "left": "l", "right": "r", "missing": [], "tokens": 100, "sequences": 10,
        "dropped": 0, "method": "shapley", "gap": {"k3": estimate(1e-3)}, "knobs": knobs,
    }  # fmt: skip


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A run of two lengths, so that a slope can be drawn."""
    folder = write_run(tmp_path / "run", rich(), inner_pair())
    file = folder / "comparisons" / ID / "tokens.parquet"
    table = store.read_table(file).slice(3)
    store.write_table(file, {name: table[name] for name in table.column_names})
    return folder


def rewrite(root: Path, sequence: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Other tokens in place of the pair's."""
    at = np.arange(len(sequence), dtype=np.int32)
    columns = {"sequence_id": sequence, "position": at, "token_id": at, "lp_train": left,
               "lp_infer": right, "d": left - right}  # fmt: skip
    store.write_table(root / "comparisons" / ID / "tokens.parquet", columns)


def drawn(root: Path, name: str, *pairs: Any, one: str | None = None, by: str | None = None) -> Any:
    found = {**summary_of(*(pairs or (rich(), inner_pair()))), "attributions": [attribution()]}
    return figures.figure(name, root, found, one, by)


def words(figure: Figure) -> str:
    """All that is written below it, on one line."""
    return figure.get_supxlabel().replace("\n", " ")


@pytest.mark.parametrize("name", figures.NAMES)
@pytest.mark.parametrize("suffix", [".png", ".pdf", ".svg"])
def test_every_figure_has_equal_bytes_each_time(
    root: Path, tmp_path: Path, name: str, suffix: str
) -> None:
    """PNG, PDF and SVG hold no time, and drawing changes no setting of this process."""
    before = dict(rcParams)
    files = [tmp_path / f"{k}{suffix}" for k in range(2)]
    for file in files:
        figures.save(drawn(root, name), file)
    one, other = (file.read_bytes() for file in files)
    assert one == other and len(one) > 3000
    assert dict(rcParams) == before


@pytest.mark.parametrize("name", ["hist", "scatter", "by", "drift", "ess", "forks", "corrections"])
def test_the_caption_says_what_was_measured(root: Path, name: str) -> None:
    """Pair, path, direction of d, tokens and sequences; inside one engine left and right."""
    said = words(drawn(root, name))
    for part in (ID, "path decode", "d = lp_train - lp_infer", "100 tokens in 10 sequences"):
        assert part in said
    if name in ("hist", "scatter", "by"):
        other = words(drawn(root, name, inner_pair(k3=1e-4)))
        assert "d = lp_left - lp_right" in other


def test_the_caption_fits_the_width(root: Path) -> None:
    """No line of it is cut at the edge."""
    figure = drawn(root, "corrections")
    figure.canvas.draw()
    box = figure._supxlabel.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y0 >= 0


def test_gap_draws_value_interval_and_floors_at_their_places(root: Path) -> None:
    """The dot of k3 and its ends stand where the axis puts them; an exact 0 has its own place."""
    pairs = [rich(), inner_pair()]
    axes = drawn(root, "gap", *pairs).axes[0]
    dots = [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "o"]
    spread = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 2]
    axis = log_axis([8e-4, 1e-3, 1.2e-3, 8e-5, 2.4e-4, 0.0])
    assert axis.at(1e-3) in dots and axis.at(0.0) in dots
    assert any(np.allclose(ends, [axis.at(8e-4), axis.at(1.2e-3)]) for ends in spread)


def test_an_interval_that_is_not_trusted_is_hollow_and_said(root: Path) -> None:
    """Dotted line, white dot, a sentence; none of it where all hold."""
    doubtful = metrics(1e-3)
    doubtful["k3"] = {**doubtful["k3"], "trusted": False}
    figure = drawn(root, "gap", pair(metrics=doubtful))
    dot = next(line for line in figure.axes[0].lines if line.get_marker() == "o")
    assert dot.get_markerfacecolor() == "white" and "not trusted" in words(figure)
    assert "not trusted" not in words(drawn(root, "gap", pair()))


def test_scatter_draws_the_two_probabilities(root: Path) -> None:
    """x is infer and y is train; every token is a dot."""
    axes = drawn(root, "scatter").axes[0]
    table = store.read_table(root / "comparisons" / ID / "tokens.parquet")
    x, y = axes.lines[0].get_data()
    assert np.array_equal(x, np.exp(table["lp_infer"].to_numpy().astype(float)))
    assert np.array_equal(y, np.exp(table["lp_train"].to_numpy().astype(float)))
    assert axes.get_xlabel() == "infer probability"


def test_drift_draws_the_sum_of_d_of_each_sequence(root: Path) -> None:
    """D against length, and a line of the measured slope."""
    axes = drawn(root, "drift").axes[0]
    table = store.read_table(root / "comparisons" / ID / "tokens.parquet")
    sequence, d = table["sequence_id"].to_numpy(), table["d"].to_numpy()
    x, y = axes.lines[0].get_data()
    assert list(x) == [7, *[10] * 9]
    assert np.allclose(y, [d[sequence == k].sum() for k in range(10)], atol=1e-6)
    (x0, x1), (y0, y1) = axes.lines[1].get_data()
    assert math.isclose((y1 - y0) / (x1 - x0), -0.5 / 1000, rel_tol=1e-9)


def test_hist_counts_every_token_and_its_tail_ends_at_the_largest(root: Path) -> None:
    """The bars sum to n; the share beyond the largest |d| of a sign is one token."""
    above, below = drawn(root, "hist").axes
    d = store.read_table(root / "comparisons" / ID / "tokens.parquet")["d"].to_numpy()
    assert sum(bar.get_height() for bar in above.patches) == len(d)
    size, share = below.lines[0].get_data()
    assert math.isclose(size[0], d.max(), rel_tol=1e-5) and share[0] == 1 / len(d)


def test_a_tail_of_few_tokens_counts_them(root: Path) -> None:
    """Of d = 1, 2 and 4 one token in three lies beyond 3; a ratio that no token is as near to 1 as
    stands nowhere, where it would push the axes off the page."""
    rewrite(root, np.zeros(3, np.int32), np.array([-1.0, -2.0, -4.0]), np.array([-2.0, -4.0, -8.0]))
    below = drawn(root, "hist").axes[1]
    path = below.lines[0].get_path()  # what is drawn: get_data has no steps
    x, y = STEP_LOOKUP_MAP[below.lines[0].get_drawstyle()](*path.vertices.T)
    level = [y[k] for k in range(len(x) - 1) if y[k] == y[k + 1] and x[k] >= 3 >= x[k + 1]]
    assert level == [pytest.approx(1 / 3)]
    left = below.get_xlim()[0]
    assert [text.get_text() for text in below.texts] == ["r = 10"]
    assert all(text.get_position()[0] >= left for text in below.texts)


def test_many_tokens_are_binned(root: Path) -> None:
    """A cloud of a million dots says nothing: bins, with a scale of their counts."""
    n = 30_000
    right = -np.abs(np.random.default_rng(0).normal(0, 1, n))
    rewrite(root, np.arange(n) // 30, right, right)
    figure = drawn(root, "scatter")
    assert len(figure.axes) == 2 and figure.axes[1].get_ylabel() == "tokens"
    assert figure.axes[0].collections[0].get_array().sum() == n


def test_forks_are_steps_with_a_band_and_dashed_floors(root: Path) -> None:
    """The measured shares at their lengths, stepping down at the next; the caption says whose run
    it is, and what is not."""
    figure = drawn(root, "forks")
    axes = figure.axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    x, y = lines["agree"].get_data()
    assert list(x) == list(range(1, 9)) and list(y) == [1, 0.9, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert lines["agree"].get_drawstyle() == "steps-post" and len(axes.collections) == 1
    assert {"floor train", "floor infer"} <= set(lines)
    assert "9 of 10 sequences differ, median 4 [3, not reached] tokens" in words(figure)
    assert "One side drew these tokens greedily" in words(figure)
    other = drawn(root, "forks", pair(forks=runs.forks(None)))
    assert "no fork of a free run" in words(other) and "Dashed" not in words(other)
    with pytest.raises(MismatchError, match="no likeliest tokens") as caught:
        drawn(root, "forks", pair())
    assert "topk=K" in caught.value.hint


def test_what_is_not_there_is_said_in_a_sentence(root: Path) -> None:
    """No ESS, no correction, no breakdown, no attribution, no token: each says what to do."""
    bare = pair()
    for name, by in (("ess", None), ("corrections", None), ("by", "length")):
        with pytest.raises(MismatchError) as caught:
            drawn(root, name, bare, by=by)
        assert (caught.value.code, caught.value.exit_code) == ("nothing-to-plot", 4)
        assert "compare DIR" in caught.value.hint
    for by, need in (("entropy", "entropy=true"), ("turn", "several turns"),
                     ("token-type", "texts")):  # fmt: skip
        with pytest.raises(MismatchError, match=f"no breakdown by {by}") as caught:
            drawn(root, "by", bare, by=by)
        assert need in caught.value.hint and "compare DIR" not in caught.value.hint
    with pytest.raises(MismatchError, match="long enough"):  # measured, and it gave no row
        drawn(root, "ess", pair(ess_by_length=[]))
    with pytest.raises(MismatchError, match="no attribution"):
        figures.figure("waterfall", root, summary_of(bare), None, None)
    for name in ("gap", "hist", "ess"):
        with pytest.raises(MismatchError, match="nothing to draw"):
            drawn(root, name, failed_pair())
    rewrite(root, np.arange(20) // 2, np.zeros(20), np.zeros(20))
    with pytest.raises(MismatchError, match="of one length"):
        drawn(root, "drift")


def test_wrong_names_are_told_with_the_right_ones(root: Path, tmp_path: Path) -> None:
    """Of figures, pairs, attributions, cuts and files."""
    for name, one, by, code in (
        ("histo", None, None, "unknown-figure"),
        ("hist", "nope", None, "no-such-pair"),
        ("waterfall", "nope", None, "no-such-pair"),
        ("by", None, "entropi", "option-value"),
        ("hist", None, "entropy", "usage"),
    ):
        with pytest.raises(MismatchError) as caught:
            drawn(root, name, one=one, by=by)
        assert caught.value.code == code
    with pytest.raises(MismatchError, match=r"fig\.gif"):
        figures.save(drawn(root, "gap"), tmp_path / "fig.gif")


def test_foreign_text_is_drawn_as_it_stands(root: Path, tmp_path: Path) -> None:
    """Dollars are no formula, and control characters are shown."""
    name = "a $\\frac{1$ \x1b[31m" + runs.HOSTILE
    figure = drawn(root, "gap", pair(train=f"{name}/score-1"))
    figures.save(figure, tmp_path / "x.svg")
    assert "\x1b" not in (tmp_path / "x.svg").read_text()
    figures.save(drawn(root, "corrections", rich(id=name), one=name), tmp_path / "x.png")


def test_waterfall_steps_back_for_a_negative_share(root: Path) -> None:
    """Steps of 120% and -20% end at the whole gap."""
    axes = drawn(root, "waterfall").axes[0]
    first, last = axes.patches[:2]
    assert (first.get_x(), first.get_width()) == (0, 1.2)
    assert math.isclose(last.get_x(), 1.2) and math.isclose(last.get_width(), -0.2)
