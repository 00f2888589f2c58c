"""Inheritance against chance, and intervals by document, against loops over sets and over documents."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm, t

from kdaudit.analysis.by_document import Documents
from kdaudit.analysis.excess import (
    NO_EXCESS,
    Baseline,
    at_count,
    excess_at_own_rate,
    excess_difference,
    excess_over_chance,
)
from kdaudit.analysis.exposed import inherited_under_attack
from kdaudit.analysis.intervals import PairedTable, bonett_price_ratio, clopper_pearson
from kdaudit.analysis.unlike import unlike_notes
from kdaudit.pipelines.stages.nearness import read_baseline
from kdaudit.pipelines.stages.work import Scoring
from kdaudit.runs.arrow_schemas import NEARNESS_SCHEMA, SCORES_SCHEMA


@st.composite
def families(draw):
    """Student, teacher, two to four baselines and the document of each example."""
    size = draw(st.integers(1, 30))
    flags = st.lists(st.booleans(), min_size=size, max_size=size).map(lambda one: np.array(one, bool))
    documents = draw(st.lists(st.integers(0, 5), min_size=size, max_size=size))
    return draw(flags), draw(flags), draw(st.lists(flags, min_size=2, max_size=4)), np.array(documents)


def excess_of_sets(student, teacher, baselines):
    """The definition, with sets: mean over references of the rates among what each alone is asked about."""
    rates, floors = [], []
    for place, reference in enumerate(baselines):
        specific = {i for i in range(len(student)) if teacher[i] and not reference[i]}
        if specific:
            others = [one for number, one in enumerate(baselines) if number != place]
            rates.append(sum(student[i] for i in specific) / len(specific))
            floors.append(sum(one[i] for i in specific for one in others) / len(specific) / len(others))
    return (np.mean(rates), np.mean(floors)) if rates else None


@given(families())
@settings(deadline=None)
def test_excess_is_the_definition_over_sets(case):
    student, teacher, baselines, documents = case
    found = excess_over_chance(student, teacher, baselines, Documents(documents))
    expected = excess_of_sets(student, teacher, baselines)
    if expected is None:
        assert found == NO_EXCESS
        return
    rate, floor = expected
    assert (found.rate, found.floor) == pytest.approx((rate, floor))
    assert found.difference == pytest.approx(rate - floor)
    assert (found.ratio is None) == (floor == 0)
    if floor:
        assert found.ratio == pytest.approx(rate / floor)


@given(families())
@settings(deadline=None)
def test_what_is_inherited_under_an_attack_is_the_definition_over_sets(case):
    student, teacher, baselines, documents = case
    rows = range(len(student))
    for some in (baselines[:1], baselines):
        found = inherited_under_attack(student, teacher, some, Documents(documents))
        specific = {i for i in rows if teacher[i] and not any(one[i] for one in some)}
        inherited = {i for i in specific if student[i]}
        assert (found.teacher_specific, found.inherited) == (len(specific), len(inherited))
        assert found.inheritance_rate == (len(inherited) / len(specific) if specific else None)
        assert (found.inheritance_ci95 is None) == (found.inheritance_ci95_by_document is None)
        expected = excess_of_sets(student, teacher, some) if len(some) > 1 else None
        if expected is None:
            assert found.inheritance_floor is found.excess_inheritance is found.excess_ci95 is None
        else:
            assert found.inheritance_floor == pytest.approx(expected[1])
            assert found.excess_inheritance == pytest.approx(expected[0] - expected[1])


def test_the_interval_draws_whole_documents():
    rng = np.random.default_rng(3)
    documents = np.repeat(np.arange(60), 5)
    odd = rng.random(60)[documents]
    student, teacher, *baselines = (rng.random(300) < odd for _ in range(5))
    low, high = excess_over_chance(student, teacher, baselines, Documents(documents)).difference_ci95
    drawn = []
    for _ in range(1500):  # the slow way: rows of drawn documents put together
        rows = np.concatenate([np.flatnonzero(documents == one) for one in rng.integers(0, 60, 60)])
        drawn.append(np.subtract(*excess_of_sets(student[rows], teacher[rows], [b[rows] for b in baselines])))
    assert (low, high) == pytest.approx(tuple(np.percentile(drawn, [2.5, 97.5])), abs=0.02)


def test_what_chance_regains_is_no_excess_and_what_is_given_is():
    rng = np.random.default_rng(4)
    documents, chance = np.arange(20_000), rng.random(20_000)
    teacher, *baselines, student = (rng.random(20_000) < chance for _ in range(5))
    plain = excess_over_chance(student, teacher, baselines, Documents(documents))
    assert plain.floor > 0.3
    assert plain.difference_ci95[0] < 0 < plain.difference_ci95[1]
    given_too = student | (teacher & (rng.random(20_000) < 0.1))
    found = excess_over_chance(given_too, teacher, baselines, Documents(documents))
    assert found.difference_ci95[0] > 0.03
    hard = excess_difference(given_too, student, teacher, baselines, Documents(documents))
    assert hard.difference == pytest.approx(found.difference - plain.difference)
    assert hard.difference_ci95[0] > 0.03


def test_a_weak_student_without_a_teacher_has_no_excess_at_its_own_rate():
    rng = np.random.default_rng(6)
    documents, odds = np.arange(20_000), rng.normal(-2, 3, 20_000)

    def trained(shift):
        near = odds + rng.logistic(size=20_000) + shift
        return Baseline(near > 0, near, near > -1, np.ones(len(near)))

    teacher, *baselines, weak = trained(1), trained(0), trained(0), trained(0), trained(-2)
    flags = [one.memorized for one in baselines]
    plain = excess_over_chance(weak.memorized, teacher.memorized, flags, Documents(documents))
    own = excess_at_own_rate(weak.memorized, teacher.memorized, baselines, Documents(documents))
    assert plain.difference_ci95[1] < 0  # a smaller set holds less of any set
    assert own.floor < plain.floor / 2
    assert own.difference_ci95[0] < 0.01
    assert own.difference_ci95[1] > -0.01


def test_a_strong_student_without_a_teacher_has_no_excess_where_a_sample_is_ranked():
    """It memorizes more than the baselines: what they are near to counts, also what no model memorizes."""
    rng = np.random.default_rng(15)
    documents, odds = Documents(np.arange(8000)), rng.normal(-3, 2, 8000)
    near = [odds + rng.logistic(size=8000) for _ in range(3)]
    teacher, student = (odds + rng.logistic(size=8000) > -shift for shift in (1, 2))
    memorized = np.logical_or.reduce([teacher, student, *(one > 0 for one in near)])
    others = rng.permutation(np.flatnonzero(~memorized))[:1000]
    ids = np.union1d(np.flatnonzero(memorized), others)
    weights = np.where(memorized[ids], 1.0, (~memorized).sum() / 1000)

    def told(one, weights):
        wrong, probability = np.clip(-one[ids] / 20, 0.01, 1) * (one[ids] <= 0), 1 / (1 + np.exp(-one[ids]))
        return Baseline.of(one > 0, np.zeros(8000), ids, wrong, probability, weights)

    found = excess_at_own_rate(student, teacher, [told(one, weights) for one in near], documents)
    assert found.difference_ci95[0] < 0 < found.difference_ci95[1]
    assert abs(found.difference) < 0.02
    unknown = [told(one, None) for one in near]
    assert excess_at_own_rate(student, teacher, unknown, documents) == NO_EXCESS
    weaker = student & (rng.random(8000) < 0.2)
    cut = excess_at_own_rate(weaker, teacher, unknown, documents)
    assert cut == excess_at_own_rate(weaker, teacher, [told(one, weights) for one in near], documents)


def test_a_cut_counts_what_an_example_stands_for():
    one = Baseline(
        np.array([1, 0, 0], bool), np.array([3.0, 0.5, 0.2]), np.zeros(3, bool), np.array([1.0, 4, 5])
    )
    assert at_count(one, 3).tolist() == pytest.approx([1, 2, 0], abs=1e-5)
    assert at_count(one, 8).tolist() == pytest.approx([1, 4, 3], abs=1e-5)
    assert at_count(one, 10).tolist() == pytest.approx([1, 4, 5])
    own = one._replace(stands=None)
    assert at_count(own, 1).tolist() == [1, 0, 0]


def test_a_cut_keeps_the_nearest_and_shares_ties():
    memorized = np.array([1, 1, 0, 0, 0], bool)
    one = Baseline(memorized, np.array([2.9, 2.1, 0.5, 0.5, -1.0]), ~memorized, np.ones(5))
    assert at_count(one, 0).tolist() == [0, 0, 0, 0, 0]
    assert at_count(one, 1).tolist() == [1, 0, 0, 0, 0]
    assert at_count(one, 3).tolist() == [1, 1, 0.5, 0.5, 0]
    assert at_count(one, 5).tolist() == [1, 1, 1, 1, 1]


def test_examples_are_ranked_memorized_then_near_then_by_matched_tokens():
    found = Baseline.of(
        memorized=np.array([0, 1, 0, 0, 1, 0], bool),
        matched=np.array([0.9, 1.0, 0.1, 0.2, 1.0, 0.1]),
        scored=np.array([1, 2, 4, 5]),
        wrong=np.array([0.0, 0.02, 0.0, 0.5]),
        probability=np.array([0.6, 0.9, 0.8, 0.1]),
    )
    assert np.argsort(-found.nearness).tolist() == [4, 1, 2, 5, 0, 3]
    assert found.nearly.tolist() == [False, False, True, False, False, False]


# Of five examples with ten tokens each.
FOUND: Any = SimpleNamespace(
    exposed=np.array([1, 0, 0, 0, 0], bool), rows=pa.table({"matched_tokens": [10, 3, 0, 6, 5]})
)
AUDITED: Any = SimpleNamespace(name="baseline")


def test_what_was_scored_for_a_student_that_left_does_not_rank_a_baseline():
    """Else what that student alone memorizes would be nearer than what no model does."""
    columns = [[0, 1, 2, 3], [0, 1, 4, 0], np.log([0.9, 0.5, 0.25, 0.5])]
    table = pa.table(columns, schema=NEARNESS_SCHEMA)
    work: Any = SimpleNamespace(run=SimpleNamespace(read_table=lambda _: table), scoring=None)
    compared = np.array([1, 1, 1, 0, 0], bool)
    found = read_baseline(work, AUDITED, FOUND, compared, np.full(5, 10))
    assert found.nearness == pytest.approx([2.9, 1.4, 0.85, -0.4, -0.5])
    assert found.nearly.tolist() == [False, True, False, False, False]


def test_a_baseline_is_as_near_as_the_scoring_pass_says():
    right = [10, 9, 6]
    values = {
        "example_id": [0, 1, 3],
        "log_probabilities": [np.log([p] * 10) for p in (0.9, 0.5, 0.25)],
        "hits": [np.arange(10) < count for count in right],
    }
    scores = pa.table([values[name] for name in values], names=[*values]).cast(
        pa.schema([SCORES_SCHEMA.field(name) for name in values])
    )
    sample = pa.table({"example_id": [0, 1, 3], "weight": [1.0, 1.0, 3.0]})
    run = SimpleNamespace(
        shards=lambda _: ["shard"],
        read_table=lambda name, columns=None: scores.select(columns) if name == "shard" else sample,
    )
    work: Any = SimpleNamespace(run=run, scoring=Scoring(None, holdout=False))
    found = read_baseline(work, AUDITED, FOUND, np.ones(5, bool), np.full(5, 10))
    assert found.nearness == pytest.approx([2.9, 1.4, -1.0, 0.85, -0.5])
    assert found.nearly.tolist() == [False, True, False, False, False]
    assert found.stands.tolist() == [1, 1, 0, 3, 0]


def test_one_window_a_document_changes_no_interval():
    rng = np.random.default_rng(7)
    first, second = rng.random(500) < 0.1, rng.random(500) < 0.2
    documents, table = Documents(np.arange(500)), PairedTable.of(first, second)
    assert documents.rate(first) == pytest.approx(clopper_pearson(table.first, 500), abs=2e-3)
    assert documents.ratio(first, [second]) == pytest.approx(bonett_price_ratio(table), rel=0.03)


@pytest.mark.parametrize("copies", [2, 10])
def test_windows_that_only_repeat_their_document_add_nothing(copies):
    rng = np.random.default_rng(8)
    outcome = rng.random(400) < 0.2
    codes = np.repeat(np.arange(400), copies)
    repeated = Documents(codes).rate(outcome[codes])
    assert repeated == pytest.approx(Documents(np.arange(400)).rate(outcome), abs=1e-3)
    low, high = clopper_pearson(int(outcome.sum()) * copies, 400 * copies)
    assert repeated[1] - repeated[0] > 1.3 * (high - low)


def test_no_memorized_window_says_no_more_than_the_documents_do():
    documents = Documents(np.repeat(np.arange(50), 30))
    assert documents.rate(np.zeros(1500, bool)) == clopper_pearson(0, 50)
    assert documents.rate(np.ones(1500, bool)) == clopper_pearson(50, 50)


def test_a_single_document_bounds_nothing():
    documents = Documents(np.zeros(100, np.int64))
    half = np.arange(100) < 50
    assert documents.rate(half) == (0.0, 1.0)
    assert documents.difference(half, [~half]) == (None, None)
    assert documents.ratio(half, [~half]) == (0.0, None)


def test_a_student_without_any_of_it_is_as_uncertain_as_its_documents_are_few():
    rng = np.random.default_rng(9)
    documents = np.repeat(np.arange(30), 4)
    teacher, *baselines = (rng.random(120) < 0.7 for _ in range(4))
    none = np.zeros(120, bool)
    found = excess_over_chance(none, teacher, baselines, Documents(documents))
    missed = np.any([teacher & ~one for one in baselines], axis=0)
    upper = clopper_pearson(0, len(set(documents[missed])))[1]
    assert found.difference == -found.floor
    assert found.difference_ci95[1] >= found.difference + upper
    assert found.difference_ci95[0] < found.difference
    assert found.ratio_ci95[0] == 0
    assert found.ratio_ci95[1] > upper / found.floor
    silent = excess_over_chance(none, teacher, [none, none], Documents(documents))
    assert (silent.difference, silent.ratio) == (0, None)
    assert silent.difference_ci95[0] < -0.08
    assert silent.difference_ci95[1] > 0.08


@pytest.mark.parametrize("documents", [2, 3, 6, 20])
def test_few_documents_widen_the_interval(documents):
    rng = np.random.default_rng(documents)
    codes, held = np.repeat(np.arange(documents), 6), 0
    for _ in range(120):
        odds = rng.normal(size=documents)[codes] + rng.normal(size=documents * 6)
        teacher, *baselines, student = (rng.logistic(size=len(odds)) < odds + 1 for _ in range(4))
        found = excess_over_chance(student, teacher, baselines, Documents(codes))
        low, high = found.difference_ci95 or (None, None)
        held += (low is None or low <= 0) and (high is None or high >= 0)
    assert held >= 120 * 0.9


def test_one_document_leaves_the_excess_open():
    bits = ("11110000", "11000000", "10000000", "00010000")
    teacher, student, *baselines = (np.array([int(bit) for bit in text], bool) for text in bits)
    found = excess_over_chance(student, teacher, baselines, Documents(np.zeros(8, np.int64)))
    assert found.difference_ci95 == (None, None)
    assert found.ratio_ci95 == (0.0, None)
    many = [np.tile(one, 50) for one in (student, teacher, *baselines)]
    equal = excess_over_chance(*many[:2], many[2:], Documents(np.repeat(np.arange(50), 8)))
    assert equal.difference == pytest.approx(found.difference)
    assert equal.difference_ci95[0] < equal.difference - 0.05
    assert equal.difference_ci95[1] > equal.difference + 0.05


def _leaving_out(codes, outcome):
    """The jackknife's variance of a share, document by document."""
    every = np.unique(codes)
    without = [outcome[codes != one].mean() for one in every]
    return (len(every) - 1) / len(every) * sum((one - outcome.mean()) ** 2 for one in without)


