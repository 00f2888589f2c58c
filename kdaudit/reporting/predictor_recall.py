"""What the risk predictor would have caught: leaks at or above its threshold, and its guarantee in words.

A leak's risk is told for all of them, those that the predictor learnt from included; what it is worth on
others is what its trials and its guarantee say.
"""

from __future__ import annotations

from typing import NamedTuple

from kdaudit.reporting.formatting import guaranteed, plural, quoted
from kdaudit.schemas.results import AuditResults, Leak

_KINDS = {
    "easy_core": "what teacher and baseline both memorize",
    "teacher": "what the teacher memorizes",
}
_SILENT_ON = {
    "student": "Another student may memorize other examples.",
    "easy_core": "It does not cover what a student inherits from the teacher alone.",
    "teacher": "It covers what a student may inherit, but not what only a student or a baseline memorizes.",
}


class Caught(NamedTuple):
    """Leaks of one kind, and how many of them are flagged."""

    of: str
    leaks: int
    flagged: int
    student: str | None = None
    """Whose leaks they are, where they are one student's."""

    @property
    def share(self) -> float | None:
        """Flagged over leaks; None without leaks."""
        return self.flagged / self.leaks if self.leaks else None


class Guarantee(NamedTuple):
    """The predictor's guarantee in words."""

    short: str
    sentence: str


def caught(results: AuditResults) -> list[Caught]:
    """All leaks, the inherited ones, then each student's; empty where risk or threshold are not to be had."""
    leaks, threshold = results.leaks, results.predictor.threshold
    if (
        threshold is None
        or results.predictor.flagged is None
        or not leaks
        or any(leak.risk is None for leak in leaks)
    ):
        return []
    inherited = [leak for leak in leaks if "inherited" in leak.classes.values()]
    kinds: list[tuple[str, list[Leak], str | None]] = [
        ("All students", leaks, None),
        ("Inherited from the teacher", inherited, None),
    ]
    kinds += [
        (f"Student {quoted(name)}", [leak for leak in leaks if name in leak.classes], name)
        for name in results.comparison
    ]
    return [Caught(words, len(some), _flagged(some, threshold), student) for words, some, student in kinds]


def _flagged(leaks: list[Leak], threshold: float) -> int:
    return sum(leak.risk is not None and leak.risk >= threshold for leak in leaks)


def kind_predicted(results: AuditResults) -> str:
    """What counts as a positive."""
    predictor = results.predictor
    if predictor.labels == "student":
        student = predictor.student  # which a run of an older version does not name
        return f"what {'the student that it learnt from' if student is None else quoted(student)} memorizes"
    return _KINDS.get(predictor.labels or "", "what another audit named")


def guarantee_of(results: AuditResults) -> Guarantee:
    """What is guaranteed, how sure that is, and what is not."""
    predictor = results.predictor
    promise, kind = predictor.promise, kind_predicted(results)
    if promise is None:
        return Guarantee("not available", "None: too few memorized examples were left to test one on.")
    recall, confidence = guaranteed(promise.recall), guaranteed(promise.confidence)
    tested = plural(promise.calibration_positives, "memorized text")
    return Guarantee(
        f"{confidence} confident: at least {recall} of {kind}",
        f"With {confidence} confidence, at least {recall} of {kind} is flagged, in text of the same kind as "
        f"this corpus. That rests on {tested} that the predictor did not learn from. "
        f"{_SILENT_ON.get(predictor.labels or '', '')}".rstrip(),
    )
