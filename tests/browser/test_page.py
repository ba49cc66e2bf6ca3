"""report.html in a real browser: what a reader does with it, by mouse and by keyboard."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pytest

from mismatch import store
from mismatch.report import build, retokenize
from mismatch.report.words import token_text
from tests.browser.chromium import Tab
from tests.browser.conftest import D, Made, run_of, tokens_of
from tests.unit.report import runs
from tests.unit.report.test_retokenize import _found as found_of_retokenize

DECODE, PREFILL = (runs.pair(path)["id"] for path in ("decode", "prefill"))
VIEWER = f'document.querySelector(".viewer[data-pair=\\"{DECODE}\\"]")'
FOCUS = "document.activeElement"


def link(pair: str, sequence: object = None, position: object = None) -> str:
    named = {"p": pair, "s": sequence, "t": position}
    return "#" + urlencode({k: v for k, v in named.items() if v is not None}).replace("~", "%7E")


def fill(tab: Tab, name: str, value: str) -> None:
    """As typing does, and wait until the filter has run."""
    tab.js(f'{VIEWER}.querySelector(".count").textContent = "waiting"')
    tab.js(
        f'(() => {{ const field = {VIEWER}.querySelector(".{name}"); field.value = "{value}";'
        'field.dispatchEvent(new Event("input", { bubbles: true })); })()'
    )
    tab.until(f'{VIEWER}.querySelector(".count").textContent !== "waiting"')


def count(tab: Tab) -> str:
    return str(tab.js(f'{VIEWER}.querySelector(".count").textContent'))


def place(tab: Tab, selector: str) -> tuple[float, float]:
    """The middle of an element, after it was scrolled to."""
    x, y = tab.js(
        f"(() => {{ const e = document.querySelector({selector!r});"
        'e.scrollIntoView({ block: "center" }); const r = e.getBoundingClientRect();'
        "return [r.x + r.width / 2, r.y + r.height / 2]; })()"
    )
    return x, y


def tip(tab: Tab) -> str:
    """What the tooltip says; nothing where it is hidden."""
    return str(tab.js('document.getElementById("tip").hidden ? "" : tip.textContent'))


def stands_by(tab: Tab) -> bool:
    """Whether the tooltip is in sight and a few pixels above or below the focused token, once what
    was opened has been drawn.
    """
    tab.js("new Promise((done) => setTimeout(done, 300))")
    return bool(
        tab.js(
            f"(() => {{ const [t, k] = [tip, {FOCUS}].map((e) => e.getBoundingClientRect());"
            "const apart = Math.max(t.top - k.bottom, k.top - t.bottom);"
            "return !tip.hidden && apart > 0 && apart < 12 && t.left <= k.right && t.left >= 0"
            " && t.right <= innerWidth && t.top >= 0 && t.bottom <= innerHeight; })()"
        )
    )


# ---------------------------------------------------------------- it opens


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_word_can_be_read_and_nothing_is_wider_than_the_screen(
    tab: Tab, page: Path, scheme: str, width: int
) -> None:
    """In both schemes, wide and on a phone: text has a contrast of 4.5 to 1 (WCAG AA), and no
    element stands out at the side.
    """
    tab.resize(width, 844, mobile=width < 500)
    tab.scheme(scheme)
    tab.open(page)
    dark = tab.js("matchMedia('(prefers-color-scheme: dark)').matches")
    assert dark == (scheme == "dark")
    assert tab.js("document.documentElement.scrollWidth") <= width
    assert not "\n".join(tab.js(CONTRAST))


@pytest.mark.parametrize("width", [1400, 900, 500, 390])
def test_the_numbers_of_a_figure_are_not_cut(tab: Tab, made: Made, width: int) -> None:
    """All columns stand in the card, also those of long numbers that are not trusted."""
    found = {"value": -1.23e-5, "low": -1.45e-4, "high": -6.78e-6, "trusted": False}
    keys = ("abs_logprob_diff_mean", "logprob_diff_mean", "k3")
    labels = ("whitespace", "[0.01, 0.1)", "1024-4095")
    rows = [{"bin": n, "tokens": 12345, "metrics": dict.fromkeys(keys, found)} for n in labels]
    tab.resize(width, 900)
    tab.open(made(runs.pair(breakdowns={"infer_prob": rows, "token_type": rows, "turn": rows})))
    tab.js('document.querySelectorAll("details").forEach((e) => e.open = true)')
    boxes = 'Array.from(document.querySelectorAll("figure .scroll")'
    cut = tab.js(f"{boxes}, (e) => e.scrollWidth - e.clientWidth)")
    assert len(cut) == 3 and max(cut) <= 0


#: The words whose colour is too near to that of the ground below them.
CONTRAST = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  canvas.canvas.width = canvas.canvas.height = 1;
  const painted = (colours) => {
    canvas.fillStyle = "white"; canvas.fillRect(0, 0, 1, 1);
    for (const [colour, alpha] of colours) {
      canvas.globalAlpha = alpha; canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    }
    canvas.globalAlpha = 1;
    return canvas.getImageData(0, 0, 1, 1).data;
  };
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255)
    .map((c) => c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((sum, c, k) => sum + c * [0.2126, 0.7152, 0.0722][k], 0);
  const bad = [];
  for (const element of document.querySelectorAll("main *:not(svg *):not(script):not(option)")) {
    const words = [...element.childNodes].filter((n) => n.nodeType === 3 && n.data.trim());
    if (!words.length || !element.getClientRects().length || element.disabled) continue;
    const above = [];
    for (let e = element; e; e = e.parentElement) above.unshift(e);
    const styles = above.map((e) => getComputedStyle(e));
    const ground = styles.map((s) => [s.backgroundColor, 1]);
    const opacity = styles.reduce((o, s) => o * s.opacity, 1);
    const one = light(painted(ground));
    const other = light(painted([...ground, [styles.at(-1).color, opacity]]));
    const ratio = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    if (ratio < 4.5) bad.push(`${ratio.toFixed(2)} ${element.className} ${words[0].data}`);
  }
  return bad;
})()"""


