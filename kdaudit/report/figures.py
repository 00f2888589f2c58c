"""The four key figures, each with its interval, its counts and a plain sentence.

With several students a figure leads with the worst of them and lists the others beneath it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kdaudit.report.absence import (
    why_no_comparison,
    why_no_inheritance,
    why_no_predictor,
    why_no_soft_vs_hard,
)
from kdaudit.report.foreseen import Caught, caught, promise_of
from kdaudit.report.formatting import (
    ABSENT,
    count,
    percent,
    percent_interval,
    plural,
    quoted,
    score,
    significant,
    times,
    times_interval,
)
from kdaudit.results import (
    AuditResults,
    ComparisonResult,
    Interval,
    ModelResult,
    PredictorResult,
    SoftVsHard,
    Trials,
)


class Reading(NamedTuple):
    """One value of a key figure."""

    of: str
    """Whose it is."""
    value: str
    interval: str
    """Of a listed reading without one: its counts."""
    counts: str
    sentence: str


class KeyFigure(NamedTuple):
    """A card: the leading reading and the others, or the reason why there is none."""

    title: str
    lead: Reading | None
    others: Sequence[Reading]
    absent: str | None


def key_figures(results: AuditResults) -> list[KeyFigure]:
    """Student against baseline, inheritance, soft against hard, the predictor; in this order."""
    return [_against_baseline(results), _inherited(results), _hard_against_soft(results), _predictor(results)]


def _against_baseline(results: AuditResults) -> KeyFigure:
    def reading(name: str, figures: ComparisonResult) -> Reading | None:
        ratio = figures.ratio_to_baseline
        if ratio is None:
            return None
        sentence = _ratio_sentence(name, ratio, figures.ratio_ci95)
        counts = _baseline_counts(results, name)
        return Reading(
            f"student {quoted(name)}",
            times(ratio),
            _ninety_five(times_interval(figures.ratio_ci95)),
            counts,
            sentence,
        )

    return _figure(
        "Student against baseline",
        results,
        reading,
        lambda figures: figures.ratio_to_baseline,
        why_no_comparison,
    )


def _ratio_sentence(name: str, ratio: float, ends: Interval | None) -> str:
    student, control = f"Student {quoted(name)}", "a model of its size trained without a teacher"
    if ends is not None and (ends[0] is None or ends[0] <= 1) and (ends[1] is None or ends[1] >= 1):
        return f"{student} does not differ clearly from {control}."
    if ratio == 0:
        return f"{student} memorizes nothing, unlike {control}."
    if ratio < 1:
        return f"{student} memorizes {percent(1 - ratio, 1)} less than {control}."
    return f"{student} memorizes {significant(ratio, 2)} times as much as {control}."


def _baseline_counts(results: AuditResults, name: str) -> str:
    baselines = [model for model in results.models.values() if model.role == "baseline"]
    if name not in results.models or not baselines:
        return ABSENT
    student = results.models[name]
    mean = sum(model.memorized for model in baselines) / len(baselines)
    note = f" (mean of {len(baselines)} baselines)" if len(baselines) > 1 else ""
    against = significant(mean, 6)
    return f"{count(student.memorized)} against {against}{note} of {plural(student.examples, 'example')}"


def _inherited(results: AuditResults) -> KeyFigure:
    def reading(name: str, figures: ComparisonResult) -> Reading | None:
        rate, inherited, of = figures.inheritance_rate, figures.inherited, figures.teacher_specific
        if rate is None or inherited is None or of is None:
            return None
        counts = (
            f"{count(inherited)} of {plural(of, 'example')} that the teacher memorizes and no baseline does"
        )
        ends = _ninety_five(percent_interval(figures.inheritance_ci95))
        return Reading(
            f"student {quoted(name)}", percent(rate), ends, counts, _inheritance_sentence(name, rate)
        )

    return _figure(
        "Inherited from the teacher",
        results,
        reading,
        lambda figures: figures.inheritance_rate,
        why_no_inheritance,
    )


def _inheritance_sentence(name: str, rate: float) -> str:
    if rate == 0:
        return f"Nothing that only the teacher had memorized reappears in student {quoted(name)}."
    rare = rate <= 0.2
    share = f"About 1 in {count(round(1 / rate))}" if rare else percent(rate)
    verb = "reappears" if rare else "reappear"
    return f"{share} of the examples that only the teacher had memorized {verb} in student {quoted(name)}."


def _figure(
    title: str,
    results: AuditResults,
    reading: Callable[[str, ComparisonResult], Reading | None],
    rank: Callable[[ComparisonResult], float | None],
    why_absent: Callable[[AuditResults], str],
) -> KeyFigure:
    worst_first = sorted(results.comparison.items(), key=lambda item: -(rank(item[1]) or 0.0))
    found = [one for one in (reading(name, figures) for name, figures in worst_first) if one is not None]
    if not found:
        return KeyFigure(title, None, (), why_absent(results))
    return KeyFigure(title, found[0], found[1:], None)


def _hard_against_soft(results: AuditResults) -> KeyFigure:
    title, pair = "Hard against soft distillation", results.soft_vs_hard
    if pair is None:
        return KeyFigure(title, None, (), why_no_soft_vs_hard(results))
    soft, hard = pair.both + pair.soft_only, pair.both + pair.hard_only
    counts = f"{quoted(pair.hard)} inherits {count(hard)}, {quoted(pair.soft)} {count(soft)}"
    of = next((one.teacher_specific for one in results.comparison.values() if one.teacher_specific), None)
    counts += "" if of is None else f" of {count(of)} teacher-specific examples"
    value = f"{count(hard)} : {count(soft)}" if pair.ratio is None else times(pair.ratio)
    ends = _ninety_five(times_interval(pair.ratio_ci95))
    of_what = (
        "inherited by hard : by soft" if pair.ratio is None else "inherited by hard over inherited by soft"
    )
    sentence = f"{_pair_sentence(pair, soft, hard)} {_instead(results, pair, soft, hard)}".strip()
    return KeyFigure(title, Reading(of_what, value, ends, counts, sentence), (), None)


def _instead(results: AuditResults, pair: SoftVsHard, soft: int, hard: int) -> str:
    """What soft distillation gave where hard gave something else."""
    ways = results.models.get(pair.soft), results.models.get(pair.hard)
    if ways[0] is None or ways[1] is None or (hard == soft and ways[0].memorized == ways[1].memorized):
        return ""
    return (
        f"Soft distillation in place of hard: {count(soft)} inherited in place of {count(hard)}, and "
        f"{count(ways[0].memorized)} memorized in all in place of {count(ways[1].memorized)}."
    )


def _pair_sentence(pair: SoftVsHard, soft: int, hard: int) -> str:
    if hard == soft == 0:
        return "Neither student inherits anything that only the teacher had memorized."
    if pair.mcnemar_p is None or pair.mcnemar_p >= 0.05:
        return (
            "The counts do not show that one way of distilling inherits more from the teacher than the other."
        )
    if soft == 0 or hard == 0:
        return f"Only the {'hard' if soft == 0 else 'soft'} student inherits from the teacher alone."
    more, less, ratio = ("hard", "soft", hard / soft) if hard > soft else ("soft", "hard", soft / hard)
    factor = significant(ratio, 2)
    return f"The {more} student inherits {factor} times as much from the teacher alone as the {less} one."


def _predictor(results: AuditResults) -> KeyFigure:
    title, found = "Caught by the risk predictor", results.predictor
    if found.status != "ok":
        return KeyFigure(title, None, (), why_no_predictor(results))
    kinds = caught(results)
    if kinds:
        every, _, *students = kinds
        # The student that it was fitted on comes first, as the promise is about that one.
        lead = next((one for one in students if one.student == found.student and one.leaks), every)
        rest = [one for one in (every, *students) if one is not lead and one.leaks]
        others = [_caught_by(one) for one in rest] if len(students) > 1 else []
        return KeyFigure(title, _caught_reading(results, lead), others, None)
    if found.auc is None:
        return KeyFigure(title, None, (), why_no_predictor(results))
    return KeyFigure(title, _auc_reading(found, found.auc), (), None)


def _caught_reading(results: AuditResults, lead: Caught) -> Reading:
    found, examples = results.predictor, results.corpus.examples
    flagged = found.flagged or 0  # known where `caught` is
    student = None if lead.student is None else quoted(lead.student)
    counts = f"{count(lead.flagged)} of {plural(lead.leaks, 'leaked example')}; "
    counts += f"{count(flagged)} of {plural(examples, 'example')} flagged in all"
    sentence = (
        f"The predictor flags {percent(flagged / examples)} of all examples, and with them "
        f"{count(lead.flagged)} of the {count(lead.leaks)} that "
        f"{'students memorize' if student is None else f'{student} memorizes'}. It learnt from some of these."
    )
    of = "of the leaked examples" if student is None else f"of what {student} memorizes"
    return Reading(of, percent(lead.share), promise_of(results).short, counts, sentence)


def _caught_by(one: Caught) -> Reading:
    of = f"{one.of[0].lower()}{one.of[1:]}"
    return Reading(
        of, percent(one.share), f"{count(one.flagged)} of {plural(one.leaks, 'leaked example')}", "", ""
    )


def _auc_reading(found: PredictorResult, auc: Trials) -> Reading:
    of = f"AUC of the risk predictor, mean of {plural(found.trials or 0, 'trial')}"
    counts = f"trained on {plural(found.positives or 0, 'memorized example')}"
    counts += "" if found.flagged is None else f"; {count(found.flagged)} examples flagged as risky"
    sentence = (
        "Shown one memorized example and one that is not, the predictor rates the memorized one "
        f"as riskier {percent(auc.mean)} of the time."
    )
    return Reading(of, score(auc.mean), _trial_range(auc), counts, sentence)


def _trial_range(trials: Trials) -> str:
    return f"95 % of trials: {score(trials.low)} to {score(trials.high)}".replace(" %", "\N{NO-BREAK SPACE}%")


def _ninety_five(ends: str) -> str:
    return f"95\N{NO-BREAK SPACE}% interval {ends}"


def role_words(model: ModelResult) -> str:
    """A model's part in the audit: Teacher, Baseline, Student (soft KD)."""
    if model.role != "student" or model.kd is None:
        return model.role.capitalize()
    return f"Student ({model.kd} KD)"
