"""What a student inherits from its teacher: set logic on the examples that each model memorizes.

Without a teacher a student is set against the baselines alone: ratio and difference are known, and what it
inherits is not.

All arrays stand for the same examples in the same order: bool (examples,), one per model. With several
baselines, an example is teacher-specific when the teacher memorizes it and none of them does, and in
the easy core when the teacher and any of them do; ratio and difference are to their mean rate, and what
chance would give is known (`excess`).

A figure that is undefined (no baseline, nothing to divide by) is None, never 0, and a note says why.
Memory stays within a few arrays of the examples' length.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from kdaudit.analysis.by_document import Documents
from kdaudit.analysis.excess import (
    NO_EXCESS,
    Baseline,
    excess_at_own_rate,
    excess_difference,
    excess_over_chance,
)
from kdaudit.analysis.inheritance_notes import (
    NOT_COMPARED,
    comparison_notes,
    pair_note,
    soft_vs_hard_notes,
    student_note,
)
from kdaudit.analysis.intervals import (
    Flags,
    PairedTable,
    bonett_price_ratio,
    clopper_pearson,
    mcnemar_exact,
    newcombe_paired_difference,
)
from kdaudit.schemas.comparison import ComparisonResult, SoftVsHard
from kdaudit.schemas.notes import Note
from kdaudit.schemas.result import Interval, LeakClass

Figures = TypeVar("Figures")


class Noted(NamedTuple, Generic[Figures]):
    """Figures, and for `results.notes` a note for each that is not available."""

    figures: Figures
    notes: list[Note]


class Classes(NamedTuple):
    """The class of each example that a student memorizes."""

    examples: NDArray[np.intp]
    """Positions of these examples, ascending: (memorized,)."""
    classes: list[LeakClass]
    """The class of each, in the same order."""


class Family(NamedTuple):
    """The models that a student is set against, and the documents of their examples."""

    teacher: Flags | None
    """None where it was not audited."""
    baselines: Sequence[Baseline]
    documents: Documents

    @property
    def models(self) -> list[Flags]:
        """What each of them memorizes."""
        return [*([] if self.teacher is None else [self.teacher]), *self.flags]

    @property
    def flags(self) -> list[Flags]:
        """Which examples each baseline memorizes."""
        return [one.memorized for one in self.baselines]

    @property
    def by_all(self) -> Flags:
        """Which examples every baseline memorizes, there being one: bool (examples,)."""
        return reduce(np.logical_and, self.flags)

    @property
    def by_any(self) -> Flags:
        """Which examples any baseline memorizes, there being one: bool (examples,)."""
        return reduce(np.logical_or, self.flags)


class _Contrast(NamedTuple):
    """A comparison of two models' rates, with names as in `SoftVsHard`."""

    ratio: float | None = None
    ratio_ci95: Interval | None = None
    ratio_ci95_by_document: Interval | None = None
    difference: float | None = None
    difference_ci95: Interval | None = None
    difference_ci95_by_document: Interval | None = None
    mcnemar_p: float | None = None


def compare_student(name: str, student: Flags, family: Family) -> Noted[ComparisonResult]:
    """Compare the student `name` with its teacher and the baselines.

    Rates are shares of all examples. Without baselines every figure is None. Against several, ratio and
    difference have intervals by document alone, and the McNemar test is None: a mean of several outcomes is
    not a paired proportion. Where no baseline memorizes anything the ratio is None, and its interval is open
    above.

    Raises:
        ValueError: the arrays are not bool of one length.
    """
    _require_same_examples(student, *family.models)
    if not family.baselines:
        text = "without a baseline, inherited examples cannot be distinguished from the easy core."
        if family.teacher is None:
            text = "without teacher and baseline, there is nothing to compare it with."
        return Noted(ComparisonResult(**_nothing()), [student_note("no_baseline", name, text)])
    contrast = _contrast_to_baselines(student, family)
    figures = {
        "ratio_to_baseline": contrast.ratio,
        "ratio_ci95": contrast.ratio_ci95,
        "ratio_ci95_by_document": contrast.ratio_ci95_by_document,
        "difference": contrast.difference,
        "difference_ci95": contrast.difference_ci95,
        "difference_ci95_by_document": contrast.difference_ci95_by_document,
        "mcnemar_p": contrast.mcnemar_p,
        "shared_with_baseline": int(np.count_nonzero(student & family.by_any)),
    }
    if family.teacher is not None:
        figures |= _against_teacher(student, family.teacher, family)
    result = ComparisonResult(**{**_nothing(), **figures})
    return Noted(
        result, comparison_notes(name, result, len(family.baselines), teacher=family.teacher is not None)
    )