@pytest.mark.parametrize("sizes", [[8] * 30, [40, *[5] * 30], [1, 2, 3, 5, 7, 7, 9, 12, 20]])
def test_a_share_has_the_variance_that_leaving_out_documents_gives(sizes):
    rng = np.random.default_rng(len(sizes))
    codes = np.repeat(np.arange(len(sizes)), sizes)
    outcome = rng.random(len(codes)) < rng.beta(0.5, 0.5, len(sizes))[codes]
    documents, share = Documents(codes), outcome.mean()
    alike = sum(sizes) ** 2 / sum(one * one for one in sizes)
    assert documents.alike == pytest.approx(alike)
    few = (t.ppf(0.975, alike - 1) / norm.ppf(0.975)) ** 2
    independent = share * (1 - share) / _leaving_out(codes, outcome)
    assert documents.effective(outcome) == pytest.approx(min(independent, len(codes)) / few)


def test_a_giant_among_small_documents_is_hardly_more_than_one():
    codes = np.repeat(np.arange(30), [1000, *[5] * 29])
    documents, none = Documents(codes), np.zeros(len(codes), bool)
    assert documents.rate(none)[1] > 0.8
    one = none.copy()
    one[-1] = True
    assert documents.rate(one)[1] > 0.8, "a window of a small document bounds the giant no better"
    assert documents.difference(one, [none]) == (None, None)
    assert documents.ratio(one, [~one]) == (0.0, None)


