"""Counts over all leaks, taken one leak at a time."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from kdaudit.analysis.personal_data import TAGS
from kdaudit.schemas.leak_counts import LeakCounts, LeakGroup, TagCount
from kdaudit.schemas.results import AuditResults, Leak

_OTHER = "other"
"""For tags that are not ours."""


@dataclass
class _Group:
    leaks: int = 0
    flagged: int = 0
    inherited: int = 0
    inherited_flagged: int = 0

    def add(self, *, flagged: bool, inherited: bool) -> None:
        self.leaks += 1
        self.flagged += flagged
        self.inherited += inherited
        self.inherited_flagged += flagged and inherited

    def counts(self, *, known: bool) -> LeakGroup:
        return LeakGroup(
            leaks=self.leaks,
            flagged=self.flagged if known else None,
            inherited=self.inherited,
            inherited_flagged=self.inherited_flagged if known else None,
        )


class LeakCounter:
    """Takes leaks one by one.

    Args:
        students: names of all students.
        threshold: the risk from which on an example is flagged; None without a predictor.

    """

    def __init__(self, students: Iterable[str], threshold: float | None) -> None:
        self._threshold = inf if threshold is None else threshold
        self._known = threshold is not None
        self._all, self._tagged = _Group(), 0
        self._of_student = {name: _Group() for name in students}
        self._of_tag: dict[str, _Group] = {}

    def add(self, leak: Leak) -> None:
        """Count a leak."""
        self._known &= leak.risk is not None
        flagged = leak.risk is not None and leak.risk >= self._threshold
        inherited = "inherited" in leak.classes.values()
        self._all.add(flagged=flagged, inherited=inherited)
        for student, kind in leak.classes.items():
            if student in self._of_student:
                self._of_student[student].add(flagged=flagged, inherited=kind == "inherited")
        self._tagged += bool(leak.tags)
        for tag in {tag if tag in TAGS else _OTHER for tag in leak.tags}:
            self._of_tag.setdefault(tag, _Group()).add(flagged=flagged, inherited=inherited)

    def counts(self) -> LeakCounts:
        """The counts so far."""
        return LeakCounts(
            **dict(self._all.counts(known=self._known)),
            tagged=self._tagged,
            tags={
                tag: TagCount(leaks=group.leaks, inherited=group.inherited)
                for tag, group in sorted(self._of_tag.items())
            },
            students={name: group.counts(known=self._known) for name, group in self._of_student.items()},
        )


def leak_counts_of(results: AuditResults) -> LeakCounts:
    """The counts of an audit's leaks; results of earlier versions, which list all leaks, are counted here."""
    if results.leak_counts is not None:
        return results.leak_counts
    counter = LeakCounter(results.comparison, results.predictor.threshold)
    for leak in results.leaks:
        counter.add(leak)
    return counter.counts()
