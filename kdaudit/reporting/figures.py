"""The key figures, each with its interval, its counts and a plain sentence.

Each names its student and the number of examples. With several students a figure leads with the worst
student and lists the others below: a reader who sees only the leading value must not think that the audit
went better than its worst student did.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import NamedTuple

from kdaudit.analysis.paired import SIGNIFICANT
from kdaudit.reporting.formatting import (
    capitalized,
    count,
    excludes_zero,
    percent,
    percent_interval,
    plural,
    points,
    points_interval,
    quoted,
    significant,
    times,
    times_interval,
    wider,
)
from kdaudit.reporting.key_figure import KeyFigure, Reading, examples_in, ninety_five, whose, worst_of
from kdaudit.reporting.membership import membership_figure
from kdaudit.reporting.missing_reasons import why_no_comparison, why_no_inheritance, why_no_soft_vs_hard
from kdaudit.reporting.other_attacks import worst_attack
from kdaudit.reporting.predictor_figure import predictor_figure
from kdaudit.schemas.comparison import ComparisonResult, SoftVsHard
from kdaudit.schemas.results import AuditResults, ModelResult

__all__ = ["KeyFigure", "key_figures", "role_words"]


def key_figures(results: AuditResults) -> list[KeyFigure]:
    """Those of each student, other attacks, soft against hard, the predictor; in this order."""
    others = [one for one in (worst_attack(results), membership_figure(results)) if one is not None]
    return [*student_figures(results), *others, _hard_against_soft(results), predictor_figure(results)]


def student_figures(results: AuditResults) -> list[KeyFigure]:
    """Student against baseline, inheritance, what it repeats of the teacher's text where that was audited."""
    written = [] if results.generated is None else [_repeated(results)]
    return [_against_baseline(results), _inherited(results), *written]


def _against_baseline(results: AuditResults) -> KeyFigure:
    def reading(name: str, figures: ComparisonResult) -> Reading | None:
        counted = _Counted.of(results, name)
        if counted is None or (figures.ratio_to_baseline is None and figures.difference is None):
            return None
        return Reading(
            whose(results, name),
            _ratio_value(figures.ratio_to_baseline, counted),
            ninety_five(times_interval(figures.ratio_ci95, figures.ratio_ci95_by_document)),
            counted.words,
            _ratio_sentence(name, figures, counted),
        )

    def rank(name: str, figures: ComparisonResult) -> float:
        counted = _Counted.of(results, name)
        if figures.ratio_to_baseline is None:  # over nothing
            return inf if counted is not None and counted.student else 0.0
        return figures.ratio_to_baseline

    title = "Student against baseline"
    if _nothing_to_compare(results):
        return KeyFigure(title, None, (), why_no_comparison(results))
    return _figure(title, results, reading, rank, why_no_comparison)


class _Counted(NamedTuple):
    """What a student memorizes beside what the baselines do."""

    student: int
    baseline: float
    """The mean of all baselines."""
    baselines: int
    examples: str
    """All that were audited, in words."""

    @classmethod
    def of(cls, results: AuditResults, name: str) -> _Counted | None:
        """Of one student; None without a baseline."""
        counts = [model.memorized for model in results.models.values() if model.role == "baseline"]
        student = results.models.get(name)
        if student is None or not counts:
            return None
        examples = examples_in(results, student.examples)
        return cls(student.memorized, sum(counts) / len(counts), len(counts), examples)

    @property
    def words(self) -> str:
        """Both counts, and of how many."""
        note = f" (mean of {self.baselines} baselines)" if self.baselines > 1 else ""
        return f"{count(self.student)} against {significant(self.baseline, 6)}{note} of {self.examples}"

    @property
    def control(self) -> str:
        """What the student is set against."""
        if self.baselines == 1:
            return "a model of its size trained without a teacher"
        return f"the mean of {self.baselines} models of its size trained without a teacher"


def _nothing_to_compare(results: AuditResults) -> bool:
    """Whether no student and no baseline memorizes anything."""
    compared = [model for model in results.models.values() if model.role in ("student", "baseline")]
    return not any(model.memorized for model in compared)


def _ratio_value(ratio: float | None, counted: _Counted) -> str:
    return times(ratio) if ratio is not None else f"{count(counted.student)} : 0"


def _ratio_sentence(name: str, figures: ComparisonResult, counted: _Counted) -> str:
    student, control = f"student {quoted(name)}", counted.control
    ratio, ends = figures.ratio_to_baseline, wider(figures.ratio_ci95, figures.ratio_ci95_by_document)
    if ratio is None:
        if not counted.student:
            return f"Neither {student} nor {control} memorizes anything."
        return f"Student {quoted(name)} memorizes {plural(counted.student, 'example')}, {control} none."
    if ends is not None and (ends[0] is None or ends[0] <= 1) and (ends[1] is None or ends[1] >= 1):
        return f"Student {quoted(name)} does not differ clearly from {control}."
    lead = (
        f"Student {quoted(name)}"
        if ends is not None
        else f"By the counts alone, without an interval, {student}"
    )
    if ratio == 0:
        return f"{lead} memorizes nothing, {control} {significant(counted.baseline, 6)} examples."
    if ratio < 1:
        return f"{lead} memorizes {percent(1 - ratio, 1)} less than {control}."
    return f"{lead} memorizes {significant(ratio, 2)} times as much as {control}."


