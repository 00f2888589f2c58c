"""Students against teacher, baselines and one another, as results.json holds it."""

from __future__ import annotations

from typing import NamedTuple

from kdaudit.schemas.result import Interval, Result


class AlsoBase(Result):
    """Of a student's examples, those that the untouched base model completes too: known before training."""

    memorized: int
    """Of all that the student memorizes."""
    easy_core: int | None
    """None without teacher or baseline, as the next."""
    inherited: int | None


class BeyondChance(NamedTuple):
    """What a student inherits beyond what other trainings regain."""

    excess: float
    floor: float
    """What the other baselines hold."""
    ci95: Interval | None
    """Of the excess."""
    at_own_rate: bool
    """Whether the other baselines are cut at as many examples as the student memorizes."""


class ComparisonResult(Result):
    """One student against teacher and baseline; without a teacher against the baseline alone."""

    ratio_to_baseline: float | None
    """The student's rate over the baselines' mean rate."""
    ratio_ci95: Interval | None
    """Bonett-Price; against several baselines by document alone."""
    ratio_ci95_by_document: Interval | None = None
    difference: float | None
    """The student's rate minus the baselines' mean rate."""
    difference_ci95: Interval | None
    """Newcombe's paired interval; against several baselines by document alone."""
    difference_ci95_by_document: Interval | None = None
    mcnemar_p: float | None
    """Exact McNemar, two-sided; against several baselines None."""
    easy_core: int | None
    """Examples that the student, the teacher and a baseline memorize."""
    share_in_easy_core: float | None
    teacher_specific: int | None
    """Examples that the teacher memorizes and no baseline does."""
    inherited: int | None
    """Teacher-specific examples that the student memorizes."""
    inheritance_rate: float | None
    inheritance_ci95: Interval | None
    inheritance_ci95_by_document: Interval | None = None
    reference_inheritance: float | None = None
    """The student's rate among what the teacher memorizes and one baseline, the reference, does not; mean
    over all references. It takes two baselines, as do all figures of chance that follow."""
    reference_examples: int | None = None
    """Examples of these: what the teacher memorizes and at least one baseline does not."""
    inheritance_floor: float | None = None
    """The other baselines' mean rate there: what training regains by chance, without a teacher."""
    excess_inheritance: float | None = None
    """`reference_inheritance` minus `inheritance_floor`."""
    excess_ci95: Interval | None = None
    """Documents are drawn with replacement; so for the intervals that follow."""
    ratio_to_floor: float | None = None
    ratio_to_floor_ci95: Interval | None = None
    floor_at_own_rate: float | None = None
    """The floor where the other baselines are cut at as many examples as the student memorizes, those that
    they are surest of. None, as the next two, where a baseline memorizes fewer and what it is near to besides
    was not scored."""
    excess_at_own_rate: float | None = None
    excess_at_own_rate_ci95: Interval | None = None
    near_misses: int | None = None
    """With one baseline: the teacher-specific examples that it nearly memorizes, so that chance could have
    given them to another training."""
    with_baseline: int | None
    """Examples that the student and a baseline memorize, but not the teacher."""
    student_only: int | None
    """Examples that the student memorizes, but neither teacher nor baseline."""
    shared_with_baseline: int | None = None
    """Examples that the student and a baseline memorize, whatever the teacher does."""
    also_base: AlsoBase | None = None
    """None without models.base."""

    @property
    def beyond_chance(self) -> BeyondChance | None:
        """The excess that pages lead with: at the student's own rate, else the plain one; None if unknown."""
        if self.excess_at_own_rate is not None and self.floor_at_own_rate is not None:
            own = self.excess_at_own_rate, self.floor_at_own_rate, self.excess_at_own_rate_ci95
            return BeyondChance(*own, at_own_rate=True)
        if self.excess_inheritance is None or self.inheritance_floor is None:
            return None
        plain = self.excess_inheritance, self.inheritance_floor, self.excess_ci95
        return BeyondChance(*plain, at_own_rate=False)


class SoftVsHard(Result):
    """Teacher-specific examples inherited by the soft and by the hard student."""

    soft: str
    """Name of the soft student."""
    hard: str
    """Name of the hard student."""
    both: int
    soft_only: int
    hard_only: int
    ratio: float | None
    """Examples inherited by hard over those inherited by soft."""
    ratio_ci95: Interval | None
    ratio_ci95_by_document: Interval | None = None
    difference: float | None
    """Hard's inheritance rate minus soft's."""
    difference_ci95: Interval | None
    difference_ci95_by_document: Interval | None = None
    excess_difference: float | None = None
    """Hard's excess inheritance minus soft's; with two baselines or more."""
    excess_difference_ci95: Interval | None = None
    mcnemar_p: float | None
    share_of_hard_in_soft: float | None
    """Of all that the hard student memorizes, the share that the soft one memorizes too."""
