"""Comparison, soft against hard, classes and survival against plain Python sets."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kdaudit.analysis.by_document import Documents, widened
from kdaudit.analysis.excess import Baseline
from kdaudit.analysis.inheritance import Family, classes, compare_student, soft_vs_hard, survival
from kdaudit.analysis.intervals import (
    PairedTable,
    bonett_price_ratio,
    clopper_pearson,
    mcnemar_exact,
    newcombe_paired_difference,
)
from kdaudit.analysis.pretraining import also_base
from kdaudit.schemas.comparison import ComparisonResult


class Sets(NamedTuple):
    """Which of `size` examples each model memorizes."""

    size: int
    student: set[int]
    other: set[int]
    teacher: set[int]
    baselines: list[set[int]]

    def flags(self, memorized):
        return np.array([example in memorized for example in range(self.size)], dtype=bool)

    @property
    def by_baseline(self):
        return set().union(*self.baselines)

    @property
    def specific(self):
        return self.teacher - self.by_baseline

    def family(self):
        _, teacher, baselines = self.arrays()
        return family(teacher, baselines)

    def arrays(self):
        return (
            self.flags(self.student),
            self.flags(self.teacher),
            [self.flags(baseline) for baseline in self.baselines],
        )


def family(teacher, baselines, near=()):
    """Each example in a document of its own."""
    nearly = np.isin(np.arange(len(teacher)), near)
    every = np.ones(len(teacher))
    told = [Baseline(flags, flags.astype(float), nearly, every) for flags in baselines]
    return Family(teacher, told, Documents(np.arange(len(teacher))))


@st.composite
def sets(draw, fewest=0, most=3):
    size = draw(st.integers(0, 24))
    memorized = st.sets(st.integers(0, size - 1)) if size else st.just(set())
    return Sets(
        size,
        draw(memorized),
        draw(memorized),
        draw(memorized),
        [draw(memorized) for _ in range(draw(st.integers(fewest, most)))],
    )


def table_of(first, second, among):
    return PairedTable(
        len(first & second & among),
        len((first - second) & among),
        len((second - first) & among),
        len(among - first - second),
    )


def exact(numerator, denominator):
    return float(Fraction(numerator, denominator)) if denominator else None


def without_chance(found):
    """A comparison's figures but those of chance, which test_excess is about."""
    chance = [key for key in ComparisonResult.model_fields if re.search("reference|floor|excess|near", key)]
    return found.model_copy(update=dict.fromkeys(chance))


def empty_comparison(**figures):
    return ComparisonResult(**{**dict.fromkeys(ComparisonResult.model_fields), **figures})


@given(sets(fewest=1))
@settings(deadline=None)  # the first call imports scipy
def test_compare_agrees_with_sets(case):
    student, many = case.student, len(case.baselines)
    memorized_by_baselines = sum(len(baseline) for baseline in case.baselines)
    core = student & case.teacher & case.by_baseline
    inherited = student & case.specific
    expected = empty_comparison(
        ratio_to_baseline=exact(len(student) * many, memorized_by_baselines),
        difference=exact(len(student) * many - memorized_by_baselines, case.size * many),
        easy_core=len(core),
        share_in_easy_core=exact(len(core), len(student)),
        teacher_specific=len(case.specific),
        inherited=len(inherited),
        inheritance_rate=exact(len(inherited), len(case.specific)),
        with_baseline=len((student & case.by_baseline) - case.teacher),
        student_only=len(student - case.by_baseline - case.teacher),
        shared_with_baseline=len(student & case.by_baseline),
    )
    documents = case.family().documents
    if case.specific:
        ends = clopper_pearson(len(inherited), len(case.specific))
        specific = case.flags(case.specific)
        by_document = documents.within(specific).rate(case.flags(student)[specific])
        update = {"inheritance_ci95": ends, "inheritance_ci95_by_document": by_document}
        expected = expected.model_copy(update=update)
    if case.size:
        flags, _, baselines = case.arrays()
        both = {
            "ratio": documents.ratio(flags, baselines),
            "difference": documents.difference(flags, baselines),
        }
        update = {f"{key}_ci95_by_document": ends for key, ends in both.items()}
        if many > 1:
            update |= {f"{key}_ci95": ends for key, ends in both.items()}
        expected = expected.model_copy(update=update)
    if many == 1 and case.size:
        table = table_of(student, case.baselines[0], set(range(case.size)))
        paired = {
            "ratio_ci95": bonett_price_ratio(table),
            "difference_ci95": newcombe_paired_difference(table),
            "mcnemar_p": mcnemar_exact(table),
        }
        expected = expected.model_copy(update=paired)
    found = compare_student("s", case.flags(student), case.family())
    assert without_chance(found.figures) == expected


@given(sets())
@settings(deadline=None)  # the first call imports scipy
def test_what_the_base_completes_too_agrees_with_plain_sets(case):
    student, teacher, baselines = case.arrays()
    known = case.student & case.other  # the other model stands for the base
    found = also_base(student, teacher, baselines, case.flags(case.other))
    assert found.memorized == len(known)
    if case.baselines:
        assert found.easy_core == len(known & case.teacher & case.by_baseline)
        assert found.inherited == len(known & case.specific)
    else:
        assert (found.easy_core, found.inherited) == (None, None)