def _repeated(results: AuditResults) -> KeyFigure:
    """What students continue word for word of the text that the teacher wrote."""

    def reading(name: str, _: ComparisonResult) -> Reading | None:
        found = results.models[name].generated
        if found is None:
            return None
        counts = f"{count(found.memorized)} of {plural(found.examples, 'example')} that the teacher wrote"
        sentence = (
            f"Given the start of what the teacher wrote, student {quoted(name)} continues "
            f"{percent(found.rate)} word for word as the teacher did{_beside_baselines(results)}."
        )
        ends = ninety_five(percent_interval(found.ci95))
        return Reading(whose(results, name), percent(found.rate), ends, counts, sentence)

    return _figure(
        "Repeated of what the teacher wrote",
        results,
        reading,
        lambda name, _: 0.0 if (found := results.models[name].generated) is None else found.rate,
        lambda _: "No student was measured on the text that the teacher wrote.",
    )


def _beside_baselines(results: AuditResults) -> str:
    """What baselines repeat of the teacher's text, which they read where it repeats the corpus."""
    each = [model.generated for model in results.models.values() if model.role == "baseline"]
    rates = [found.rate for found in each if found is not None]
    if not rates:
        return ""
    mean = percent(sum(rates) / len(rates))
    if len(rates) > 1:
        return f"; baselines, which were trained on the corpus alone, {mean} on average"
    return f"; a baseline, which was trained on the corpus alone, {mean}"


def _inherited(results: AuditResults) -> KeyFigure:
    """What is inherited beyond chance, where several baselines measure chance; else what is inherited."""
    if any(figures.excess_inheritance is not None for figures in results.comparison.values()):
        return _figure(
            "Inherited beyond chance",
            results,
            lambda name, figures: _beyond_chance(results, name, figures),
            lambda _, figures: 0.0 if (found := figures.beyond_chance) is None else found.excess,
            why_no_inheritance,
        )
    return _figure(
        "Inherited from the teacher",
        results,
        lambda name, figures: _inherited_share(results, name, figures),
        lambda _, figures: figures.inheritance_rate or 0.0,
        why_no_inheritance,
    )


def _inherited_share(results: AuditResults, name: str, figures: ComparisonResult) -> Reading | None:
    rate, inherited, of = figures.inheritance_rate, figures.inherited, figures.teacher_specific
    if rate is None or inherited is None or of is None:
        return None
    specific = f"{examples_in(results, of)} that the teacher memorizes and no baseline does"
    counts = f"{count(inherited)} of {specific}"
    ends = ninety_five(percent_interval(figures.inheritance_ci95, figures.inheritance_ci95_by_document))
    sentence = _inheritance_sentence(name, rate, results.corpus.sampled)
    sentence += " Chance is not measured with one baseline"
    if figures.near_misses:
        sentence += (
            f": it nearly memorizes {count(figures.near_misses)} of these {count(of)}, which another "
            "training without the teacher might hold"
        )
    return Reading(whose(results, name), percent(rate), ends, counts, f"{sentence}.")


def _beyond_chance(results: AuditResults, name: str, figures: ComparisonResult) -> Reading | None:
    chance, rate = figures.beyond_chance, figures.reference_inheritance
    if chance is None or rate is None:
        return None
    low, high = chance.ci95 or (None, None)
    if low is not None and low > 0:
        found = f"Student {quoted(name)} has more of the teacher's own examples than chance gives."
    elif high is not None and high < 0:
        found = f"Student {quoted(name)} has fewer of the teacher's own examples than chance gives."
    else:
        found = f"What student {quoted(name)} has of the teacher's own examples may be chance."
    sentence = (
        f"{found} Where the teacher memorizes and a single baseline does not, the student holds "
        f"{percent(rate)}; other baselines, which never saw the teacher, hold {percent(chance.floor)}"
    )
    sentence += " if each is cut at as many examples as the student memorizes." if chance.at_own_rate else "."
    of = [] if figures.reference_examples is None else [examples_in(results, figures.reference_examples)]
    less = [f"without that cut they hold {percent(figures.inheritance_floor)}"] if chance.at_own_rate else []
    ends = ninety_five(points_interval(chance.ci95))
    return Reading(whose(results, name), points(chance.excess), ends, "; ".join([*of, *less]), sentence)