def test_tokens_are_drawn_when_a_sequence_is_opened_and_not_before(tab: Tab, page: Path) -> None:
    """The other pair is not even read; of this one two sequences stand open, the worst first."""
    tab.open(page)
    headings = tab.js(f'Array.from({VIEWER}.querySelectorAll(".seq summary"), (e) => e.innerText)')
    assert len(headings) == runs.SEQUENCES
    assert headings[0].startswith("sequence 4 · max |d| 0.900 at position 7")
    assert headings[1].startswith("sequence 9 · max |d| 0.500 at position 4")
    drawn = f'{VIEWER}.querySelectorAll(".t").length'
    assert tab.js(drawn) == 2 * runs.LENGTH
    tab.click(*place(tab, ".seq:nth-child(3) summary"))
    tab.until(f"{drawn} === {3 * runs.LENGTH}")
    assert tab.js('document.querySelectorAll("details.pair .t").length') == 0
    tab.js('document.querySelector("details.pair").open = true')
    tab.until('document.querySelectorAll("details.pair .t").length')


def test_hostile_token_text_is_text(tab: Tab, page: Path) -> None:
    """It stands in the page letter by letter, what is invisible named, and does nothing."""
    tab.open(page)
    words = tab.js(f'Array.from({VIEWER}.querySelectorAll(".t"), (e) => e.textContent)')
    assert words[2] == token_text(runs.HOSTILE)
    assert words[3:5] == ["\\x1b[31m", "\\u202e\\ud800"]
    assert tab.js('document.querySelectorAll("img, main script:not([type])").length') == 0
    assert tab.js(f'{VIEWER}.querySelectorAll(".t *").length') == 0


