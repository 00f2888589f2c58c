"""What the risk predictor would have caught: leaks at or above its threshold, and its guarantee in words.

All leaks count here, also those that the predictor was fitted on. How well it does on other examples is what
its trials and its recall guarantee say.
"""

from __future__ import annotations

from typing import NamedTuple

from kdaudit.analysis.leak_counts import leak_counts_of
from kdaudit.reporting.formatting import quoted
from kdaudit.risk import guarantee_clause, guarantee_words, memorized_by
from kdaudit.schemas.results import AuditResults


class Caught(NamedTuple):
    """Leaks of one kind, and how many of them are flagged."""

    of: str
    leaks: int
    flagged: int
    student: str | None = None
    """Whose leaks they are, if they are one student's."""

    @property
    def share(self) -> float | None:
        """Flagged over leaks; None without leaks."""
        return self.flagged / self.leaks if self.leaks else None


class Guarantee(NamedTuple):
    """The recall guarantee in words."""

    clause: str
    sentences: str


def caught(results: AuditResults) -> list[Caught]:
    """All leaks, the inherited ones, then each student's; empty if a risk or the threshold is missing."""
    found = leak_counts_of(results)
    if results.predictor.flagged is None or found.flagged is None or not found.leaks:
        return []
    students = ((name, found.students[name]) for name in results.comparison)
    return [
        Caught("All students", found.leaks, found.flagged),
        Caught("Inherited from the teacher", found.inherited, found.inherited_flagged or 0),
        *(Caught(f"Student {quoted(name)}", one.leaks, one.flagged or 0, name) for name, one in students),
    ]


def kind_predicted(results: AuditResults) -> str:
    """The prediction target in words: what counts as a positive."""
    return f"what {memorized_by(results.predictor.labels, results.predictor.student)}"


def guarantee_of(results: AuditResults) -> Guarantee:
    """The recall guarantee of the results' predictor, or why there is none."""
    predictor = results.predictor
    if predictor.promise is None:
        return Guarantee("not available", "None: too few examples are memorized to base one on.")
    named = (predictor.promise, predictor.labels, predictor.student)
    return Guarantee(guarantee_clause(*named), guarantee_words(*named))
