"""Attacks beside exact greedy extraction in results.json."""

from __future__ import annotations

from kdaudit.schemas.result import Interval, Result


class AttackInheritance(Result):
    """What a student inherits of all that an attack exposes; see the same keys of `comparison`."""

    teacher_specific: int
    """Examples that the attack exposes in the teacher and in no baseline."""
    inherited: int
    """Those of them that it exposes in the student."""
    inheritance_rate: float | None
    inheritance_ci95: Interval | None
    inheritance_ci95_by_document: Interval | None = None
    inheritance_floor: float | None
    """What retrained baselines give by chance; None with one baseline, as are the excess and its interval."""
    excess_inheritance: float | None
    excess_ci95: Interval | None


class NearVerbatimResult(Result):
    """Examples that greedy decoding reproduces but for a few tokens; those without a difference too."""

    max_edit_distance: float
    """Edits over the target's tokens, at most."""
    examples: int
    exposed: int
    rate: float
    ci95: Interval
    """Clopper-Pearson."""
    ci95_by_document: Interval | None = None
    distances: list[int]
    """Entry k: exposed examples whose continuation is k edits away, from 0 to the most edits allowed."""
    inheritance: AttackInheritance | None = None
    """Of a student, if teacher and baselines were attacked too."""


class AttackResults(Result):
    """What attacks beside exact greedy extraction found of a model; each None if it was not run."""

    near_verbatim: NearVerbatimResult | None = None