def test_without_its_script_the_page_says_what_is_missing(tab: Tab, page: Path) -> None:
    """Numbers and figures stand; where the tokens would be, it says why they are not."""
    tab.send("Emulation.setScriptExecutionDisabled", value=True)
    tab.send("Page.navigate", url=page.resolve().as_uri())
    tab.until("document.readyState === 'complete' && document.querySelector('noscript p')")
    assert "switched off here" in tab.js("document.querySelector('noscript p').innerText")
    assert tab.js("document.querySelectorAll('figure svg').length") > 5


# ---------------------------------------------------------------- what a token says


def test_hovering_shows_both_probabilities_ranks_and_alternatives(tab: Tab, page: Path) -> None:
    """Position, id, kind, p and ln p of both sides, rank where it is known, d and r; below, the
    likeliest tokens of each side in order.
    """
    tab.open(page)
    tab.hover(*place(tab, '.seq .t[data-i="4"]'))
    tab.until("!document.getElementById('tip').hidden")
    said = tip(tab)
    assert "position 4, id 4, other\n" in said
    assert "infer: p = 0.368 (ln p = -1.000), rank 2\n" in said
    assert "train: p = " in said and "d = " in said and "r = " in said
    assert "train: likeliest‹10›0.607\\u202e\\ud8000.368‹12›0.223" in said
    tab.hover(*place(tab, '.seq .t[data-i="5"]'))
    tab.until("tip.textContent.includes('position 5')")
    assert "not among its 3 likeliest" in tip(tab)
    tab.hover(*place(tab, '.seq .t[data-i="0"]'))
    tab.until("tip.textContent.includes('not scored')")
    assert "p = " not in tip(tab)
    tab.hover(5, 5)
    tab.until("document.getElementById('tip').hidden")


def test_the_keyboard_alone_is_enough(tab: Tab, page: Path) -> None:
    """Tab reaches a sequence and its worst token, arrows walk along it, Escape hides the words;
    Enter in the field for text goes to a match.
    """
    tab.open(page)
    tab.js(f'{VIEWER}.querySelector("summary").focus()')
    tab.key("Tab")
    assert tab.js(f"{FOCUS}.className").split() == ["t", "p3", "worst"]
    assert "position 7, " in tip(tab)
    tab.key("ArrowLeft")
    assert "position 6, " in tip(tab)
    tab.key("End")
    assert f"position {runs.LENGTH - 1}, " in tip(tab)
    tab.key("Escape")
    assert tip(tab) == ""
    tab.js(f'{VIEWER}.querySelector(".find").focus()')
    tab.type("日本")
    tab.key("Enter")
    tab.until(f"{FOCUS}.classList.contains('t')")
    assert tab.js(f"{FOCUS}.textContent") == "日本"


def test_colours_follow_d(tab: Tab, page: Path) -> None:
    """0.9 is above ln 2 and below ln 5, -0.5 above ln 1.1: class 3 of higher, class 2 of lower."""
    tab.open(page, link(DECODE, 9))
    worst = f'Array.from({VIEWER}.querySelectorAll(".worst"), (e) => e.classList[1])'
    assert tab.js(worst) == ["p3", "n2"]
    assert tab.js(f'{VIEWER}.querySelectorAll(".t.off").length') == 2 * runs.PROMPT


# ---------------------------------------------------------------- filters


def test_filters_leave_the_tokens_that_they_say(tab: Tab, page: Path) -> None:
    """By size, by text, by type, and together; the numbers are those of the comparison."""
    tab.open(page)
    d = tokens_of(page, DECODE)["d"]
    for least in (0.3, 0.005):
        fill(tab, "least", str(least))
        n = int(np.count_nonzero(np.abs(d) >= least))
        assert count(tab).startswith(f"{n} tokens in ")
    fill(tab, "least", "")
    fill(tab, "kind", tab.js('Array.from(document.querySelector(".kind").options, (o) => '
                             'o.text === "whitespace" ? o.value : "").join("")'))  # fmt: skip
    assert count(tab) == "20 tokens in 10 sequences match."  # ids 1, at positions 1 and 7
    fill(tab, "least", "0.5")
    assert count(tab) == "1 token in 1 sequence match."
    for name in ("least", "kind"):
        fill(tab, name, "")
    assert count(tab) == ""
    assert tab.js(f'{VIEWER}.querySelectorAll(".seq").length') == runs.SEQUENCES


