"""Numbers for readers: plain decimals, few digits, one unit.

A missing figure (None) becomes the words "not available"; it never becomes 0. Rounding never turns a share
below 1 into "100%", and the two ends of an interval get enough digits to differ.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from kdaudit.schemas.result import Interval

ABSENT = "not available"
_NOT_BOUNDED = "not bounded"
NBSP = "\N{NO-BREAK SPACE}"
MINUS = "\N{MINUS SIGN}"
_MOST_DIGITS = 7
_CLOSING_ZEROS = re.compile(r"\.0+(?=\D*$)|(\.\d*?)0+(?=\D*$)")

Formatter = Callable[[float, int], str]


def count(value: int | None) -> str:
    """A count with commas between thousands."""
    return ABSENT if value is None else f"{value:,}"


def significant(value: float, digits: int) -> str:
    """A plain decimal with `digits` significant digits and commas in thousands.

    Trailing zeros stay if they are digits of a rounded value (0.40), and go if the value is
    exact (a limit of 0.1 is not 0.10).
    """
    if value == 0:
        return "0"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{abs(value):,.{decimals}f}"
    if "." in text and math.isclose(round(value, decimals), value, rel_tol=1e-9):
        text = text.rstrip("0").rstrip(".")
    return f"{MINUS}{text}" if value < 0 else text


def percent(share: float | None, digits: int = 2) -> str:
    """A share (0 to 1) in percent: 2 significant digits, from 10% on 3."""
    if share is None:
        return ABSENT
    return f"{_percent_number(share, digits)}%"


def _percent_number(share: float, digits: int) -> str:
    value = share * 100
    text = significant(value, digits + 1 if abs(value) >= 10 else digits)
    rest = 100 - value
    if text in ("100", "100.0") and rest > 1e-9:
        text = f"{value:.{min(12, 1 - math.floor(math.log10(rest)))}f}".rstrip("0")
    return text


def points(difference: float | None, digits: int = 2) -> str:
    """A difference of shares, signed, in percentage points."""
    if difference is None:
        return ABSENT
    sign = "+" if difference > 0 else ""
    return f"{sign}{significant(difference * 100, digits)}{NBSP}points"


def times(ratio: float | None, digits: int = 2) -> str:
    """A ratio with a times sign, as in 0.41 times; a digit more near 1, where it matters most."""
    if ratio is None:
        return ABSENT
    shown = significant(ratio, digits + (1 <= ratio < 1.2))
    return f"{shown}\N{MULTIPLICATION SIGN}"


def score(value: float | None, digits: int = 3) -> str:
    """A figure between 0 and 1: three decimals, four from 0.999 on."""
    if value is None:
        return ABSENT
    if 0.99995 <= value < 1:
        return "above 0.9999"
    return f"{value:.{max(digits, 4) if 0.999 <= value < 1 else digits}f}"


def score_difference(value: float | None, digits: int = 3) -> str:
    """A difference of two such figures, signed: three decimals."""
    if value is None:
        return ABSENT
    text = f"{abs(value):.{max(digits, 3)}f}"
    return text if not float(text) else f"{'+' if value > 0 else MINUS}{text}"


def risk(value: float) -> str:
    """A predicted risk: three digits, to compare with the threshold; a small risk is never 0."""
    if 0 < value < 0.001:
        return "below 0.001"
    return significant(value, 3) if 0 < value < 0.1 else score(value)


def bits(value: float, digits: int = 2) -> str:
    """An exposure: one decimal, as much as any number of controls tells."""
    return f"{value:.{max(1, digits - 1)}f}"


def p_value(value: float | None) -> str:
    """`p < 0.001`, or p with two significant digits."""
    if value is None:
        return ABSENT
    return "p < 0.001" if value < 0.001 else f"p = {significant(value, 2)}"


def interval(ends: Interval | None, form: Formatter) -> str:
    """An interval in words: `a to b`; an open end gives `at least a` or `at most b`.

    A figure that has an open upper end cannot be below 0, so that `at least 0` would say nothing.
    """
    if ends is None or ends == (None, None):
        return ABSENT
    low, high = ends
    if high is None:
        assert low is not None  # noqa: S101 - both open was handled above
        return f"at least {form(low, 2)}" if low else _NOT_BOUNDED
    if low is None:
        return f"at most {form(high, 2)}"
    first, last = apart(low, high, form)
    return f"{first} to {last}"


def apart(one: float, other: float, form: Formatter) -> tuple[str, str]:
    """Both numbers with as few digits as distinguish them; equal numbers read the same."""
    digits = 2
    while digits < _MOST_DIGITS and one != other and _bare(form(one, digits)) == _bare(form(other, digits)):
        digits += 1
    return form(one, digits), form(other, digits)


def _bare(text: str) -> str:
    """Without trailing zeros: 0.10% reads as the same number as 0.1%."""
    return _CLOSING_ZEROS.sub(r"\1", text)


def wider(ends: Interval | None, by_document: Interval | None) -> Interval | None:
    """The wider of two intervals of one figure, by window and by document; of equal ones the second."""
    if ends is None or by_document is None:
        return by_document if ends is None else ends
    return by_document if _width(by_document) >= _width(ends) else ends


def excludes_zero(ends: Interval | None, by_document: Interval | None) -> bool:
    """Whether the wider of two intervals of a difference leaves out 0: none of them is none."""
    low, high = wider(ends, by_document) or (None, None)
    return (low is not None and low > 0) or (high is not None and high < 0)


def _width(ends: Interval) -> float:
    low, high = ends
    return math.inf if low is None or high is None else high - low


def wider_interval(ends: Interval | None, by_document: Interval | None, form: Formatter) -> str:
    """The wider of both in words; it says so where that is the one by document."""
    chosen = wider(ends, by_document)
    if chosen is None or chosen is not by_document:
        return interval(chosen, form)
    bounds = _NOT_BOUNDED if chosen == (None, None) else interval(chosen, form)
    return f"{bounds}, by document"


def percent_interval(ends: Interval | None, by_document: Interval | None = None) -> str:
    """An interval of shares, in percent: the wider one, where there is one by document too."""
    return wider_interval(ends, by_document, percent)


def times_interval(ends: Interval | None, by_document: Interval | None = None) -> str:
    """An interval of ratios, as `percent_interval`."""
    return wider_interval(ends, by_document, times)


def points_interval(ends: Interval | None, by_document: Interval | None = None) -> str:
    """An interval of differences in percentage points, as `percent_interval`."""
    return wider_interval(ends, by_document, points)


def score_interval(ends: Interval | None) -> str:
    """An interval of figures between 0 and 1, such as AUCs: three decimals."""
    return interval(ends, lambda value, digits: score(value, max(digits, 3)))


def difference_interval(ends: Interval | None) -> str:
    """An interval of differences of such figures."""
    return interval(ends, score_difference)


def listed(words: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}" if words else ""


def capitalized(sentence: str) -> str:
    """The same with a capital first letter."""
    return sentence[0].upper() + sentence[1:]


def quoted(name: str) -> str:
    """A name in quotation marks: it may be any word."""
    return f"\N{LEFT DOUBLE QUOTATION MARK}{name}\N{RIGHT DOUBLE QUOTATION MARK}"


def be(number: int) -> str:
    """The verb for so many: is, are."""
    return "is" if number == 1 else "are"


def plural(number: int, one: str, many: str | None = None) -> str:
    """A counted noun: `1 example`, `2 examples`."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"
