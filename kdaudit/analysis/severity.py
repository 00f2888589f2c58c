"""The order in which leaks are looked at: the worst first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from kdaudit.runs.layout import is_baseline
from kdaudit.schemas.compared import LeakChange
from kdaudit.schemas.results import Leak

_T = TypeVar("_T")
_SLACK = 1024

Severity = tuple[bool, bool, bool, float, int, int]


def severity(leak: Leak) -> Severity:
    """Sorts leaks, the worst first.

    What seems to hold personal data or secrets, then what is inherited, or may be. Within these by descending
    risk (unknown last), then by descending copies.
    """
    return (
        not leak.tags,
        not _stands_out(leak),
        leak.risk is None,
        -(leak.risk or 0.0),
        -leak.copies,
        leak.example_id,
    )


def _stands_out(leak: Leak) -> bool:
    """Whether it is inherited, or may be: its class is unknown and no baseline memorizes it."""
    classes = leak.classes.values()
    by_baseline = any(map(is_baseline, leak.memorized_by))
    return "inherited" in classes or ("unknown" in classes and not by_baseline)


def worst_first(leaks: Sequence[Leak]) -> list[Leak]:
    """The leaks by `severity`."""
    return sorted(leaks, key=severity)


def change_severity(leak: LeakChange) -> tuple[bool, bool, bool, float]:
    """Sorts leaks of one kind in a comparison, those to look at first."""
    return (leak.accepted, not leak.tags, leak.kind != "inherited", -(leak.risk or 0.0))


class Worst(Generic[_T]):
    """Keeps the worst of many leaks.

    Args:
        limit: how many.
        key: what they are sorted by; of equal ones the first is kept.

    """

    def __init__(self, limit: int, key: Callable[[_T], Any]) -> None:
        self._limit, self._key = limit, key
        self._kept: list[_T] = []

    def add(self, leak: _T) -> None:
        """Take in a leak."""
        self._kept.append(leak)
        if len(self._kept) >= 2 * self._limit + _SLACK:
            self._kept = self.kept()

    def kept(self) -> list[_T]:
        """The worst so far, in their order."""
        return sorted(self._kept, key=self._key)[: self._limit]
