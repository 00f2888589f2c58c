"""A key figure: its shape, and the words that say whose it is and of how many examples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kdaudit.reporting.formatting import plural, quoted
from kdaudit.schemas.results import AuditResults


class Reading(NamedTuple):
    """One value of a key figure."""

    of: str
    """Whose it is."""
    value: str
    interval: str
    """Of a listed reading without one: its counts."""
    counts: str
    sentence: str


class KeyFigure(NamedTuple):
    """A card: the leading reading and the others, or the reason why the figure is missing."""

    title: str
    lead: Reading | None
    others: Sequence[Reading]
    absent: str | None


def whose(results: AuditResults, name: str) -> str:
    """Whose a reading is: the student, and how it was distilled where that is known."""
    model = results.models.get(name)
    kd = "" if model is None or model.kd is None else f" ({model.kd} KD)"
    return f"student {quoted(name)}{kd}"


def worst_of(students: int, equals: int, kind: str = "students") -> str:
    """Behind whose the leading reading is: that it is the worst, where there are several to choose from.

    Args:
        students: that have a reading.
        equals: those of them that are as bad, the leading one among them.
        kind: what they are called.

    """
    if students < 2:
        return ""
    if equals == students:
        return f"; the same for all {students} {kind}"
    others = "" if equals == 1 else f" together with {plural(equals - 1, 'other')}"
    return f", the worst of {students} {kind}{others}"


def examples_in(results: AuditResults, number: int) -> str:
    """Counted examples, of which a sample says that it is one."""
    return plural(number, "sampled example" if results.corpus.sampled else "example")


def ninety_five(ends: str) -> str:
    """The ends of an interval, with its level."""
    return f"95% interval {ends}"
