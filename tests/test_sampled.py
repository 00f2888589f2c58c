"""Extraction by sampling: the rates, their intervals, expected queries, and what the pages say of them."""

from __future__ import annotations

import math
from math import inf
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sample_results import sample_dict, sample_leaks

from kdaudit.analysis.by_document import Documents
from kdaudit.analysis.intervals import clopper_pearson
from kdaudit.analysis.leaks import Continuation, LeakText
from kdaudit.analysis.strata import Strata
from kdaudit.attacks.sampled import discoverable, expected_queries
from kdaudit.pipelines.stages.attack_results import _discovered, _inherited
from kdaudit.pipelines.stages.measured import SampleProbabilities
from kdaudit.pipelines.stages.scores import draw
from kdaudit.reporting.formatting import percent
from kdaudit.reporting.leak_cards import full_cards
from kdaudit.reporting.other_attacks import attack_rows, sampled_rows, worst_attack
from kdaudit.reporting.personal_data_counts import count_tags
from kdaudit.reporting.render import render
from kdaudit.reporting.view import page
from kdaudit.schemas.attacks import PROBABILITIES
from kdaudit.schemas.results import AuditResults, Leak


def test_a_target_is_discoverable_if_some_sample_of_n_holds_it_with_p() -> None:
    dice = np.random.default_rng(0)
    p_z = np.concatenate([10.0 ** -dice.uniform(0, 8, 500), [0.0, 1.0, 0.5, 1 - 0.5**0.1]])
    with np.errstate(divide="ignore"):
        log_probability = np.log(p_z)
    for queries in (1, 10, 1000, 10**6):
        for p in PROBABILITIES:
            found = discoverable(log_probability, queries, p).tolist()
            none = [math.exp(queries * math.log1p(-one)) if one < 1 else 0.0 for one in p_z]
            clear = [abs(1 - each - p) > 1e-9 for each in none]
            expected = [1 - each >= p for each in none]
            assert [a for a, kept in zip(found, clear, strict=True) if kept] == [
                b for b, kept in zip(expected, clear, strict=True) if kept
            ]


def test_expected_queries_are_one_over_the_probability() -> None:
    found = expected_queries(np.array([0.0, math.log(0.25), -math.inf, -2000.0]))
    assert found.tolist() == [1.0, pytest.approx(4.0), math.inf, math.inf]


def test_a_census_has_the_interval_of_clopper_and_pearson() -> None:
    strata = Strata.of(np.ones(50))
    counted = np.arange(50) < 7
    assert strata.share(counted) == (7 / 50, clopper_pearson(7, 50))
    assert strata.examples == 50


def test_the_estimate_of_a_sample_weighs_each_example() -> None:
    sample = draw(1000, np.array([5, 8]), 100, 3)
    ids, weights = (column.to_numpy() for column in sample.columns)
    counted = (ids % 7 == 0) | (ids == 5)
    found = Strata.of(weights).share(counted)
    assert found.rate == pytest.approx(float(weights @ counted) / 1000)
    assert found.ci95[0] < found.rate < found.ci95[1]
    nothing = Strata.of(weights).share(np.zeros(len(ids), np.bool_))
    assert nothing.rate == 0
    assert nothing.ci95[0] == 0
    assert 0.03 < nothing.ci95[1] < 0.05, "100 that are not exposed do not show that few of 998 are"


# Shares of all examples: memorized and exposed, memorized and not, others exposed, others not.
FAMILIES = [
    (0.003, 0.001, 0.002),
    (0.01, 0.0, 0.0),
    (0.0, 0.001, 0.01),
    (0.05, 0.05, 0.2),
    (0.02, 0.01, 1e-4),
]


@pytest.mark.parametrize("shares", FAMILIES)
def test_intervals_of_both_strata_cover_the_share_of_all_text(shares: tuple[float, float, float]) -> None:
    """As often as they say: of 20,000 examples drawn at random, 1,000 that are not memorized are scored."""
    dice = np.random.default_rng(8)
    truth, held, rounds = shares[0] + shares[2], 0, 1500
    counts = dice.multinomial(20_000, [*shares, 1 - sum(shares)], size=rounds)
    for exposed, certain, others, rest in counts.tolist():
        hits = int(dice.hypergeometric(others, rest, 1000))
        weights = np.repeat([1.0, (others + rest) / 1000], [exposed + certain, 1000])
        counted = np.zeros(len(weights), np.bool_)
        counted[:exposed] = True
        counted[len(weights) - hits :] = hits > 0
        low, high = Strata.of(weights).share(counted).ci95
        held += low is not None and high is not None and low <= truth <= high
    assert held / rounds > 0.95 - 4 * math.sqrt(0.05 * 0.95 / rounds)


def _point(p: float, queries: int, rate: float) -> dict[str, Any]:
    return {"p": p, "queries": queries, "rate": rate, "ci95": [rate * 0.9, rate * 1.2]}


def _sampled(rate: float, **changes: Any) -> dict[str, Any]:
    curve = [_point(p, n, rate * n**0.25 / 10 / (1 + p)) for p in PROBABILITIES for n in (1, 10, 1000)]
    return {"temperature": 1.0, "top_k": 40, "examples": 10**6, "scored": 21_000, "curve": curve, **changes}


_NEAR = {
    "max_edit_distance": 0.1,
    "examples": 10**6,
    "exposed": 840,
    "rate": 840e-6,
    "ci95": [0.0008, 0.0009],
    "distances": [742, 60, 20, 10, 5, 3],
}


def _results(**attacks: Any) -> AuditResults:
    return AuditResults.model_validate({**sample_dict(), "attacks": attacks})


