"""Numbers and foreign text as a person reads them: three digits, intervals, harmless characters."""

from __future__ import annotations

import unicodedata

from mismatch.glossary import MIN_SEQUENCES, NOT_TRUSTED
from mismatch.report.pairs import Estimate

#: How a figure of the page shows such an interval.
DOUBTED = f"Hollow, dotted: {NOT_TRUSTED}."

#: Shown wherever there is no evidence. Never 0, never blank.
NONE = "—"


def number(value: float | None, digits: int = 3) -> str:
    """Significant digits; scientific below 0.01, so that 1.35e-3 and 4.00e-4 line up."""
    if value is None:
        return NONE
    size = abs(value)
    if size == 0:
        return "0"
    if size < 0.01 or size >= 1e6:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    whole = size >= 10**digits - 0.5
    return f"{value:,.0f}" if whole else f"{value:#.{digits}g}".rstrip(".")


def interval(found: Estimate, digits: int = 3, unit: str = "") -> str:
    """`[low, high]` and the unit, or a dash; `interval not trusted` behind it where it is not."""
    said = _with_unit(brackets(found, digits), unit)
    return said if found.trusted else f"{said}, {NOT_TRUSTED}"


def _with_unit(said: str, unit: str) -> str:
    return f"{said} {unit}" if unit else said


def brackets(found: Estimate, digits: int = 3) -> str:
    """`[low, high]`, or a dash."""
    if not found.has_interval:
        return NONE
    return f"[{number(found.low, digits)}, {number(found.high, digits)}]"


def percent(value: float | None) -> str:
    """A share, to a tenth of a percent."""
    return NONE if value is None else f"{100 * value:.1f}%"


def percents(found: Estimate) -> str:
    """The interval of a share, in percent."""
    if found.low is None or found.high is None:
        return "no interval"
    said = f"[{100 * found.low:.1f}, {100 * found.high:.1f}]"
    return said if found.trusted else f"{said}, {NOT_TRUSTED}"


def why_no_interval(sequences: int) -> str:
    """The reason beside a value that has no interval."""
    if sequences < MIN_SEQUENCES:
        return f"no interval (fewer than {MIN_SEQUENCES} sequences)"
    return "no interval"


def with_interval(found: Estimate, sequences: int, unit: str = "") -> str:
    """`value [low, high] unit`, or the value, its unit and why there is no interval, or `no
    evidence`."""
    if found.value is None:
        return "no evidence"
    if not found.has_interval:
        return f"{_with_unit(number(found.value), unit)}, {why_no_interval(sequences)}"
    return f"{number(found.value)} {interval(found, unit=unit)}"


def reached(at: Estimate, sequences: int) -> str:
    """A token by which half of the sequences are gone: it, or an end of its interval, may lie
    beyond what was followed; too few sequences have no interval.
    """
    value, low, high = (
        "not reached" if x is None else f"{x:,.0f}" for x in (at.value, at.low, at.high)
    )
    if at.low is not None or at.high is not None:
        return f"{value} [{low}, {high}]"
    return f"{value}, {why_no_interval(sequences)}" if sequences < MIN_SEQUENCES else value


def count(n: int, noun: str) -> str:
    """`1 token`, `5,059 tokens`."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def sample_size(tokens: int, sequences: int) -> str:
    return f"{count(tokens, 'token')} in {count(sequences, 'sequence')}"


#: Control, format (bidi, zero-width), surrogate, private, unassigned, line and paragraph separator.
_INVISIBLE = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def clean(text: str) -> str:
    """One line without control characters: escape codes, bidi overrides are shown, not obeyed."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(_seen(c) for c in text)


def _seen(char: str) -> str:
    if char in "\n\t\r":
        return " "
    return _code(char) if unicodedata.category(char) in _INVISIBLE else char


def token_text(text: str) -> str:
    """A token's text with its white space visible: `·` space, `⏎` newline, `⇥` tab."""
    named = {" ": "·", "\n": "⏎", "\t": "⇥"}
    return "".join(named.get(c) or _token_char(c) for c in text)


def _token_char(char: str) -> str:
    strange = unicodedata.category(char) in _INVISIBLE or char.isspace()
    return _code(char) if strange else char


def _code(char: str) -> str:
    point = ord(char)
    return f"\\x{point:02x}" if point < 256 else f"\\u{point:04x}"
