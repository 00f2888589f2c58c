"""Why a figure is missing, in words.

A reason follows from figures of the results, or is a note that is looked up by its code. The text of notes
is never searched: it holds names that users chose.
"""

from __future__ import annotations

from kdaudit.schemas.notes import text_of
from kdaudit.schemas.results import AuditResults

_SEE_NOTES = "This audit does not hold the figure; see its notes for the reason."


def has_baseline(results: AuditResults) -> bool:
    """Whether a baseline was audited."""
    return any(model.role == "baseline" for model in results.models.values())


def has_teacher(results: AuditResults) -> bool:
    """Whether the teacher was audited."""
    return any(model.role == "teacher" for model in results.models.values())


_NO_TEACHER = (
    "The teacher was not audited, so what it memorizes, and what a student has from it, is not known. What a "
    "student memorizes and no baseline does may come from the teacher, from the student's own training text "
    "or from chance."
)


def why_no_comparison(results: AuditResults) -> str:
    """Why a student cannot be compared with the baseline."""
    if not has_baseline(results):
        return (
            "No baseline was audited. What a model of this size memorizes without the teacher, "
            "and so what a student has from the teacher alone, is not known."
        )
    if all(model.memorized == 0 for model in results.models.values() if model.role == "baseline"):
        return "The baseline memorizes no example, so there is nothing to set the students against."
    return text_of(results.notes, "no_examples", "ratio_undefined") or _SEE_NOTES


def why_no_inheritance(results: AuditResults) -> str:
    """Why there is no inheritance rate."""
    if not has_teacher(results):
        return _NO_TEACHER
    if not has_baseline(results):
        return why_no_comparison(results)
    if any(figures.teacher_specific == 0 for figures in results.comparison.values()):
        return "The teacher memorizes nothing that the baseline does not, so there is nothing to inherit."
    return text_of(results.notes, "no_examples", "inheritance_undefined") or _SEE_NOTES


def why_no_soft_vs_hard(results: AuditResults) -> str:
    """Why soft and hard distillation are not compared."""
    kinds = {model.kd for model in results.models.values() if model.role == "student"}
    missing = [kind for kind in ("soft", "hard") if kind not in kinds]
    if missing:
        return f"It takes a soft and a hard student; this audit has no {' and no '.join(missing)} one."
    if not has_teacher(results):
        return _NO_TEACHER
    if not has_baseline(results):
        return why_no_comparison(results)
    return why_no_inheritance(results)


def why_no_predictor(results: AuditResults) -> str:
    """Why there is no risk predictor."""
    found = results.predictor
    reason = (
        text_of(results.notes, "no_predictor", subject="predictor") or found.reason
    )  # older results have the latter alone
    if found.status == "disabled":
        return reason or "The risk predictor was switched off, or could not be fitted; see the notes."
    if found.status == "ok":
        return text_of(results.notes, "predictor_untried", subject="predictor") or _SEE_NOTES
    positives = "" if found.positives is None else f" ({found.positives:,} found)"
    few = f"Too few memorized examples{positives} to train and test a predictor on."
    return f"{few} {reason or ''}".strip()