def _text(results: AuditResults) -> str:
    shown = page(results, "a title", [], count_tags(results))
    return render("report.html.j2", page=shown).decode()


def test_what_is_inherited_takes_all_examples_and_every_model_of_the_family() -> None:
    def drawn(chances: list[float], weight: float = 1.0) -> SimpleNamespace:
        found = SampleProbabilities(np.arange(4), np.array([1.0, 1.0, 1.0, weight]), np.log(chances))
        return SimpleNamespace(drawn=found)

    measured = {
        "teacher": drawn([0.9, 0.01, 0.5, 1e-9]),  # 100 samples hold the first three as likely as not
        "baseline": drawn([0.9, 1e-9, 1e-9, 1e-9]),
        "soft": drawn([1e-9, 0.02, 1e-9, 0.9]),
    }
    audited: Any = SimpleNamespace(
        models=SimpleNamespace(
            teacher=SimpleNamespace(name="teacher"), baselines=[SimpleNamespace(name="baseline")]
        ),
        config=SimpleNamespace(attacks=SimpleNamespace(sampled=SimpleNamespace(queries=(1, 100)))),
        by_model=measured,
        family=SimpleNamespace(documents=Documents(np.arange(4))),
    )
    found = _inherited(audited, "soft", _discovered)
    assert found is not None
    assert (found.teacher_specific, found.inherited) == (2, 1)
    measured["baseline"] = drawn([0.9, 1e-9, 1e-9, 1e-9], weight=3.0)
    assert _inherited(audited, "soft", _discovered) is None


def test_the_page_has_a_row_for_each_model_and_p() -> None:
    results = _results(
        teacher={"sampled": _sampled(0.01)}, soft={"near_verbatim": _NEAR}, hard={"sampled": _sampled(0.002)}
    )
    rows = sampled_rows(attack_rows(results))
    assert [(row.name, row.p) for row in rows] == [
        (name, p) for name in ("teacher", "hard") for p in PROBABILITIES
    ]
    assert [point.queries for point in rows[0].points] == [1, 10, 1000]
    text = _text(results)
    section = text[text.index('aria-labelledby="attacks"') :].partition("</section>")[0]
    assert "Sampled 1,000 times, p ≥ 0.5" in section
    assert "each token from the 40 likeliest" in section
    assert "estimated from 21,000 of 1,000,000 examples" in section
    for row in rows:
        for point in row.points:
            assert f">{percent(point.rate)}<" in section
    assert section.count("not run") == 6
    everything = _text(_results(hard={"sampled": _sampled(0.002, top_k=None, scored=10**6)}))
    assert "from all tokens" in everything
    assert "estimated from" not in everything


def test_the_key_figure_is_the_worst_attack_on_each_student() -> None:
    found = worst_attack(
        _results(
            teacher={"sampled": _sampled(0.5)},
            soft={"near_verbatim": _NEAR, "sampled": _sampled(0.0001)},
            hard={"near_verbatim": _NEAR, "sampled": _sampled(0.01)},
        )
    )
    assert found is not None
    assert found.lead is not None
    rate = 0.01 * 1000**0.25 / 10 / 1.5
    assert found.lead.value == percent(rate)
    assert found.lead.of == "student “hard” (hard KD), the worst of 2 students"
    assert found.lead.sentence == (
        f"Student “hard” reveals {percent(rate)} of the examples to 1,000 samples of each with a "
        "probability of 0.5 or more; greedy decoding gives 0.074% word for word."
    )
    (other,) = found.others
    assert other.counts == "840 of 1,000,000 examples, near-verbatim"
    assert "with at most 10% of the tokens changed" in other.sentence
    assert worst_attack(_results()) is None
    assert worst_attack(_results(teacher={"sampled": _sampled(0.5)})) is None


def test_a_leak_says_how_many_samples_it_takes() -> None:
    said = [
        Continuation("never", 0, "x", inf),
        Continuation("many", 0, "x", 3e12),
        Continuation("some", 3, "abc", 12.34),
        Continuation("old", 0, "x"),
    ]
    (leak,) = [one for one in sample_leaks() if one["example_id"] == sample_leaks()[0]["example_id"]]
    card = full_cards([Leak.model_validate(leak)], {leak["example_id"]: LeakText(0, 0, "a", "b", said)})[0]
    assert card.text is not None
    assert [(one.model, one.words) for one in card.text.queries] == [
        ("some", "12"),
        ("many", "over 1,000,000,000"),
        ("never", "never"),
    ]


def test_the_curves_are_drawn_where_there_is_a_line_to_draw() -> None:
    models = {"teacher": {"sampled": _sampled(0.01)}, "hard": {"sampled": _sampled(0.002)}}
    results = _results(**models)
    chart = page(results, "a title", [], count_tags(results)).queries
    assert chart is not None
    assert [tick.label for tick in chart.x_ticks] == ["1", "10", "1,000"]
    ends = {line.name: line.end for line in chart.lines}
    assert ends["teacher"][0] == ends["hard"][0] == chart.x_ticks[-1].at
    assert ends["teacher"][1] < ends["hard"][1], "a larger share is higher up"
    assert 'id="queries-t"' in _text(results)
    single = [one for one in _sampled(0.01)["curve"] if one["queries"] == 10]
    none = [_point(p, n, 0.0) for p in PROBABILITIES for n in (1, 10)]
    for curve in (single, none):
        without = _results(hard={"sampled": _sampled(0.01, curve=curve)})
        assert page(without, "a title", [], count_tags(without)).queries is None
        assert 'id="queries-t"' not in _text(without)
