"""Accepted leaks in results.json: what the gate disregards, and what entries name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt

from kdaudit.schemas.result import Result


class AcceptedEntry(Result):
    """An entry of accepted.yaml."""

    row: PositiveInt
    """Its place in the file, from 1."""
    reason: str
    """Why its leaks are tolerated, in the words of whoever accepted them."""
    until: str
    """The last day on which it holds, ISO 8601."""
    leaks: list[int]
    """Example ids of the leaks that it names."""


class AcceptedResult(Result):
    """What accepted.yaml does to the gate. Every other figure counts accepted leaks as any others."""

    day: str
    """The day (UTC) on which it was judged which entries hold."""
    entries: NonNegativeInt
    matched: NonNegativeInt
    """Entries that hold and name at least one leak."""
    leaks: NonNegativeInt
    """Leaks that such an entry names: the gate disregards them."""
    in_force: Sequence[AcceptedEntry]
    """The matched entries."""
    expired: Sequence[AcceptedEntry]
    """Entries whose last day is over: what they name counts again."""
    unmatched: Sequence[AcceptedEntry]
    """Entries that hold and name no leak."""
    over_broad: list[int]
    """Rows of matched entries that accept a whole document and name many leaks, or one that seems to hold
    personal data or secrets."""

    @property
    def examples(self) -> set[int]:
        """Example ids of the leaks that the gate disregards."""
        return {example for entry in self.in_force for example in entry.leaks}


class PublicAcceptedEntry(AcceptedEntry):
    """An entry as pages for everyone know it: the reason, which may quote anything, is left out."""

    reason: Literal[""] = ""


class PublicAcceptedResult(AcceptedResult):
    """Accepted leaks as pages for everyone know them."""

    in_force: Sequence[PublicAcceptedEntry]
    expired: Sequence[PublicAcceptedEntry]
    unmatched: Sequence[PublicAcceptedEntry]