def _nothing() -> dict[str, Any]:
    """The fields that a `ComparisonResult` must have, none of them known."""
    return dict.fromkeys(key for key, field in ComparisonResult.model_fields.items() if field.is_required())


def _against_teacher(student: Flags, teacher: Flags, family: Family) -> dict[str, Any]:
    """The fields of a `ComparisonResult` that say what a student has in common with its teacher."""
    baseline = family.by_any
    memorized = int(np.count_nonzero(student))
    others = PairedTable.of(baseline[student], teacher[student])
    missed = teacher & ~baseline
    specific = PairedTable.of(student, missed)
    by_document = family.documents.within(missed).rate(student[missed]) if specific.second else None
    return {
        "easy_core": others.both,
        "share_in_easy_core": _share(others.both, memorized),
        "teacher_specific": specific.second,
        "inherited": specific.both,
        "inheritance_rate": _share(specific.both, specific.second),
        "inheritance_ci95": clopper_pearson(specific.both, specific.second) if specific.second else None,
        "inheritance_ci95_by_document": by_document,
        **_against_chance(student, teacher, family),
        "with_baseline": others.first_only,
        "student_only": others.neither,
    }


def _against_chance(student: Flags, teacher: Flags, family: Family) -> dict[str, Any]:
    """The fields of a `ComparisonResult` that say what chance gives."""
    if len(family.baselines) == 1:
        specific, nearly = teacher & ~family.by_any, family.baselines[0].nearly
        return {"near_misses": None if nearly is None else int(np.count_nonzero(specific & nearly))}
    found = excess_over_chance(student, teacher, family.flags, family.documents)
    cut = excess_at_own_rate(student, teacher, family.baselines, family.documents)
    return {
        "reference_inheritance": found.rate,
        "reference_examples": int(np.count_nonzero(teacher & ~family.by_all)),
        "inheritance_floor": found.floor,
        "excess_inheritance": found.difference,
        "excess_ci95": found.difference_ci95,
        "ratio_to_floor": found.ratio,
        "ratio_to_floor_ci95": found.ratio_ci95,
        "floor_at_own_rate": cut.floor,
        "excess_at_own_rate": cut.difference,
        "excess_at_own_rate_ci95": cut.difference_ci95,
    }


def soft_vs_hard(
    soft_name: str, hard_name: str, soft: Flags, hard: Flags, family: Family
) -> Noted[SoftVsHard | None]:
    """Compare what the hard student inherits with what the soft one inherits.

    Rates, ratio (hard over soft) and difference (hard minus soft) are over the teacher-specific
    examples; `share_of_hard_in_soft` is over all that the hard student memorizes. None without
    baselines or teacher.

    Raises:
        ValueError: the arrays are not bool of one length.
    """
    _require_same_examples(soft, hard, *family.models)
    pair, teacher = f"Students {soft_name} and {hard_name}", family.teacher
    if teacher is None:
        return Noted(None, [pair_note("no_teacher", f"{pair}: {NOT_COMPARED} without the teacher.")])
    if not family.baselines:
        return Noted(None, [pair_note("no_baseline", f"{pair}: {NOT_COMPARED} without a baseline.")])
    specific = teacher & ~family.by_any
    excess = NO_EXCESS
    if len(family.baselines) > 1:
        excess = excess_difference(hard, soft, teacher, family.flags, family.documents)
    table = PairedTable.of(hard[specific], soft[specific])
    everywhere = PairedTable.of(hard, soft)
    result = SoftVsHard(
        soft=soft_name,
        hard=hard_name,
        both=table.both,
        soft_only=table.second_only,
        hard_only=table.first_only,
        share_of_hard_in_soft=_share(everywhere.both, everywhere.first),
        excess_difference=excess.difference,
        excess_difference_ci95=excess.difference_ci95,
        **_contrast(hard[specific], soft[specific], family.documents.within(specific))._asdict(),
    )
    return Noted(result, soft_vs_hard_notes(result))


