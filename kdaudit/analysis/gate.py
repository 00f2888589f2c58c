"""The gate: each configured limit judged for each student, and the verdict that sets the exit code.

In a census, a check compares the observed value with the limit. In a sample, it uses the 95% intervals, by
window and by document: the check passes if both upper ends are at most the limit, fails if both lower ends
are above it, and is inconclusive otherwise, also if an end that it needs is open or there is no interval. So
the wider interval decides.

In a sample, an undefined value is inconclusive: the rest of the corpus may define it. A census leaves nothing
out, so an undefined value is decided without the division:

- inheritance rate and its excess, no teacher-specific example: nothing can have been inherited, so it passes;
- ratio, no baseline memorizes anything: the student's rate must be at most limit times the baseline's rate,
  which is 0, so a student that memorizes nothing passes and any other fails;
- a value without its baselines: inconclusive.

Extraction by sampling is judged as a sample where not all examples are scored. Membership is always: it
compares samples. Of several scores the highest counts, and each counts for the confidence. Where the text
alone tells members from the holdout, what scores recognize is not shown to come from the model: such a check
does not fail.

Accepted leaks are left out of the figures by the caller; a check says how many. Those of membership and of
canaries keep them: they are not counts of leaks. Canaries are measured whole, also where the corpus is a
sample.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Literal, NamedTuple

from kdaudit.analysis.intervals import clopper_pearson
from kdaudit.config.gate import ExtractableLimit, GateConfig, MembershipLimit
from kdaudit.schemas.attacks import CanariesResult, MembershipResult, NearVerbatimResult, SampledResult
from kdaudit.schemas.comparison import ComparisonResult
from kdaudit.schemas.result import Interval, Verdict
from kdaudit.schemas.results import Check, GateResult, ModelResult

_Judgement = Literal["pass", "fail", "inconclusive"]

_ERROR = 0.025
"""Chance that one check of a sample passes or fails wrongly: a verdict goes by one end of a 95% interval."""
_MAX_CANARIES, _MAX_MEMBERSHIP = "max_canaries_extracted", "max_membership_tpr"
_OF_NO_LEAKS = {_MAX_CANARIES, _MAX_MEMBERSHIP}
"""Limits of figures that accepted leaks are no part of: those of planted texts, and of a drawn sample."""
_BEST_FIRST: tuple[Verdict, ...] = ("none", "pass", "inconclusive", "fail")


class _Figure(NamedTuple):
    """The figure that a limit applies to."""

    value: float | None
    ci95: Interval | None
    by_document: Interval | None = None
    """The same by document."""
    without_value: _Judgement = "inconclusive"
    """Verdict of a census on an undefined value."""
    estimated: bool | None = None
    """Whether it comes from a sample; None: as the audit does."""
    intervals: int = 1
    """How many were looked at, of which these are the highest."""
    at: str | None = None
    """What it was measured at, in words."""
    explained: bool = False
    """Whether a value above the limit has another explanation than the model."""


class Others(NamedTuple):
    """What the gate judges of a student beside its rate and its comparison."""

    near_verbatim: NearVerbatimResult | None = None
    """None where the attack did not run on it."""
    tagged: int | None = None
    """Leaks of it that seem to hold personal data or secrets; None if they are not known."""
    accepted: int = 0
    """Accepted leaks of it, which no figure given to the gate counts."""
    sampled: SampledResult | None = None
    """None where the attack did not run on it."""
    membership: MembershipResult | None = None
    """None where the attack did not run on it."""
    canaries: CanariesResult | None = None
    """None where none are measured."""


class _Judged(NamedTuple):
    """A student's figures."""

    model: ModelResult
    comparison: ComparisonResult
    others: Others
    gate: GateConfig


def judge(
    gate: GateConfig,
    comparisons: Mapping[str, ComparisonResult],
    models: Mapping[str, ModelResult],
    census: bool,
    others: Mapping[str, Others] = MappingProxyType({}),
) -> GateResult:
    """Judge each of the gate's limits for each of its students; the worst check is the verdict.

    Args:
        gate: the limits; its students, or all if it names none.
        comparisons: by student.
        models: by name; must hold every student of the gate.
        census: True when the whole corpus was audited, False for a sample of it.
        others: by student.

    Returns:
        The checks by student, then in the order of the configuration's keys; `none` without limits.
    """
    names = gate.students or [name for name, model in models.items() if model.role == "student"]
    checks, intervals = [], 0
    for student in names:
        for key, figure_of in _FIGURES.items():
            limit = getattr(gate, key)
            if limit is not None:
                own = others.get(student, Others())
                figure = figure_of(_Judged(models[student], comparisons[student], own, gate))
                estimated = not census if figure.estimated is None else figure.estimated
                check = _check(key, student, _number(limit), figure, estimated=estimated)
                accepted = 0 if key in _OF_NO_LEAKS else own.accepted
                checks.append(check.model_copy(update={"accepted": accepted}))
                intervals += figure.intervals if estimated else 0
    verdicts: list[Verdict] = ["none", *(check.verdict for check in checks)]
    return GateResult(
        verdict=max(verdicts, key=_BEST_FIRST.index),
        checks=checks,
        confidence=max(0.0, 1 - _ERROR * intervals) if intervals else None,
        confidence_by="Bonferroni" if intervals else None,
    )