@pytest.mark.parametrize("sizes", [[300, *[4] * 40], [200, 200, *[5] * 30], [*range(1, 41)]])
def test_intervals_hold_the_rate_where_documents_are_unlike(sizes):
    rng = np.random.default_rng(len(sizes))
    codes = np.repeat(np.arange(len(sizes)), sizes)
    documents, held = Documents(codes), 0
    for _ in range(200):
        low, high = documents.rate(rng.random(len(codes)) < rng.beta(0.3, 0.7, len(sizes))[codes])
        held += low <= 0.3 <= high
    assert held / 200 >= 0.92


def test_excess_is_as_uncertain_as_a_giant_document_leaves_it():
    rng = np.random.default_rng(12)
    codes, held = np.repeat(np.arange(21), [200, *[5] * 20]), 0
    for _ in range(100):
        odds = rng.normal(size=21)[codes] + rng.normal(size=len(codes))
        teacher, *baselines = (rng.logistic(size=len(odds)) < odds + 1 for _ in range(3))
        student = rng.logistic(size=len(odds)) < odds + 1 + 2 * rng.normal(size=21)[codes]
        low, high = excess_over_chance(student, teacher, baselines, Documents(codes)).difference_ci95
        held += low is not None and high is not None and high - low > 0.3
    assert held >= 95, "how one document fares says little of others"


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ((100, 40), True),
        ((100, 90, 0), True),
        ((100, 60), False),
        ((8, 3), False),
        ((100,), False),
        ((), False),
    ],
)
def test_baselines_of_unlike_trainings_are_told(counts, told):
    flags = {f"baseline-{place}": np.arange(500) < count for place, count in enumerate(counts, 1)}
    notes = unlike_notes(flags)
    assert bool(notes) == told
    if told:
        least = f"baseline-{len(counts)} {counts[-1]}"
        assert f"{least} and baseline-1 100" in notes[0].text


def test_a_baseline_that_memorizes_nothing_makes_chance_inherit():
    """What the note is for: a broken second baseline halves the floor, and a bystander seems to inherit."""
    rng = np.random.default_rng(14)
    chance, documents = rng.random(4000), Documents(np.arange(4000))
    teacher, baseline, student = (rng.random(4000) < chance for _ in range(3))
    broken = np.zeros(4000, bool)
    found = excess_over_chance(student, teacher, [baseline, broken], documents)
    assert found.difference_ci95[0] > 0.1
    assert unlike_notes({"baseline-1": baseline, "baseline-2": broken})
