"""Which student a model card is about, and the part of the results that concerns it.

A model card is about one model: it must not show another student's failed check, nor hide this student's
failed check behind another's success.
"""

from __future__ import annotations

from kdaudit.analysis.leak_counts import leak_counts_of
from kdaudit.errors import UsageError
from kdaudit.reporting.formatting import listed
from kdaudit.schemas.leak_counts import PublicLeakCounts
from kdaudit.schemas.result import Verdict
from kdaudit.schemas.results import AuditResults, Check, GateResult, LeakSuffixes, PublicResults

_BEST_FIRST: tuple[Verdict, ...] = ("none", "pass", "inconclusive", "fail")


def chosen_student(results: AuditResults, name: str | None) -> str:
    """The student that was asked for, or the only one.

    Raises:
        UsageError: there is none of that name, or several to choose from.

    """
    students = [key for key, model in results.models.items() if model.role == "student"]
    if name is None and len(students) == 1:
        return students[0]
    if name in students:
        return name
    there = f"has the student{'s' if len(students) > 1 else ''} {listed(students)}"
    if not students:
        there = "has no student"
    if name is None:
        raise UsageError(
            f"the audit {results.name} {there}", fix="name the one whose card this is", where="--student"
        )
    raise UsageError(
        f"{name} is not in the audit {results.name}, which {there}", fix="name one of them", where="--student"
    )


def about(results: PublicResults, student: str) -> PublicResults:
    """The results with this student alone, beside teacher and baselines, and its own verdict."""
    checks = [check for check in results.gate.checks if check.student == student]
    return results.model_copy(
        update={
            "models": {
                name: model
                for name, model in results.models.items()
                if model.role != "student" or name == student
            },
            "comparison": {name: one for name, one in results.comparison.items() if name == student},
            "soft_vs_hard": None,
            "gate": GateResult(verdict=_worst(checks), checks=checks),
            "leaks": [leak for leak in results.leaks if student in leak.memorized_by],
            "leak_counts": _counts(results, student),
            "leak_suffixes": _suffixes(results, student),
        }
    )


def _counts(results: AuditResults, student: str) -> PublicLeakCounts:
    own = leak_counts_of(results).students[student]
    return PublicLeakCounts(**dict(own), students={student: own})


def _suffixes(results: AuditResults, student: str) -> LeakSuffixes | None:
    if results.leak_suffixes is None:
        return None
    own = results.leak_suffixes.students[student]
    return LeakSuffixes(leaks=own, students={student: own})


def _worst(checks: list[Check]) -> Verdict:
    verdicts: list[Verdict] = ["none", *(check.verdict for check in checks)]
    return max(verdicts, key=_BEST_FIRST.index)