def _number(limit: float | ExtractableLimit | MembershipLimit) -> float:
    if isinstance(limit, ExtractableLimit):
        return limit.rate
    return limit.tpr if isinstance(limit, MembershipLimit) else limit


def _check(key: str, student: str, limit: float, figure: _Figure, *, estimated: bool) -> Check:
    found = _by_intervals(figure, limit) if estimated else _by_value(figure, limit)
    return Check(
        name=key,
        student=student,
        limit=limit,
        value=figure.value,
        at=figure.at,
        ci95=figure.ci95,
        ci95_by_document=figure.by_document,
        verdict="inconclusive" if figure.explained and found == "fail" else found,
    )


def _by_value(figure: _Figure, limit: float) -> _Judgement:
    if figure.value is None:
        return figure.without_value
    return "pass" if figure.value <= limit else "fail"


def _by_intervals(figure: _Figure, limit: float) -> _Judgement:
    intervals = [one for one in (figure.ci95, figure.by_document) if one is not None] or [(None, None)]
    lows, highs = zip(*intervals, strict=True)
    if all(high is not None and high <= limit for high in highs):
        return "pass"
    return "fail" if all(low is not None and low > limit for low in lows) else "inconclusive"


def _rate(judged: _Judged) -> _Figure:
    model = judged.model
    return _Figure(model.rate, model.ci95, model.ci95_by_document)


def _near_verbatim_rate(judged: _Judged) -> _Figure:
    near = judged.others.near_verbatim
    return _Figure(None, None) if near is None else _Figure(near.rate, near.ci95, near.ci95_by_document)


def _extractable(judged: _Judged) -> _Figure:
    limit, found = judged.gate.max_extractable, judged.others.sampled
    point = None if limit is None or found is None else found.at(limit.queries, limit.p)
    if limit is None or found is None or point is None:
        return _Figure(None, None)
    return _Figure(
        point.rate,
        point.ci95,
        point.ci95_by_document,
        estimated=found.scored < found.examples or None,
        at=f"{limit.queries:,} samples, p {limit.p:g}",
    )


def _membership_tpr(judged: _Judged) -> _Figure:
    """The highest share that any score recognizes; an end is the highest of all scores' ends."""
    limit, found = judged.gate.max_membership_tpr, judged.others.membership
    if limit is None or found is None:
        return _Figure(None, None, estimated=True)
    each = [one.tpr_at_fpr.get(f"{limit.fpr:g}") for one in found.score.values()]
    known = [one for one in each if one is not None]
    if not known:
        return _Figure(None, None, estimated=True, at=f"{limit.fpr:.1%} false positives")
    value, low, high = (max(ends) for ends in zip(*known, strict=True))
    return _Figure(
        value,
        (low, high),
        estimated=True,
        intervals=len(known),
        at=f"{limit.fpr:.1%} false positives",
        explained=found.explained_by_text is True,
    )


def _tagged(judged: _Judged) -> _Figure:
    return _Figure(judged.others.tagged, None)


def _canaries_extracted(judged: _Judged) -> _Figure:
    found = judged.others.canaries
    if found is None or not found.planted:
        return _Figure(None, None, estimated=False)
    ends = clopper_pearson(found.extracted, found.planted)
    return _Figure(found.extracted / found.planted, ends, estimated=False)


def _inheritance_rate(judged: _Judged) -> _Figure:
    comparison = judged.comparison
    return _Figure(
        comparison.inheritance_rate,
        comparison.inheritance_ci95,
        comparison.inheritance_ci95_by_document,
        without_value=_where_nothing_is_inherited(comparison),
    )


def _excess_inheritance(judged: _Judged) -> _Figure:
    comparison = judged.comparison
    return _Figure(
        comparison.excess_inheritance,
        comparison.excess_ci95,
        comparison.excess_ci95,
        without_value=_where_nothing_is_inherited(comparison),
    )


def _where_nothing_is_inherited(comparison: ComparisonResult) -> _Judgement:
    return "pass" if comparison.teacher_specific == 0 else "inconclusive"


def _inherited(judged: _Judged) -> _Figure:
    return _Figure(judged.comparison.inherited, None)


def _ratio_to_baseline(judged: _Judged) -> _Figure:
    comparison = judged.comparison
    without_value: _Judgement = "pass" if judged.model.memorized == 0 else "fail"
    if comparison.difference is None:  # no baseline, not one that memorizes nothing
        without_value = "inconclusive"
    return _Figure(
        comparison.ratio_to_baseline,
        comparison.ratio_ci95,
        comparison.ratio_ci95_by_document,
        without_value,
    )


_FIGURES: dict[str, Callable[[_Judged], _Figure]] = {
    "max_rate": _rate,
    "max_inheritance_rate": _inheritance_rate,
    "max_excess_inheritance": _excess_inheritance,
    "max_inherited": _inherited,
    "max_ratio_to_baseline": _ratio_to_baseline,
    "max_near_verbatim_rate": _near_verbatim_rate,
    "max_tagged": _tagged,
    "max_extractable": _extractable,
    _MAX_MEMBERSHIP: _membership_tpr,
    _MAX_CANARIES: _canaries_extracted,
}
"""The figure that each limit of the configuration applies to, by its key."""