def test_compare_on_a_case_counted_by_hand():
    #                      core  inherited  with baseline  student only  teacher only  baseline only  nobody
    student = np.array([1, 1, 1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
    teacher = np.array([1, 1, 1, 0, 0, 1, 1, 0, 0, 0], dtype=bool)
    baseline = np.array([1, 1, 0, 1, 0, 0, 0, 1, 0, 0], dtype=bool)
    found, notes = compare_student("soft", student, family(teacher, [baseline], near=[5]))
    assert (found.easy_core, found.inherited, found.with_baseline, found.student_only) == (2, 1, 1, 1)
    assert (found.teacher_specific, found.share_in_easy_core) == (3, 0.4)
    assert found.inheritance_rate == pytest.approx(1 / 3)
    assert (found.ratio_to_baseline, found.difference) == (1.25, 0.1)
    assert found.mcnemar_p == 1.0
    assert found.near_misses == 1
    assert [note.code for note in notes] == ["chance_not_measured"]
    assert "Of the 3 teacher-specific examples the baseline nearly memorizes 1:" in notes[0].text
    assert classes(student, teacher, [baseline]).classes == [
        "easy_core",
        "easy_core",
        "inherited",
        "with_baseline",
        "student_only",
    ]


def test_several_baselines_have_intervals_by_document_and_no_mcnemar():
    student = np.array([1, 1, 1, 0], dtype=bool)
    baselines = [np.array([1, 0, 0, 0], dtype=bool), np.array([0, 1, 0, 1], dtype=bool)]
    found, notes = compare_student("soft", student, family(student, baselines))
    assert (found.ratio_to_baseline, found.difference) == (2.0, 0.375)
    assert found.mcnemar_p is None
    assert found.ratio_ci95 == found.ratio_ci95_by_document
    assert found.difference_ci95 == found.difference_ci95_by_document
    assert found.ratio_ci95[0] < 2.0 < found.ratio_ci95[1]
    assert found.difference_ci95[0] < 0.375 < found.difference_ci95[1]
    assert (found.easy_core, found.inherited) == (2, 1)
    assert [note.code for note in notes] == ["several_baselines"]


def test_without_baselines_nothing_is_claimed():
    student = np.array([1, 0, 1], dtype=bool)
    found, notes = compare_student("soft", student, family(student, []))
    assert found == empty_comparison()
    assert len(notes) == 1
    assert notes[0].text.startswith("Student soft: without a baseline")
    pair, notes = soft_vs_hard("soft", "hard", student, student, family(student, []))
    assert pair is None
    assert len(notes) == 1
    assert "soft and hard" in notes[0].text
    assert classes(student, student, []).classes == ["unknown", "unknown"]


def test_a_silent_baseline_leaves_the_ratio_bounded_below_only():
    some, none = np.array([1, 1, 0, 0], dtype=bool), np.zeros(4, dtype=bool)
    found, notes = compare_student("soft", some, family(some, [none]))
    assert found.ratio_to_baseline is None
    assert found.ratio_ci95[0] > 0
    assert found.ratio_ci95[1] is None
    codes = [("ratio_undefined", "soft"), ("chance_not_measured", "soft")]
    assert [(note.code, note.subject) for note in notes] == codes
    assert notes[0].text == (
        "Student soft: its ratio to the baseline is undefined, because the baseline memorizes nothing."
    )


def test_a_silent_student_and_teacher_are_noted_by_name():
    some, none = np.array([1, 1, 0, 0], dtype=bool), np.zeros(4, dtype=bool)
    found, notes = compare_student("soft", none, family(some, [some]))
    assert (found.ratio_to_baseline, found.share_in_easy_core, found.inheritance_rate) == (0.0, None, None)
    assert [(note.code, note.subject) for note in notes] == [
        ("easy_core_share_undefined", "soft"),
        ("inheritance_undefined", "soft"),
    ]
    assert [note.text.split(" is undefined")[0] for note in notes] == [
        "Student soft: the share of its memorized examples in the easy core",
        "Student soft: its inheritance rate",
    ]


@given(sets(fewest=1, most=2))
@settings(deadline=None)  # the first call imports scipy
def test_soft_vs_hard_agrees_with_sets(case):
    soft, hard = case.student, case.other
    table = table_of(hard, soft, case.specific)
    found, notes = soft_vs_hard("S", "H", case.flags(soft), case.flags(hard), case.family())
    assert (found.soft, found.hard) == ("S", "H")
    assert found.both == len(soft & hard & case.specific)
    assert found.soft_only == len((soft - hard) & case.specific)
    assert found.hard_only == len((hard - soft) & case.specific)
    assert found.ratio == exact(len(hard & case.specific), len(soft & case.specific))
    assert found.difference == exact(
        len(hard & case.specific) - len(soft & case.specific), len(case.specific)
    )
    assert found.share_of_hard_in_soft == exact(len(hard & soft), len(hard))
    if case.specific:
        assert found.ratio_ci95 == bonett_price_ratio(table)
        assert found.difference_ci95 == newcombe_paired_difference(table)
        assert found.mcnemar_p == mcnemar_exact(table)
    else:
        assert (found.ratio_ci95, found.difference_ci95, found.mcnemar_p) == (None, None, None)
    undefined = (found.ratio, found.difference, found.share_of_hard_in_soft)
    assert bool(notes) == (None in undefined)


def test_a_soft_student_that_inherits_nothing_leaves_the_ratio_open_above():
    teacher = np.ones(8, dtype=bool)
    none = np.zeros(8, dtype=bool)
    hard = np.array([1, 1, 1, 0, 0, 0, 0, 0], dtype=bool)
    found, notes = soft_vs_hard("a", "b", none, hard, family(teacher, [none]))
    assert found.ratio is None
    assert found.ratio_ci95[0] > 0
    assert found.ratio_ci95[1] is None
    assert len(notes) == 1
    assert notes[0].text.startswith("Students a and b: the ratio of what b inherits to what a does")
    assert notes[0].text.endswith("because a inherits nothing.")


@given(sets())
@settings(deadline=None)  # the first call imports scipy
def test_classes_agree_with_sets(case):
    def class_of(example):
        if not case.baselines:
            return "unknown"
        if example in case.teacher:
            return "easy_core" if example in case.by_baseline else "inherited"
        return "with_baseline" if example in case.by_baseline else "student_only"

    found = classes(*case.arrays())
    assert found.examples.tolist() == sorted(case.student)
    assert found.classes == [class_of(example) for example in sorted(case.student)]


@given(st.lists(st.integers(0, 7), min_size=1, max_size=40))
def test_survival_counts_examples_with_at_least_k_tokens(matched):
    shares = survival(np.array(matched, dtype=np.int16), np.full(len(matched), 7))
    assert shares == [sum(tokens >= k for tokens in matched) / len(matched) for k in range(8)]


@pytest.mark.parametrize("matched", [[], [8], [-1, 3]])
def test_survival_refuses_what_cannot_be(matched):
    with pytest.raises(ValueError, match="0 to the target's length"):
        survival(np.array(matched, dtype=np.int16), np.full(len(matched), 7))


@pytest.mark.parametrize(
    "teacher", [np.zeros(3, dtype=bool), np.zeros(4, dtype=np.int8), np.zeros((2, 2), dtype=bool)]
)
def test_arrays_of_other_examples_are_refused(teacher):
    student = np.zeros(4, dtype=bool)
    for call in (
        lambda: compare_student("s", student, family(teacher, [student])),
        lambda: soft_vs_hard("s", "h", student, student, family(teacher, [student])),
        lambda: classes(student, teacher, [student]),
    ):
        with pytest.raises(ValueError, match="one length"):
            call()


@pytest.mark.parametrize("seed", range(5))
def test_effective_examples_are_those_of_the_jackknife_over_documents(seed: int) -> None:
    """Oracle: the share without each document, one by one, and Student's quantile of as many of one size."""
    from scipy.stats import norm, t

    dice = np.random.default_rng(seed)
    codes = np.repeat(np.arange(12), dice.integers(1, 30, 12))
    memorized = dice.random(len(codes)) < dice.beta(0.5, 0.5, 12)[codes]
    if not seed:  # documents that are more alike than chance makes them
        memorized = np.arange(len(codes)) % 2 == 0
    share, sizes = memorized.mean(), np.bincount(codes)
    without = np.array([memorized[codes != document].mean() for document in range(12)])
    jackknife = 11 / 12 * np.square(without - share).sum()
    effect = max(1.0, jackknife / (share * (1 - share) / len(codes)))
    alike = sizes.sum() ** 2 / np.square(sizes).sum()
    few = (t.ppf(0.975, alike - 1) / norm.ppf(0.975)) ** 2
    assert Documents(codes).effective(memorized) == pytest.approx(len(codes) / (effect * few))
    nothing = np.zeros(len(codes), np.bool_)
    assert Documents(codes).effective(nothing) == pytest.approx(alike)


@pytest.mark.parametrize("count", [2, 5, 40])
def test_drawn_means_are_widened_to_students_interval(count: int) -> None:
    """A mean of values drawn with replacement has the deviation of all of them, not that of a sample."""
    from scipy.stats import norm, t

    values = np.random.default_rng(count).normal(size=count)
    drawn = norm.ppf(0.975) * values.std(ddof=0) / count**0.5
    _, high = t.interval(0.95, count - 1, scale=values.std(ddof=1) / count**0.5)
    assert widened(count) * drawn == pytest.approx(high)


def test_a_baseline_named_twice_tells_no_more_than_once() -> None:
    dice = np.random.default_rng(3)
    codes = np.repeat(np.arange(40), 6)
    first, other = (dice.random(len(codes)) < dice.beta(0.5, 0.5, 40)[codes] for _ in range(2))
    documents = Documents(codes)
    for interval in (documents.difference, documents.ratio):
        assert interval(first, [other, other]) == pytest.approx(interval(first, [other]))
