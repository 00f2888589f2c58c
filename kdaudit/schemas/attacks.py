"""Attacks beside exact greedy extraction in results.json."""

from __future__ import annotations

from kdaudit.schemas.result import Interval, Result

EVEN = 0.5
"""p of the rate that stands for sampling: an attacker is as likely as not to have the text."""
PROBABILITIES = (0.1, EVEN, 0.9)
"""p of the rates that are given: an attacker is lucky, as likely as not to have it, or all but sure to."""
FALSE_POSITIVES = {"0.01": 100, "0.001": 1000}
"""Shares of non-members taken for members, and the non-members that each takes at least."""


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


class SampledPoint(Result):
    """Examples of which so many samples hold the suffix with a probability of p or more."""

    queries: int
    """n."""
    p: float
    rate: float
    """Of all examples; from a sample of them, weighted."""
    ci95: Interval
    """Clopper-Pearson where all examples are scored; else that of both strata, combined by squares."""
    ci95_by_document: Interval | None = None
    """Only where all examples are scored."""


class SampledResult(Result):
    """(n, p)-discoverable extraction: what sampling gives within some queries."""

    temperature: float
    top_k: int | None
    """Tokens that can be drawn; None: all."""
    examples: int
    """All that the rates are of."""
    scored: int
    """Of these, how many were: all that a model memorizes, and a sample of the others."""
    curve: list[SampledPoint]
    """By p, then by queries."""
    inheritance: AttackInheritance | None = None
    """Of a student, with the most queries and p = 0.5; None where not all examples are scored."""

    def at(self, queries: int, p: float) -> SampledPoint | None:
        """The point of so many queries and this p."""
        return next((one for one in self.curve if (one.queries, one.p) == (queries, p)), None)


class MembershipScore(Result):
    """How well one score tells members from non-members."""

    auc: float
    """Probability that a member has the higher score; 0.5 is chance."""
    ci95: Interval
    """DeLong's, documents being the unit."""
    tpr_at_fpr: dict[str, tuple[float, float, float] | None]
    """By the share of non-members that are taken for members, "0.01" and "0.001": the share of members that
    are recognized then, and the 95% interval's ends. None with too few non-members; a note says so."""


class BestScore(Result):
    """The score that tells most."""

    score: str
    auc: float
    ci95: Interval
    """95% for the highest of all scores: wider than the score's own."""
    minus_blind: float | None
    """The AUC less that of the text alone."""
    minus_blind_ci95: Interval | None
    """Of the same confidence as `ci95`."""


class AgainstTeacher(Result):
    """A student's AUC against its teacher's under one score, the one whose sum of both is highest."""

    score: str
    auc: float
    teacher_auc: float
    difference: float
    """The student's minus the teacher's: below 0 where distillation lowers it."""
    ci95: Interval
    """Paired: the same examples under both models, documents being the unit."""


class MembershipResult(Result):
    """Whether scores of a model tell training examples from the holdout's."""

    members: int
    """Training examples compared: a seeded sample of the corpus."""
    nonmembers: int
    """Examples of the holdout compared."""
    member_documents: int
    nonmember_documents: int
    blind_auc: float | None
    """AUC of a classifier on words that saw no model; None with too few documents, and a note says so."""
    blind_ci95: Interval | None
    score: dict[str, MembershipScore]
    """By name."""
    best: BestScore
    explained_by_text: bool | None
    """Whether text alone tells members from the holdout, and the best score is not shown to tell more: then
    the figures say nothing of membership. None without a blind baseline."""
    against_teacher: AgainstTeacher | None
    """Of a student, where the teacher was scored."""


class ExposureResult(Result):
    """Exposure of canaries with equal repetitions, in bits; see `kdaudit.analysis.exposure`."""

    median: float
    low: float | None
    """Of an interval of 95% for other canaries and controls that are drawn alike."""
    high: float | None
    """None where it is open: no control is as likely, and more of them would tell more."""


class RepetitionsResult(Result):
    """Canaries that training data hold equally often."""

    canaries: int
    extracted: int
    """Whose suffix greedy decoding reproduces exactly."""
    extracted_ci95: Interval
    """Clopper-Pearson, of the share extracted."""
    exposure: ExposureResult | None
    """None where the model gives no probabilities, or no family of these canaries has controls enough; a note
    says so. Families that have too few are left out."""


class CanariesResult(Result):
    """What a model knows of texts that were planted in training data."""

    controls: int
    """Texts that are drawn alike and stayed out of training data."""
    controls_extracted: int
    highest_exposure: float | None
    """The largest exposure that so many controls can show, in bits; None as `exposure`."""
    repetitions: dict[str, RepetitionsResult]
    """By how often training data hold a canary, ascending."""

    @property
    def planted(self) -> int:
        """Canaries, however often they were planted."""
        return sum(one.canaries for one in self.repetitions.values())

    @property
    def extracted(self) -> int:
        """Those of them that are extracted."""
        return sum(one.extracted for one in self.repetitions.values())


class AttackResults(Result):
    """What attacks beside exact greedy extraction found of a model; each None if it was not run."""

    near_verbatim: NearVerbatimResult | None = None
    sampled: SampledResult | None = None
    membership: MembershipResult | None = None
    """None without a holdout too; a note says so."""
    canaries: CanariesResult | None = None
