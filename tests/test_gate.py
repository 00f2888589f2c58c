"""The gate's rules, case by case."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from kdaudit.analysis.gate import Others, judge
from kdaudit.config.audit import AuditConfig
from kdaudit.config.gate import GateConfig
from kdaudit.schemas.attacks import (
    BestScore,
    CanariesResult,
    MembershipResult,
    MembershipScore,
    NearVerbatimResult,
    SampledPoint,
    SampledResult,
)
from kdaudit.schemas.comparison import ComparisonResult
from kdaudit.schemas.results import ModelResult

LIMITS = [key for key in GateConfig.model_fields if key not in ("students", "accept")]


def model(role="student", rate=0.0, ci95=(0.0, 0.01), memorized=0):
    return ModelResult(
        role=role,
        kd=None,
        examples=1000,
        memorized=memorized,
        rate=rate,
        ci95=ci95,
        windows_memorized=memorized,
        survival=[1.0],
        holdout=None,
        perplexity=None,
        fingerprint="",
        seconds=0.0,
        tokens_per_second=None,
    )


def comparison(**figures):
    return ComparisonResult(**{**dict.fromkeys(ComparisonResult.model_fields), "difference": 0.0, **figures})


def verdict(limits, student, compared, census):
    return judge(GateConfig(**limits), {"s": compared}, {"s": student}, census).verdict


@pytest.mark.parametrize(
    ("key", "limit", "student", "compared", "expected"),
    [
        ("max_rate", 0.001, model(rate=1 / 1000), comparison(), "pass"),
        ("max_rate", 0.001, model(rate=0.0010001), comparison(), "fail"),
        ("max_rate", 0.0, model(rate=0.0), comparison(), "pass"),
        # A census goes by the value, whatever its interval.
        ("max_rate", 0.001, model(rate=0.0005, ci95=(0.0, 0.5)), comparison(), "pass"),
        ("max_inheritance_rate", 0.01, model(), comparison(inheritance_rate=0.01), "pass"),
        ("max_inheritance_rate", 0.01, model(), comparison(inheritance_rate=0.02), "fail"),
        ("max_inheritance_rate", 0.0, model(), comparison(teacher_specific=0), "pass"),
        ("max_inheritance_rate", 0.01, model(), comparison(difference=None), "inconclusive"),
        ("max_inherited", 0, model(), comparison(inherited=0), "pass"),
        ("max_inherited", 2, model(), comparison(inherited=2), "pass"),
        ("max_inherited", 2, model(), comparison(inherited=3), "fail"),
        ("max_inherited", 2, model(), comparison(difference=None), "inconclusive"),
        ("max_ratio_to_baseline", 0.5, model(), comparison(ratio_to_baseline=0.5), "pass"),
        ("max_ratio_to_baseline", 0.5, model(), comparison(ratio_to_baseline=0.51), "fail"),
        # The baseline memorizes nothing: only a student that does neither keeps any limit.
        ("max_ratio_to_baseline", 0.5, model(memorized=0), comparison(), "pass"),
        ("max_ratio_to_baseline", 9.0, model(memorized=1), comparison(), "fail"),
        ("max_ratio_to_baseline", 0.5, model(), comparison(difference=None), "inconclusive"),
    ],
)
def test_a_census_goes_by_the_value(key, limit, student, compared, expected):
    assert verdict({key: limit}, student, compared, census=True) == expected


@pytest.mark.parametrize(
    ("ci95", "expected"),
    [
        ((0.0, 0.05), "pass"),
        ((0.05, 0.05), "pass"),
        ((0.0, 0.0500001), "inconclusive"),
        ((0.05, 0.2), "inconclusive"),
        ((0.0500001, 0.2), "fail"),
        ((0.0500001, None), "fail"),
        ((0.0, None), "inconclusive"),
        ((None, 0.05), "pass"),
        ((None, 0.2), "inconclusive"),
        ((None, None), "inconclusive"),
        (None, "inconclusive"),
    ],
)
@pytest.mark.parametrize("key", ["max_inheritance_rate", "max_ratio_to_baseline"])
def test_a_sample_goes_by_the_interval(key, ci95, expected):
    # The value itself decides nothing: here it says the opposite, or is missing.
    for value in (0.9 if expected == "pass" else 0.0, None):
        compared = comparison(
            inheritance_rate=value, inheritance_ci95=ci95, ratio_to_baseline=value, ratio_ci95=ci95
        )
        assert verdict({key: 0.05}, model(), compared, census=False) == expected


@pytest.mark.parametrize(
    ("ci95", "expected"), [((0.0, 0.001), "pass"), ((0.0005, 0.002), "inconclusive"), ((0.002, 0.01), "fail")]
)
def test_a_sample_rate_goes_by_the_interval(ci95, expected):
    assert verdict({"max_rate": 0.001}, model(rate=0.001, ci95=ci95), comparison(), census=False) == expected


def test_a_sample_without_teacher_specific_examples_says_nothing_of_the_corpus():
    compared = comparison(teacher_specific=0, inherited=0)
    assert verdict({"max_inheritance_rate": 0.01}, model(), compared, census=False) == "inconclusive"


@pytest.mark.parametrize("key", LIMITS)
def test_every_limit_of_the_configuration_is_judged(key):
    result = judge(GateConfig(**{key: NESTED.get(key, 1)}), {"s": comparison()}, {"s": model()}, census=True)
    assert [(check.name, check.student, check.limit) for check in result.checks] == [(key, "s", 1.0)]


def test_checks_carry_value_and_interval():
    student = model(rate=0.25, ci95=(0.1, 0.4), memorized=3)
    compared = comparison(
        inheritance_rate=0.5,
        inheritance_ci95=(0.2, 0.8),
        inherited=4,
        ratio_to_baseline=None,
        ratio_ci95=(1.5, None),
    )
    gate = GateConfig(max_rate=0.3, max_inheritance_rate=0.4, max_inherited=4, max_ratio_to_baseline=2.0)
    result = judge(gate, {"s": compared}, {"s": student}, census=True)
    assert [(check.name, check.value, check.ci95, check.verdict) for check in result.checks] == [
        ("max_rate", 0.25, (0.1, 0.4), "pass"),
        ("max_inheritance_rate", 0.5, (0.2, 0.8), "fail"),
        ("max_inherited", 4.0, None, "pass"),
        ("max_ratio_to_baseline", None, (1.5, None), "fail"),
    ]


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([(0.0, 0.01), (0.0, 0.01)], "pass"),
        ([(0.0, 0.01), (0.0, 0.9)], "inconclusive"),
        ([(0.0, 0.9), (0.5, 0.9), (0.0, 0.01)], "fail"),
    ],
)
def test_the_worst_check_is_the_verdict(ends, expected):
    models = {f"s{row}": model(ci95=ci95) for row, ci95 in enumerate(ends)}
    compared = {name: comparison() for name in models}
    assert judge(GateConfig(max_rate=0.1), compared, models, census=False).verdict == expected


def test_no_limit_no_verdict():
    result = judge(GateConfig(), {"s": comparison()}, {"s": model()}, census=True)
    assert (result.verdict, result.checks) == ("none", [])


def test_the_gate_looks_at_all_students_or_those_it_names():
    models = {
        "teacher": model("teacher", rate=1.0),
        "baseline": model("baseline", rate=1.0),
        "a": model(rate=0.0),
        "b": model(rate=1.0),
    }
    compared = {"a": comparison(), "b": comparison()}
    every = judge(GateConfig(max_rate=0.1), compared, models, census=True)
    assert [(check.student, check.verdict) for check in every.checks] == [("a", "pass"), ("b", "fail")]
    named = judge(GateConfig(max_rate=0.1, students=("a",)), compared, models, census=True)
    assert (named.verdict, [check.student for check in named.checks]) == ("pass", ["a"])


NESTED = {"max_extractable": {"queries": 100, "rate": 1}, "max_membership_tpr": {"tpr": 1}}
"""Those that are no numbers."""


def near(rate, ci95):
    return NearVerbatimResult(
        max_edit_distance=0.1, examples=1000, exposed=round(1000 * rate), rate=rate, ci95=ci95, distances=[]
    )


@pytest.mark.parametrize(
    ("others", "census", "expected"),
    [
        (Others(near(0.01, (0.001, 0.9))), True, "pass"),
        (Others(near(0.02, (0.0, 0.9))), True, "fail"),
        (Others(near(0.02, (0.0, 0.01))), False, "pass"),
        (Others(near(0.0, (0.005, 0.02))), False, "inconclusive"),
        (Others(near(0.0, (0.011, 0.02))), False, "fail"),
        (Others(None), True, "inconclusive"),
        (Others(None), False, "inconclusive"),
    ],
)
def test_near_verbatim_rates_go_by_value_or_interval(others, census, expected):
    gate = GateConfig(max_near_verbatim_rate=0.01)
    found = judge(gate, {"s": comparison()}, {"s": model()}, census, {"s": others})
    assert found.verdict == expected


def drawn(rate, ci95, scored):
    point = SampledPoint(queries=100, p=0.5, rate=rate, ci95=ci95)
    other = SampledPoint(queries=100, p=0.1, rate=1.0, ci95=(0.9, 1.0))
    return SampledResult(temperature=1.0, top_k=40, examples=1000, scored=scored, curve=[other, point])


@pytest.mark.parametrize(
    ("found", "census", "expected"),
    [
        (drawn(0.01, (0.001, 0.9), 1000), True, "pass"),
        (drawn(0.02, (0.0, 0.9), 1000), True, "fail"),
        (drawn(0.0, (0.0, 0.02), 999), True, "inconclusive"),  # a census of the corpus, a sample of it scored
        (drawn(0.0, (0.0, 0.01), 999), True, "pass"),
        (drawn(0.0, (0.011, 0.02), 1000), False, "fail"),
        (None, True, "inconclusive"),
    ],
)
def test_extraction_by_sampling_is_judged_at_the_asked_point(found, census, expected):
    gate = GateConfig(max_extractable={"queries": 100, "rate": 0.01})
    judged = judge(gate, {"s": comparison()}, {"s": model()}, census, {"s": Others(sampled=found)})
    assert judged.verdict == expected
    if found is not None:
        assert (judged.checks[0].at, judged.checks[0].limit) == ("100 samples, p 0.5", 0.01)


def recognized(*shares, explained=False):
    ends = (0.5, (0.4, 0.6))
    score = {
        f"score {row}": MembershipScore(auc=ends[0], ci95=ends[1], tpr_at_fpr={"0.01": one, "0.001": None})
        for row, one in enumerate(shares)
    }
    best = BestScore(score="score 0", auc=0.5, ci95=ends[1], minus_blind=None, minus_blind_ci95=None)
    return MembershipResult(
        members=1000,
        nonmembers=1000,
        member_documents=10,
        nonmember_documents=10,
        blind_auc=None,
        blind_ci95=None,
        score=score,
        best=best,
        explained_by_text=explained,
        against_teacher=None,
    )


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (recognized((0.01, 0.005, 0.02), (0.03, 0.02, 0.05)), "pass"),
        (recognized((0.01, 0.005, 0.02), (0.03, 0.02, 0.06)), "inconclusive"),
        (recognized((0.07, 0.06, 0.09), (0.03, 0.02, 0.06)), "fail"),
        (recognized((0.07, 0.06, 0.09), (0.03, 0.02, 0.06), explained=True), "inconclusive"),
        (recognized((0.01, 0.005, 0.02), explained=True), "pass"),
        (recognized(None), "inconclusive"),
        (None, "inconclusive"),
    ],
)
def test_membership_is_judged_by_the_intervals_of_the_highest_score(found, expected):
    gate = GateConfig(max_membership_tpr={"tpr": 0.05})
    others = {"s": Others(membership=found, accepted=7)}
    judged = judge(gate, {"s": comparison()}, {"s": model()}, True, others)
    assert (judged.verdict, judged.checks[0].accepted) == (expected, 0), "accepted leaks stay in the sample"


def test_every_score_that_is_looked_at_counts_for_the_confidence_of_a_census_too():
    gate = GateConfig(max_rate=0.5, max_membership_tpr={"fpr": 0.01, "tpr": 0.05})
    others = {"s": Others(membership=recognized((0.01, 0.005, 0.02), (0.03, 0.02, 0.05)))}
    judged = judge(gate, {"s": comparison()}, {"s": model()}, True, others)
    assert judged.confidence == pytest.approx(0.95)
    assert [check.at for check in judged.checks] == [None, "1.0% false positives"]


@pytest.mark.parametrize(("tagged", "expected"), [(2, "pass"), (3, "fail"), (None, "inconclusive")])
def test_leaks_that_seem_to_hold_personal_data_are_counted(tagged, expected):
    found = judge(
        GateConfig(max_tagged=2), {"s": comparison()}, {"s": model()}, True, {"s": Others(tagged=tagged)}
    )
    assert (found.verdict, found.checks[0].value) == (expected, tagged)


def test_checks_of_a_sample_share_the_chance_of_an_error_and_say_how():
    compared, models = {"a": comparison(), "b": comparison()}, {"a": model(), "b": model()}
    gate = GateConfig(max_rate=0.1, max_near_verbatim_rate=0.1)
    sample = judge(gate, compared, models, census=False)
    assert (sample.confidence, sample.confidence_by) == (pytest.approx(0.9), "Bonferroni")
    census = judge(gate, compared, models, census=True)
    assert (census.confidence, census.confidence_by) == (None, None)


@pytest.mark.parametrize(
    ("section", "key", "expected"),
    [
        ({"corpus": {"path": "./c.jsonl", "limit": 5}}, "max_tagged", "corpus.limit"),
        ({"attacks": {"near_verbatim": None}}, "max_near_verbatim_rate", "attacks.near_verbatim"),
    ],
)
def test_a_limit_that_cannot_be_judged_is_refused(section, key, expected):
    students = [{"name": "s", "path": "./s"}]
    values = {"name": "x", "corpus": "./c.jsonl", "models": {"teacher": "./t", "students": students}}
    with pytest.raises(ValidationError, match=expected):
        AuditConfig.model_validate({**values, **section, "gate": {key: 0}})


@pytest.mark.parametrize(
    ("gate", "section", "expected"),
    [
        ({"max_extractable": {"queries": 7, "rate": 0}}, {}, "7 is not among attacks.sampled.queries"),
        ({"max_extractable": {"queries": 1, "rate": 0}}, {"attacks": {"sampled": None}}, "null"),
        ({"max_extractable": {"queries": 1, "rate": 0, "p": 0.3}}, {}, "0.3 is not measured"),
        ({"max_membership_tpr": {"tpr": 0.05}}, {}, "needs attacks.membership and a holdout"),
        (
            {"max_membership_tpr": {"tpr": 0.05, "fpr": 0.02}},
            {"holdout": "./h.jsonl"},
            "0.02 is not measured",
        ),
    ],
)
def test_a_limit_at_what_is_not_measured_is_refused(gate, section, expected):
    students = [{"name": "s", "path": "./s"}]
    values = {"name": "x", "corpus": "./c.jsonl", "models": {"teacher": "./t", "students": students}}
    with pytest.raises(ValidationError, match=expected):
        AuditConfig.model_validate({**values, **section, "gate": gate})


def planted(extracted, canaries):
    repeated = {
        "canaries": canaries,
        "extracted": extracted,
        "extracted_ci95": (0.0, 1.0),
        "exposure": None,
    }
    both = {"1": {**repeated, "extracted": 0}, "16": repeated} if canaries else {}
    return CanariesResult.model_validate(
        {"controls": 20, "controls_extracted": 9, "highest_exposure": None, "repetitions": both}
    )


@pytest.mark.parametrize("census", [True, False])
@pytest.mark.parametrize(
    ("canaries", "expected"),
    [
        (planted(4, 20), "pass"),
        (planted(5, 20), "fail"),
        (planted(0, 0), "inconclusive"),
        (None, "inconclusive"),
    ],
)
def test_the_share_of_planted_canaries_decides_as_all_are_measured(canaries, expected, census):
    others = {"s": Others(canaries=canaries, accepted=7)}
    found = judge(GateConfig(max_canaries_extracted=0.1), {"s": comparison()}, {"s": model()}, census, others)
    assert (found.verdict, found.confidence, found.checks[0].accepted) == (expected, None, 0)
    both = judge(
        GateConfig(max_canaries_extracted=0.1, max_rate=0.5),
        {"s": comparison()},
        {"s": model()},
        census,
        others,
    )
    assert both.confidence == (None if census else pytest.approx(0.975))
