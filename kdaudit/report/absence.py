"""Why a figure is absent, in words.

The reasons that follow from the audit's own make-up are told here; for the others the notes of
results.json are quoted.
"""

from __future__ import annotations

from kdaudit.results import AuditResults

_SEE_NOTES = "This audit does not hold the figure; its notes give what is known of the reason."


def has_baseline(results: AuditResults) -> bool:
    """Whether a baseline was audited."""
    return any(model.role == "baseline" for model in results.models.values())


def notes_about(results: AuditResults, *words: str) -> list[str]:
    """The notes that speak of one of the words."""
    return [note for note in results.notes if any(word in note.lower() for word in words)]


def why_no_comparison(results: AuditResults) -> str:
    """Why a student cannot be compared with the baseline."""
    if not has_baseline(results):
        return (
            "No baseline was audited. What a model of this size memorizes without the teacher, "
            "and so what a student has from the teacher alone, is not known."
        )
    if all(model.memorized == 0 for model in results.models.values() if model.role == "baseline"):
        return "The baseline memorizes no example, so there is nothing to set the students against."
    return _quoted(results, "baseline", "ratio")


def why_no_inheritance(results: AuditResults) -> str:
    """Why there is no inheritance rate."""
    if not has_baseline(results):
        return why_no_comparison(results)
    if any(figures.teacher_specific == 0 for figures in results.comparison.values()):
        return "The teacher memorizes nothing that the baseline does not, so there is nothing to inherit."
    return _quoted(results, "inherit", "teacher-specific")


def why_no_soft_vs_hard(results: AuditResults) -> str:
    """Why soft and hard distillation are not compared."""
    kinds = {model.kd for model in results.models.values() if model.role == "student"}
    missing = [kind for kind in ("soft", "hard") if kind not in kinds]
    if missing:
        return f"It takes a soft and a hard student; this audit has no {' and no '.join(missing)} one."
    if not has_baseline(results):
        return why_no_comparison(results)
    return _quoted(results, "soft", "hard")


def why_no_predictor(results: AuditResults) -> str:
    """Why there is no risk predictor."""
    if results.predictor.status == "disabled":
        return " ".join(notes_about(results, "predictor")) or "The risk predictor was switched off."
    if results.predictor.status == "ok":
        return _quoted(results, "predictor")
    positives = results.predictor.positives
    found = "" if positives is None else f" ({positives:,} found)"
    quoted = " ".join(notes_about(results, "predictor"))
    return f"Too few memorized examples{found} to train and test a predictor on. {quoted}".strip()


def _quoted(results: AuditResults, *words: str) -> str:
    return " ".join(notes_about(results, *words)) or _SEE_NOTES