def test_text_is_found_across_tokens(tab: Tab, page: Path) -> None:
    """A place of the text that two tokens share is a match of both; nothing else is."""
    tab.open(page)
    fill(tab, "find", "日本 the")
    assert count(tab) == "20 tokens in 10 sequences match."  # 5 and 6 of each
    hits = tab.js(f'Array.from({VIEWER}.querySelectorAll(".seq[open] .hit"), (e) => e.textContent)')
    assert hits[:2] == ["日本", "·the"]
    fill(tab, "find", "onerror")
    assert count(tab) == "20 tokens in 10 sequences match."
    fill(tab, "find", "no such words")
    assert count(tab) == "0 tokens in 0 sequences match."
    assert tab.js(f'{VIEWER}.querySelector(".next").disabled')


def test_walking_along_matches_and_jumping_to_the_worst(tab: Tab, page: Path) -> None:
    """next goes to the first match, then on, and round; the jump to the largest |d| of the pair,
    or among matches of those.
    """
    tab.open(page)
    press = f'{VIEWER}.querySelector(".NAME").click()'
    at = f'{FOCUS}.closest(".seq").innerText.split(" · ")[0] + " " + {FOCUS}.dataset.i'
    tab.js(press.replace("NAME", "jump"))
    assert tab.js(at) == "sequence 4 7"
    fill(tab, "least", "0.3")
    seen = []
    for _ in range(3):
        tab.js(press.replace("NAME", "next"))
        seen.append(tab.js(at))
    assert seen == ["sequence 4 7", "sequence 9 4", "sequence 4 7"]
    fill(tab, "find", "\\\\ud800")
    tab.js(press.replace("NAME", "jump"))
    assert tab.js(at) == "sequence 9 4"


def test_enter_in_the_text_field_goes_on_to_the_next_match(tab: Tab, page: Path) -> None:
    """At once where the text is new, and from where it was when the field is gone back to."""
    tab.open(page)
    field = f'{VIEWER}.querySelector(".find")'
    tab.js(f"{field}.focus()")
    tab.type("the")
    seen = []
    for _ in range(3):
        tab.js(f"{field}.focus()")
        tab.key("Enter")
        tab.until(f'{FOCUS}.classList.contains("hit")')
        seen.append(tab.js(f'{FOCUS}.closest(".seq").dataset.k + " " + {FOCUS}.dataset.i'))
    assert len(set(seen)) == 3


def test_a_link_leads_on_while_a_filter_waits(tab: Tab, page: Path) -> None:
    """What was typed just before is taken back, and does not take the token out of sight later."""
    tab.open(page)
    tab.js(
        f'(() => {{ const field = {VIEWER}.querySelector(".find"); field.value = "the";'
        'field.dispatchEvent(new Event("input", { bubbles: true }));'
        f'location.hash = "{link(DECODE, 2, 3)}"; }})()'
    )
    tab.until(f"{FOCUS}.matches(\".t[data-i='3']\")")
    tab.js("new Promise((done) => setTimeout(done, 250))")
    assert tab.js(f"{FOCUS}.matches(\".t[data-i='3']\")")


