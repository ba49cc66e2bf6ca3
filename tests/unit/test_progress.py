"""Progress: rate and time left on a terminal, few plain lines in a log, nothing on stdout."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from rich.console import Console

from mismatch.progress import LOG_EVERY_S, Progress


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def capture(name: str, calls: int, sequences: int, first: int = 0) -> list[dict[str, Any]]:
    """What a guest sends of one capture, whose first calls were kept from an earlier run."""
    whole = calls * sequences
    entered: list[dict[str, Any]] = [{"stage": "score", "capture": name}]
    for call in range(first, calls):
        more = {"call": call, "of": calls, "sequences": sequences, "done": call * sequences}
        entered.append({"stage": "score", "capture": name, "total": whole, **more})
    return entered


def lines(events: list[dict[str, Any]], seconds: float) -> list[str]:
    """What a log holds of events that stand so far apart."""
    stream, clock = io.StringIO(), Clock()
    with Progress(Console(file=stream, width=200), clock) as progress:
        for event in events:
            progress.notify(event)
            clock.now += seconds
    return stream.getvalue().splitlines()


START = {"stage": "start", "condition": "hf", "captures": 1}


def test_a_log_tells_each_stage_once_and_no_line_of_a_short_wait() -> None:
    """As many calls as there are, no line for each."""
    events = [START, {"stage": "load"}, *capture("score-1", 8, 4),
              {"stage": "captured", "capture": "score-1"}]  # fmt: skip
    assert lines(events, 0.5) == [
        "hf: 1 captures to take",
        "hf: loading engine and weights",
        "hf: scoring score-1",
        "hf: score-1 captured",
    ]


def test_a_long_wait_is_told_at_a_bounded_rate_with_rate_and_time_left() -> None:
    """A thousand calls a second apart: a line every ten seconds; 4 sequences a second."""
    said = [x for x in lines([START, *capture("score-1", 1000, 4)], 1.0) if " of " in x]
    assert 1000 / LOG_EVERY_S * 0.9 <= len(said) <= 1000 / LOG_EVERY_S
    rate = r"hf: scoring score-1: ([\d,]+) of 4,000 sequences, 4 a second"
    assert re.fullmatch(rate, said[0])
    found = [m for x in said if (m := re.fullmatch(rate + r", (\d+) min (\d\d) s left", x))]
    for match in found:
        done, left = int(match[1].replace(",", "")), 60 * int(match[2]) + int(match[3])
        assert done >= 400 and (4000 - done) / 4 == pytest.approx(left, abs=1)
    assert len(found) >= 70


def timed(ends: list[float], total: int) -> list[str]:
    """The log of sequences that run side by side and end at these seconds."""
    stream, clock = io.StringIO(), Clock()
    whole = {"call": 0, "of": 1, "sequences": total, "done": 0, "total": total}
    with Progress(Console(file=stream, width=200), clock) as progress:
        progress.notify({"stage": "sample", "capture": "rollout-1", **whole})
        for k, end in enumerate(ends, 1):
            clock.now = 1000.0 + end
            progress.notify({"stage": "tick", "done": k, "of": total})
    return stream.getvalue().splitlines()


def test_the_first_to_end_of_many_side_by_side_tell_no_time() -> None:
    """64 sequences that end between 17 s and 12 minutes: no time before a tenth of them ended, and
    none that is twice what was left."""
    ends = [17 + 11 * k for k in range(64)]
    said = [x for x in timed(ends, 64) if " of 64" in x]
    assert " 1 of 64" in said[0] and not any("left" in x for x in said[:6])
    for line in said[6:]:
        done = int(re.search(r" (\d+) of 64", line)[1])  # type: ignore[index]
        told = re.search(r"(?:(\d+) min )?(\d+) s left", line)
        assert told
        assert int(told[1] or 0) * 60 + int(told[2]) <= 2 * (ends[-1] - ends[done - 1]) + 1


def test_what_ends_at_once_is_one_step() -> None:
    """A third of them in one heap, and another: two waits are no rate; the third step is."""
    ends = [60.0] * 20 + [120.0] * 20 + [180.0] * 5
    said = [x for x in timed(ends, 64) if " of 64" in x]
    assert [("left" in x) for x in said] == [False, False, True]


def test_what_was_kept_from_an_earlier_run_is_not_in_the_rate() -> None:
    """Half of the calls are there: the rate is of what this run makes."""
    said = [x for x in lines([START, *capture("score-1", 200, 4, first=100)], 1.0) if " of " in x]
    assert all(", 4 a second" in line for line in said) and len(said) >= 9


def test_ticks_inside_one_call_move_it_too() -> None:
    """One call of 300 sequences that takes 30 seconds, told by the engine's own ticks."""
    whole = {"call": 0, "of": 1, "sequences": 300, "done": 0, "total": 300}
    ticks = [{"stage": "tick", "done": 5 * k, "of": 150} for k in range(1, 31)]
    said = lines([START, {"stage": "sample", "capture": "rollout-1", **whole}, *ticks], 1.0)
    assert "hf: rolling out rollout-1: 100 of 300 sequences, 10 a second, 20 s left" in said
    assert len(said) <= 5


def test_more_done_than_there_was_to_do_leaves_no_time() -> None:
    """An engine that ticks past its whole: 0 s left, never fewer."""
    said = [x for x in timed([11.0, 22.0, 33.0, 44.0, 55.0], 3) if " of 3 " in x]
    assert " 5 of 3 " in said[-1] and said[-1].endswith(", 0 s left")


def test_a_tick_of_no_known_whole_is_no_line() -> None:
    """An engine that ticks before anything is counted."""
    assert lines([START, {"stage": "encode"}, {"stage": "tick", "done": 1, "of": 0}], 60.0) == [
        "hf: 1 captures to take",
        "hf: encoding prompts",
    ]


def test_measuring_is_silent_in_a_log_unless_it_takes_long() -> None:
    """Pairs of a comparison: nothing below ten seconds, then their number and the rate."""
    events = [{"stage": "compare", "done": k, "total": 40} for k in range(40)]
    events += [{"stage": "attribute"}, {"stage": "report"}]
    assert lines(events, 0.1) == []
    said = lines(events, 4.0)
    assert said[0] == "comparing: 3 of 40 pairs, 0.25 a second"
    assert said[1].startswith("comparing: 6 of 40 pairs, 0.25 a second, 2 min 16 s")


def test_a_terminal_has_a_bar_with_rate_and_time_left() -> None:
    """Bar, count, sequences a second, and the time that remains; gone when it ends."""
    console = Console(file=io.StringIO(), force_terminal=True, width=160)
    clock = Clock()
    with Progress(console, clock) as progress:
        assert progress._bar is not None
        progress._bar.get_time = clock  # type: ignore[method-assign]
        for event in [START, *capture("other", 3, 4), *capture("score-1", 100, 4)][:64]:
            progress.notify(event)
            clock.now += 1.0
        shown = Console(width=160, record=True, file=io.StringIO())
        shown.print(progress._bar.get_renderable())
        text = shown.export_text()
    assert "hf: scoring score-1" in text and "228/400" in text
    assert "3.9 sequences/s" in text and re.search(r"\b4\d s left", text)


def test_foreign_text_is_no_markup_and_no_escape_code() -> None:
    """The name of a condition is shown as it stands."""
    hostile = {"stage": "start", "condition": "[red]x\x1b[31m", "captures": 1}
    said = lines([hostile, {"stage": "load"}], 1.0)
    assert said[1] == "[red]x\\x1b[31m: loading engine and weights"