def _inheritance_sentence(name: str, rate: float, sampled: bool) -> str:
    examples = "sampled examples" if sampled else "examples"
    if rate == 0:
        return f"No {examples[:-1]} that only the teacher had memorized reappears in student {quoted(name)}."
    rare = rate <= 0.2
    share = f"About 1 in {count(round(1 / rate))}" if rare else percent(rate)
    verb = "reappears" if rare else "reappear"
    return f"{share} of the {examples} that only the teacher had memorized {verb} in student {quoted(name)}."


def _figure(
    title: str,
    results: AuditResults,
    reading: Callable[[str, ComparisonResult], Reading | None],
    rank: Callable[[str, ComparisonResult], float],
    why_absent: Callable[[AuditResults], str],
) -> KeyFigure:
    worst_first = sorted(results.comparison.items(), key=lambda item: -rank(*item))
    readings = [(reading(*item), rank(*item)) for item in worst_first]
    found = [(one, how_bad) for one, how_bad in readings if one is not None]
    if not found:
        return KeyFigure(title, None, (), why_absent(results))
    (lead, worst), *others = found
    which = worst_of(len(found), sum(how_bad == worst for _, how_bad in found))
    return KeyFigure(title, lead._replace(of=f"{lead.of}{which}"), [one for one, _ in others], None)


def _hard_against_soft(results: AuditResults) -> KeyFigure:
    title, pair = "Hard against soft distillation", results.soft_vs_hard
    if pair is None:
        return KeyFigure(title, None, (), why_no_soft_vs_hard(results))
    soft, hard = pair.both + pair.soft_only, pair.both + pair.hard_only
    counts = f"{quoted(pair.hard)} inherits {count(hard)}, {quoted(pair.soft)} {count(soft)}"
    of = next((one.teacher_specific for one in results.comparison.values() if one.teacher_specific), None)
    counts += "" if of is None else f" of {examples_in(results, of)} that are teacher-specific"
    value = f"{count(hard)} : {count(soft)}" if pair.ratio is None else times(pair.ratio)
    over = ":" if pair.ratio is None else "over"
    ways = f"inherited by {quoted(pair.hard)} {over} inherited by {quoted(pair.soft)}"
    ends = ninety_five(times_interval(pair.ratio_ci95, pair.ratio_ci95_by_document))
    sentence = f"{_pair_sentence(pair, soft, hard)} {_instead(results, pair, soft, hard)}".strip()
    return KeyFigure(title, Reading(f"{ways}{_pair_of(results)}", value, ends, counts, sentence), (), None)


def _pair_of(results: AuditResults) -> str:
    """Which pair it is, if there are several students of a kind: results hold the first of each."""
    number = len(results.comparison)
    return f", the first of their kinds among {number} students" if number > 2 else ""


def _instead(results: AuditResults, pair: SoftVsHard, soft: int, hard: int) -> str:
    """What the soft student gave instead of the hard one."""
    ways = results.models.get(pair.soft), results.models.get(pair.hard)
    if ways[0] is None or ways[1] is None or (hard == soft and ways[0].memorized == ways[1].memorized):
        return ""
    return (
        f"{quoted(pair.soft)} in place of {quoted(pair.hard)}: {count(soft)} inherited in place of "
        f"{count(hard)}, and {count(ways[0].memorized)} memorized in all in place of "
        f"{count(ways[1].memorized)}."
    )


def _pair_sentence(pair: SoftVsHard, soft: int, hard: int) -> str:
    names = {"hard": f"hard student {quoted(pair.hard)}", "soft": f"soft student {quoted(pair.soft)}"}
    if hard == soft == 0:
        return "Neither student inherits anything that only the teacher had memorized."
    if not _differ(pair):
        return "The counts do not show that one of the two inherits more from the teacher than the other."
    if soft == 0 or hard == 0:
        return f"Of the two only {names['hard' if soft == 0 else 'soft']} inherits from the teacher alone."
    more, less, ratio = ("hard", "soft", hard / soft) if hard > soft else ("soft", "hard", soft / hard)
    much = f"{significant(ratio, 2)} times as much from the teacher alone"
    return f"{capitalized(names[more])} inherits {much} as {names[less]}."


def _differ(pair: SoftVsHard) -> bool:
    """Whether test and interval show that one inherits more; the test takes windows as independent."""
    excluded = excludes_zero(pair.difference_ci95, pair.difference_ci95_by_document)
    return excluded and pair.mcnemar_p is not None and pair.mcnemar_p < SIGNIFICANT


def role_words(model: ModelResult) -> str:
    """A model's part in the audit: Teacher, Baseline, Base model (untouched), Student (soft KD)."""
    role = {"base": "Base model (untouched)"}.get(model.role, model.role.capitalize())
    if model.role == "student" and model.kd is not None:
        role = f"Student ({model.kd} KD)"
    return role if model.matched_by == "tokens" else f"{role}, compared by text"