def test_a_filter_holds_for_what_is_listed_later(
    tab: Tab, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thirty sequences: those behind the button carry their matches too, and lose them again."""
    monkeypatch.setattr(runs, "SEQUENCES", 30)
    tab.open(made(runs.pair(sequences=30, tokens=300), d=np.tile(D[:10], 30)))
    fill(tab, "least", "0.009")
    tab.js(f'{VIEWER}.querySelector(".more").click()')
    words = f'Array.from({VIEWER}.querySelectorAll(".seq summary"), (e) => e.innerText)'
    found = tab.js(words)
    assert len(found) == 30 and all(" · 5 matching" in heading for heading in found)
    tab.js(f'{VIEWER}.querySelector(".seq:last-child").open = true')
    tab.until(f'{VIEWER}.querySelectorAll(".seq:last-child .hit").length === 5')
    fill(tab, "least", "")
    tab.js(f'{VIEWER}.querySelector(".more").click()')
    assert not any("matching" in heading for heading in tab.js(words))
    assert tab.js(f'{VIEWER}.querySelectorAll(".hit, .filtered").length') == 0


# ---------------------------------------------------------------- links


def test_a_link_opens_its_pair_its_sequence_and_its_token(tab: Tab, page: Path) -> None:
    """A token of the folded pair: opened, in sight and focused, as soon as the page is there."""
    tab.open(page, link(PREFILL, 6, 9))
    assert tab.js(f"{FOCUS}.dataset.i") == "9"
    assert tab.js(f'{FOCUS}.closest(".block").dataset.pair') == PREFILL
    assert tab.js(f'{FOCUS}.closest(".seq").innerText').startswith("sequence 6")
    box = tab.js(
        f"(() => {{ const r = {FOCUS}.getBoundingClientRect(); return [r.top, r.bottom]; }})()"
    )
    assert 0 <= box[0] < box[1] <= 900
    assert "position 9, " in tip(tab)


@pytest.mark.parametrize("width", [1280, 500])
@pytest.mark.parametrize("pair", [DECODE, PREFILL])
def test_the_tooltip_of_a_link_stands_by_its_token(
    tab: Tab, page: Path, pair: str, width: int
) -> None:
    """Whatever is opened above it, at once or later; and it is gone with its token."""
    tab.resize(width, 900)
    tab.open(page, link(pair, 6, 9))
    assert stands_by(tab) and "position 9, " in tip(tab)
    tab.js(f'{FOCUS}.closest(".list").querySelector(".seq:nth-child(3)").open = true')
    tab.js(f'{FOCUS}.closest(".block").querySelectorAll("details").forEach((e) => e.open = true)')
    tab.js(f'{FOCUS}.scrollIntoView({{ block: "end" }})')
    assert stands_by(tab)
    tab.js(f'{FOCUS}.closest(".seq").open = false')
    tab.until("tip.hidden")


def test_the_tooltip_stays_with_the_focus(tab: Tab, page: Path) -> None:
    """The worst token that a mouse jumped to is told of though the mouse is elsewhere, or at rest
    over a token that scrolled below it; another one is while it is pointed at; Escape ends it.
    """
    tab.open(page)
    x, y = place(tab, ".jump")
    tab.hover(x, y)
    tab.click(x, y)
    assert stands_by(tab) and "position 7, " in tip(tab)
    tab.hover(5, 5)
    assert stands_by(tab) and "position 7, " in tip(tab)
    other = place(tab, '.seq .t[data-i="4"]')
    tab.hover(*other)
    tab.until("tip.textContent.includes('position 4, ')")
    tab.hover(5, 5)
    assert stands_by(tab) and "position 7, " in tip(tab)
    tab.key("Escape")
    tab.hover(6, 6)
    tab.js("new Promise((done) => setTimeout(done, 100))")
    assert tip(tab) == ""


def test_what_scrolls_below_a_mouse_at_rest_is_not_pointed_at(tab: Tab, page: Path) -> None:
    """The token of a link is told of, and not the one that came to lie below the mouse."""
    tab.open(page)
    before = place(tab, '.seq .t[data-i="4"]')
    tab.js("scrollBy(0, -150)")
    tab.hover(*before)
    tab.js(f'{VIEWER}.querySelector(".worst").focus({{ preventScroll: true }})')
    tab.js("scrollBy(0, 150)")
    tab.js("new Promise((done) => setTimeout(done, 300))")
    assert "position 7, " in tip(tab)
    tab.hover(before[0] + 1, before[1])
    tab.until("tip.textContent.includes('position 4, ')")


def test_links_of_a_sequence_and_of_a_token_lead_back(tab: Tab, page: Path) -> None:
    """What stands below a sequence addresses it, and the token that has the focus."""
    tab.open(page, link(DECODE, 9))
    assert tab.js(f"{FOCUS}.dataset.i") == "4"
    tab.key("ArrowRight")
    own = f'{FOCUS}.closest(".seq").querySelector("NAME").getAttribute("href")'
    assert tab.js(own.replace("NAME", ".links a")) == link(DECODE, 9)
    href = tab.js(own.replace("NAME", ".token-link"))
    assert href == link(DECODE, 9, 5)
    tab.js(f"{FOCUS}.blur()")
    for _ in range(2):  # the second time the address does not change
        tab.js("document.querySelector('.token-link[href$=\"t=5\"]').click()")
        tab.until(f"{FOCUS}.dataset && {FOCUS}.dataset.i === '5'")
        tab.js(f"{FOCUS}.blur()")
    assert tab.js("location.hash") == href


def test_a_link_leads_to_what_a_filter_hides(tab: Tab, page: Path) -> None:
    """The filter gives way."""
    tab.open(page)
    fill(tab, "least", "0.6")
    assert tab.js(f'{VIEWER}.querySelectorAll(".seq").length') == 1
    tab.js(f"location.hash = {link(DECODE, 0, 3)!r}")
    tab.until(f"{FOCUS}.dataset && {FOCUS}.dataset.i === '3'")
    assert tab.js(f'{VIEWER}.querySelectorAll(".seq").length') == runs.SEQUENCES


@pytest.mark.parametrize(
    ("fragment", "says"),
    [
        (link("<img src=x>"), "names the pair <img src=x>, which is not on this page"),
        (link(DECODE, 77), "Sequence 77 is not listed on this page"),
        (link(DECODE, 4, 99), "Position 99 of sequence 4 is not on this page"),
        (link(DECODE, "x"), "s and t are numbers"),
        (link(DECODE, 4, "-1"), "s and t are numbers"),
    ],
)
def test_a_link_to_what_is_not_here_says_so(tab: Tab, page: Path, fragment: str, says: str) -> None:
    tab.open(page, fragment)
    assert says in tab.js("document.getElementById('link-note').innerText")


# ---------------------------------------------------------------- other inputs


def test_pages_of_poor_folders_open(tab: Tab, made: Made) -> None:
    """No texts, no corpus, NaN: ids and what is not finite are shown, and said."""
    d = D.copy()
    d[[34, 35]] = np.nan
    path = made(runs.pair(nan_tokens=2), d=d, texts=False)
    tab.open(path)
    assert tab.js('document.querySelectorAll(".t.nan").length') == 2
    assert tab.js('document.querySelector(".seq summary").innerText').startswith(
        "sequence 3 · 2 tokens not finite, the first at position 6"
    )
    assert tab.js('document.querySelector(".t").textContent') == "‹0›"
    tab.hover(*place(tab, ".t.nan"))
    tab.until("!document.getElementById('tip').hidden")
    assert "train: ln p = nan" in tip(tab) and "d = nan" in tip(tab)


def test_a_page_without_a_token_opens(tab: Tab, made: Made) -> None:
    """Only failed cells: a page, a reason, and nothing for the script to do."""
    tab.open(made(runs.failed_pair()))
    assert "No evidence: no token was compared" in tab.js("document.body.innerText")


def test_tips_of_the_page_on_retokenisation(tab: Tab, tmp_path: Path) -> None:
    """Its tokens stand in the page itself; hovering and focus show what their titles say."""
    path = tmp_path / "retokenize.html"
    path.write_text(retokenize.html(found_of_retokenize(runs.HOSTILE)), encoding="utf-8")
    tab.open(path)
    tab.hover(*place(tab, ".t.gone:not(.legend *)"))
    tab.until("!document.getElementById('tip').hidden")
    assert "sampled, and not in the new ids" in tip(tab)
    tab.js('document.querySelector(".tokens .t").focus()')
    assert "position" in tip(tab)


def test_what_is_listed_without_its_tokens_says_so(
    tab: Tab, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link to such a sequence goes to its line, and a filter says what it searched."""
    monkeypatch.setattr("mismatch.report.data.ROOM_OF_LEAD", 430)
    tab.open(made(runs.pair(), d=D), link(DECODE, 5))
    said = "The tokens of sequence 5 are not on this page, its numbers alone"
    assert said in tab.js("document.getElementById('link-note').innerText")
    assert tab.js('document.querySelectorAll(".seq.bare").length') == 7
    fill(tab, "least", "0.001")
    assert count(tab).endswith("match, of the 3 whose tokens are on this page.")


def test_a_filter_says_what_it_searched_where_the_list_ends(
    tab: Tab, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every sequence of the list is there, and the list is not the pair."""
    monkeypatch.setattr("mismatch.report.data.LISTED_OF_LEAD", 4)
    tab.open(made(runs.pair(), d=D))
    fill(tab, "least", "0.001")
    assert count(tab).endswith("match, of the 4 whose tokens are on this page.")


def test_no_rank_is_told_where_a_side_gave_no_alternatives(tab: Tab, tmp_path: Path) -> None:
    """At a position without them a token is not said to be unlikely; at the others it is."""
    root = run_of(tmp_path / "run")
    topk = root / "traces" / runs.pair()["infer"] / "topk.parquet"
    table = store.read_table(topk)
    store.write_table(topk, {n: table[n].to_numpy()[table["position"].to_numpy() != 5]
                             for n in table.column_names})  # fmt: skip
    tab.open(build(root)[1])
    tab.hover(*place(tab, '.seq .t[data-i="5"]'))
    tab.until("tip.textContent.includes('position 5')")
    lines = [line for line in tip(tab).split("\n") if "(ln p = " in line]
    assert ["not among its 3 likeliest" in line for line in lines] == [True, False]


@pytest.mark.parametrize("width", [1280, 900, 390])
def test_numbers_on_an_axis_stand_apart(tab: Tab, made: Made, width: int) -> None:
    """0 beside 1e-12 too, or they would read as one number."""
    still = {side: runs.metrics(k3) for side, k3 in (("train", 4e-13), ("infer", 2e-7))}
    tab.resize(width, 900)
    tab.open(made(runs.pair(floor={"batch": still}), d=D))
    assert tab.js(OVERLAPS) == []


def test_the_curve_of_forks_is_drawn_with_its_band(tab: Tab, page: Path) -> None:
    """One filled band, one solid curve and a dashed one for each floor, as wide as the figure; its
    numbers and the label of its kind stand below."""
    tab.open(page)
    shapes = tab.js(
        '(() => { const figure = [...document.querySelectorAll("figure")].find((f) =>'
        ' f.textContent.includes("How long greedy runs agree"));'
        ' return [...figure.querySelectorAll("path")].map((p) => { const s = getComputedStyle(p);'
        " return [p.getAttribute('class'), s.fill !== 'none', s.stroke !== 'none',"
        " s.strokeDasharray !== 'none', p.getBoundingClientRect().width > 200]; }); })()"
    )
    assert shapes == [
        ["band", True, False, False, True],
        ["curve expected", False, True, True, True],
        ["curve expected", False, True, True, True],
        ["curve agree", False, True, False, True],
    ]


#: Words of one figure that touch each other, in pairs.
OVERLAPS = """(() => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  const found = [];
  for (const plot of document.querySelectorAll("svg.plot")) {
    const texts = Array.from(plot.querySelectorAll("text"));
    const words = texts.map((e) => [e.textContent, e.getBoundingClientRect()]);
    words.forEach(([one, a], k) => words.slice(k + 1).forEach(([other, b]) => {
      const beside = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const below = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (beside > -1 && below > 3 && a.width && b.width) found.push([one, other]);
    }));
  }
  return found;
})()"""
