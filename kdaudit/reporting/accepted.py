"""Accepted leaks as the pages and the terminal show them: nothing accepted vanishes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from kdaudit.analysis.leak_counts import leak_counts_of
from kdaudit.reporting.formatting import be, count, plural
from kdaudit.reporting.shown_text import Cut, show_head
from kdaudit.schemas.accepted import AcceptedEntry, AcceptedResult
from kdaudit.schemas.results import AuditResults

_LONGEST = 500
_SHOWN = 50
"""Example numbers that one entry shows."""


class EntryRow(NamedTuple):
    """An entry of accepted.yaml."""

    row: int
    state: str
    until: str
    leaks: str
    reason: Cut | None
    """None on the public page."""


class AcceptedPart(NamedTuple):
    """The section of accepted leaks."""

    lead: str
    rows: list[EntryRow]
    has_reasons: bool


def accepted_part(results: AuditResults, *, public: bool) -> AcceptedPart | None:
    """The section; None where the gate names no accepted leaks."""
    found = results.accepted
    if found is None:
        return None
    return AcceptedPart(accepted_lead(results) or "", [*_rows(found, public=public)], not public)


def accepted_lead(results: AuditResults) -> str | None:
    """What the gate disregards, in a sentence; None where it names no accepted leaks."""
    found = results.accepted
    if found is None:
        return None
    return (
        f"{count(found.leaks)} of {plural(leak_counts_of(results).leaks, 'leak')} {be(found.leaks)} accepted "
        f"on {found.day}. Counts, rates and the list of leaks include them; the gate alone disregards them."
    )


def _rows(found: AcceptedResult, *, public: bool) -> Iterator[EntryRow]:
    states = {
        "accepted": found.in_force,
        "expired: counts again": found.expired,
        "names no leak": found.unmatched,
    }
    for state, entries in states.items():
        for entry in entries:
            broad = "accepted, over-broad" if entry.row in found.over_broad else state
            reason = None if public else show_head(entry.reason, _LONGEST)
            yield EntryRow(entry.row, broad, entry.until, _leaks(entry), reason)


def _leaks(entry: AcceptedEntry) -> str:
    shown = ", ".join(map(str, entry.leaks[:_SHOWN]))
    more = len(entry.leaks) - _SHOWN
    return f"{shown} and {count(more)} more" if more > 0 else shown
