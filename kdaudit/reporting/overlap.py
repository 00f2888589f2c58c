"""Who memorizes the same examples: each combination of teacher, baseline and a student, counted.

Without a teacher these are combinations of baseline and student.

All numbers follow from the counts in results.json; a combination that they do not determine (with
several baselines, what these memorize together) is None.
"""

from __future__ import annotations

from typing import NamedTuple

from kdaudit.reporting.missing_reasons import has_teacher
from kdaudit.schemas.comparison import ComparisonResult
from kdaudit.schemas.results import AuditResults

_Combination = tuple[bool | None, bool, bool, str, str]
"""Teacher, baseline and student, name and meaning."""


class Region(NamedTuple):
    """One combination, counted for each student."""

    teacher: bool | None
    """None where the teacher was not audited."""
    baseline: bool
    student: bool
    name: str
    meaning: str
    counts: dict[str, int | None]


class Inheritance(NamedTuple):
    """Teacher-specific examples by which of the two students inherit them."""

    soft_only: int
    both: int
    hard_only: int
    neither: int | None

    @property
    def inherited(self) -> int:
        """By either student."""
        return self.soft_only + self.both + self.hard_only


_REGIONS: list[_Combination] = [
    (True, True, True, "Easy core", "teacher, baseline and student memorize it"),
    (True, False, True, "Inherited", "teacher and student memorize it, the baseline does not"),
    (False, True, True, "With baseline", "baseline and student memorize it, the teacher does not"),
    (False, False, True, "Student only", "neither teacher nor baseline memorizes it"),
    (True, True, False, "Left behind", "teacher and baseline memorize it, the student does not"),
    (True, False, False, "Teacher only", "only the teacher memorizes it: not passed on"),
    (False, True, False, "Baseline only", "only the baseline memorizes it"),
]

_WITHOUT_TEACHER: list[_Combination] = [
    (None, True, True, "Shared with the baseline", "baseline and student memorize it"),
    (None, False, True, "Not the baseline", "the student memorizes it, the baseline does not"),
    (None, True, False, "Baseline only", "the baseline memorizes it, the student does not"),
]


def regions(results: AuditResults) -> list[Region]:
    """The seven combinations, without a teacher three; none without a baseline."""
    chosen = _REGIONS if has_teacher(results) else _WITHOUT_TEACHER
    counted = {name: _counts(results, name, figures) for name, figures in results.comparison.items()}
    if all(count is None for counts in counted.values() for count in counts.values()):
        return []
    return [
        Region(*region, {name: counts[region[:3]] for name, counts in counted.items()}) for region in chosen
    ]


def _counts(
    results: AuditResults, name: str, figures: ComparisonResult
) -> dict[tuple[bool | None, ...], int | None]:
    teachers = [model.memorized for model in results.models.values() if model.role == "teacher"]
    baselines = [model.memorized for model in results.models.values() if model.role == "baseline"]
    teacher = teachers[0] if len(teachers) == 1 else None
    baseline = baselines[0] if len(baselines) == 1 else None
    shared = _minus(teacher, figures.teacher_specific)
    student = results.models[name].memorized if name in results.models else None
    return {
        (None, True, True): figures.shared_with_baseline,
        (None, False, True): _minus(student, figures.shared_with_baseline),
        (None, True, False): _minus(baseline, figures.shared_with_baseline),
        (True, True, True): figures.easy_core,
        (True, False, True): figures.inherited,
        (False, True, True): figures.with_baseline,
        (False, False, True): figures.student_only,
        (True, True, False): _minus(shared, figures.easy_core),
        (True, False, False): _minus(figures.teacher_specific, figures.inherited),
        (False, True, False): _minus(_minus(baseline, shared), figures.with_baseline),
    }


def _minus(whole: int | None, part: int | None) -> int | None:
    return None if whole is None or part is None or part > whole else whole - part


def inheritance(results: AuditResults) -> Inheritance | None:
    """Soft against hard in counts; None where they are not compared."""
    pair = results.soft_vs_hard
    if pair is None:
        return None
    figures = results.comparison.get(pair.hard)
    specific = None if figures is None else figures.teacher_specific
    found = Inheritance(pair.soft_only, pair.both, pair.hard_only, None)
    return found._replace(neither=_minus(specific, found.inherited))