def classes(student: Flags, teacher: Flags | None, baselines: Sequence[Flags]) -> Classes:
    """Class each example that the student memorizes by who else does; `unknown` without teacher or baselines.

    Raises:
        ValueError: the arrays are not bool of one length.
    """
    _require_same_examples(student, *([] if teacher is None else [teacher]), *baselines)
    examples = np.flatnonzero(student)
    if teacher is None or not baselines:
        return Classes(examples, ["unknown"] * len(examples))
    by_teacher = teacher[examples]
    by_baseline = reduce(np.logical_or, [baseline[examples] for baseline in baselines])
    names: tuple[LeakClass, ...] = ("student_only", "with_baseline", "inherited", "easy_core")
    return Classes(examples, [names[code] for code in (2 * by_teacher + by_baseline).tolist()])


def survival(matched: NDArray[np.int16], lengths: NDArray[np.int64]) -> list[float]:
    """Share with at least k matched tokens of the examples whose target has k, k = 0 to the longest.

    Args:
        matched: int16 (examples,), each 0 to its target's length; at least one example.
        lengths: tokens of each target: int64 (examples,).

    Raises:
        ValueError: there is no example, or a count outside 0 to its target's length.
    """
    if not matched.size or (matched < 0).any() or (matched > lengths).any():
        raise ValueError("matched tokens must be 0 to the target's length, of at least one example")
    return [float(share) for share in _at_least(matched, lengths) / _at_least(lengths, lengths)]


def _at_least(counts: NDArray[np.integer[Any]], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """How many counts are at least k, k = 0 to the longest target."""
    found: NDArray[np.int64] = np.bincount(counts, minlength=int(lengths.max()) + 1)[::-1].cumsum()[::-1]
    return found


def _require_same_examples(*models: Flags) -> None:
    if any(model.dtype != np.bool_ or model.shape != models[0].shape or model.ndim != 1 for model in models):
        raise ValueError("which examples each model memorizes must be bool arrays of one length")


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _contrast(first: Flags, second: Flags, documents: Documents) -> _Contrast:
    """Contrast two models, first over (or minus) second; all None without examples."""
    table = PairedTable.of(first, second)
    if not table.total:
        return _Contrast()
    return _Contrast(
        _share(table.first, table.second),
        bonett_price_ratio(table),
        documents.ratio(first, [second]),
        (table.first - table.second) / table.total,
        newcombe_paired_difference(table),
        documents.difference(first, [second]),
        mcnemar_exact(table),
    )


def _contrast_to_baselines(student: Flags, family: Family) -> _Contrast:
    """Contrast the student with the baselines' mean rate."""
    baselines, documents = family.flags, family.documents
    if len(baselines) == 1:
        return _contrast(student, baselines[0], documents)
    if not student.size:
        return _Contrast()
    # Whole counts with one division at the end: a limit of the gate that is met exactly then compares equal.
    student_counts = int(np.count_nonzero(student)) * len(baselines)
    baseline_counts = sum(int(np.count_nonzero(baseline)) for baseline in baselines)
    ratio, difference = documents.ratio(student, baselines), documents.difference(student, baselines)
    return _Contrast(
        ratio=_share(student_counts, baseline_counts),
        ratio_ci95=ratio,
        ratio_ci95_by_document=ratio,
        difference=_share(student_counts - baseline_counts, student.size * len(baselines)),
        difference_ci95=difference,
        difference_ci95_by_document=difference,
    )
