"""What the risk predictor would have caught: leaks at or above its threshold, and its guarantee in words.

All leaks count here, also those that the predictor was fitted on. How well it does on other examples is what
its trials and its recall guarantee say.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from kdaudit.reporting.formatting import quoted
from kdaudit.risk import guarantee_clause, guarantee_words, memorized_by
from kdaudit.schemas.results import AuditResults, Leak


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
    leaks, threshold = results.leaks, results.predictor.threshold
    if (
        threshold is None
        or results.predictor.flagged is None
        or not leaks
        or any(leak.risk is None for leak in leaks)
    ):
        return []
    inherited = [leak for leak in leaks if "inherited" in leak.classes.values()]
    kinds: list[tuple[str, Sequence[Leak], str | None]] = [
        ("All students", leaks, None),
        ("Inherited from the teacher", inherited, None),
    ]
    kinds += [
        (f"Student {quoted(name)}", [leak for leak in leaks if name in leak.classes], name)
        for name in results.comparison
    ]
    return [Caught(words, len(some), _flagged(some, threshold), student) for words, some, student in kinds]


def _flagged(leaks: Sequence[Leak], threshold: float) -> int:
    return sum(leak.risk is not None and leak.risk >= threshold for leak in leaks)


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
