"""Why a figure of inheritance is not available, as a note for results.json."""

from __future__ import annotations

from kdaudit.schemas.comparison import ComparisonResult, SoftVsHard
from kdaudit.schemas.notes import Note, NoteCode

NO_TEACHER = (
    "The teacher was not audited (models.teacher is null). Which examples it memorizes is not known, and so "
    "neither is what a student inherited: easy core, teacher-specific and inherited examples are null, and "
    "the class of each leak is unknown. What a student memorizes and no baseline does may come from the "
    "teacher, from the student's own training text or from chance."
)
"""A note for results.json."""
_NONE_SPECIFIC = "because the teacher memorizes no example that no baseline does"
NOT_COMPARED = "what they inherit cannot be compared"


def comparison_notes(name: str, result: ComparisonResult, baselines: int, *, teacher: bool) -> list[Note]:
    """What of a student's comparison is not available, and why.

    Args:
        name: the student.
        result: its figures.
        baselines: how many it is compared with, at least one.
        teacher: whether the teacher was audited.

    """
    if result.difference is None:
        return [student_note("no_examples", name, "there are no examples to compare it on.")]
    notes = []
    if baselines > 1:
        text = (
            f"there is no McNemar test against {baselines} baselines, and near misses are not counted; both "
            "need a single one."
        )
        notes.append(student_note("several_baselines", name, text))
    if result.ratio_to_baseline is None:
        silent = "the baseline memorizes" if baselines == 1 else "the baselines memorize"
        text = f"its ratio to the baseline is undefined, because {silent} nothing."
        notes.append(student_note("ratio_undefined", name, text))
    return [*notes, *_inheritance_notes(name, result, baselines)] if teacher else notes


def _inheritance_notes(name: str, result: ComparisonResult, baselines: int) -> list[Note]:
    notes = []
    if result.share_in_easy_core is None:
        text = "the share of its memorized examples in the easy core is undefined, because it memorizes none."
        notes.append(student_note("easy_core_share_undefined", name, text))
    if result.inheritance_rate is None:
        text = f"its inheritance rate is undefined, {_NONE_SPECIFIC}."
        notes.append(student_note("inheritance_undefined", name, text))
    elif baselines == 1:
        text = (
            f"chance is not measured with one baseline.{_near(result)} Two baselines or more "
            "(models.baseline, one per seed) tell."
        )
        notes.append(student_note("chance_not_measured", name, text))
    if result.reference_inheritance is not None and result.ratio_to_floor is None:
        text = "its inheritance has no ratio to chance, because no other baseline memorizes any of it."
        notes.append(student_note("floor_ratio_undefined", name, text))
    return notes


def _near(result: ComparisonResult) -> str:
    """What a single baseline nearly memorizes, where that is known."""
    if result.near_misses is None:
        return ""
    return (
        f" Of the {result.teacher_specific:,} teacher-specific examples the baseline nearly memorizes "
        f"{result.near_misses:,}: another training without the teacher could give these."
    )


def student_note(code: NoteCode, name: str, text: str) -> Note:
    """A note about one student."""
    return Note(code=code, subject=name, text=f"Student {name}: {text}")


def pair_note(code: NoteCode, text: str) -> Note:
    """A note about the comparison of soft and hard KD."""
    return Note(code=code, subject="soft_vs_hard", text=text)


def soft_vs_hard_notes(result: SoftVsHard) -> list[Note]:
    """What of the comparison of soft and hard KD is not available, and why."""
    pair = f"Students {result.soft} and {result.hard}"
    notes = []
    if result.difference is None:
        notes.append(pair_note("soft_vs_hard_undefined", f"{pair}: {NOT_COMPARED}, {_NONE_SPECIFIC}."))
    elif result.ratio is None:
        text = (
            f"{pair}: the ratio of what {result.hard} inherits to what {result.soft} does is undefined, "
            f"because {result.soft} inherits nothing."
        )
        notes.append(pair_note("soft_vs_hard_undefined", text))
    if result.share_of_hard_in_soft is None:
        text = (
            f"{pair}: the share of {result.hard}'s memorized examples that {result.soft} memorizes too "
            f"is undefined, because {result.hard} memorizes none."
        )
        notes.append(pair_note("soft_vs_hard_undefined", text))
    return notes
