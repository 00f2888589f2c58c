"""The predictor against closed forms, defining equations and another optimizer; bad input against its words.

Two normal classes with equal spread have known odds, AUC, recall and precision: D is the distance between
their means in standard deviations.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit
from scipy.stats import norm

from kdaudit.errors import UsageError
from kdaudit.risk import (
    FEATURES,
    Predictor,
    PredictorSettings,
    Table,
    family_warnings,
    features_for,
    fit_predictor,
    load_predictor,
    reasons,
    risk_histogram,
    splits,
)
from kdaudit.risk.curves import draw_curves
from kdaudit.risk.guarantee import strongest_bound
from kdaudit.risk.logistic import fit_logistic
from kdaudit.risk.splits import FOLDS, draw_folds, draw_trial, find_groups
from kdaudit.risk.terms import to_terms
from kdaudit.runs.arrow_schemas import FEATURES_SCHEMA, FLAGGED_SCHEMA
from kdaudit.schemas.predictor import Origin

ORIGIN = Origin(
    teacher="teacher",
    baselines=("baseline",),
    family="gpt_neox",
    corpus="corpus",
    labels="student",
    student="soft",
    prefix_tokens=50,
    suffix_tokens=50,
)
SETTINGS = PredictorSettings(trials=20, recall=0.95, confidence=0.95, seed=1)
SHIFT = np.array([-1.5, -0.8, -0.6, 0.5])
SPREAD = np.array([0.7, 0.5, 0.4, 0.2])
MEAN = np.array([4.0, 2.5, 2.8, 0.4])
D = float(np.linalg.norm(SHIFT))


def draw(positives: int, others: int, seed: int = 0) -> Table:
    """Two normal classes in the formula's terms, D standard deviations apart; each row is its own group."""
    rng = np.random.default_rng(seed)
    positive = np.arange(positives + others) < positives
    terms = MEAN + SPREAD * (rng.normal(size=(positives + others, 4)) + np.where(positive[:, None], SHIFT, 0))
    order = rng.permutation(len(terms))
    features = terms[order]
    features[:, 1:3] = np.exp(features[:, 1:3])
    return Table(features, positive[order], np.arange(len(terms)))


@pytest.fixture(scope="module")
def table():
    return draw(400, 8000)


@pytest.fixture(scope="module")
def fitted(table):
    return fit_predictor(table, SETTINGS, ORIGIN)


def predictor_dict(**changes) -> dict:
    numbers = {
        "features": ["zlib_entropy", "teacher_perplexity"],
        "logarithms": ["teacher_perplexity"],
        "means": {"zlib_entropy": 4.0, "teacher_perplexity": 2.0},
        "scales": {"zlib_entropy": 0.5, "teacher_perplexity": 0.25},
        "coefficients": {"zlib_entropy": -4.5, "teacher_perplexity": 1.0},
    }
    rest = {
        "schema_version": "1",
        "kdaudit_version": "0.1.0",
        "intercept": -3.0,
        "threshold": 0.01,
        "promise": {"recall": 0.99, "confidence": 0.95, "calibration_positives": 299},
        "positives": 400,
        "examples": 10000,
        "origin": ORIGIN.model_dump(mode="json"),
    }
    return {**numbers, **rest, **changes}


# The model


def test_risk_is_the_formula_in_the_file():
    predictor = Predictor.model_validate_json(json.dumps(predictor_dict()))
    z = -3.0 - 4.5 * (3.2 - 4.0) / 0.5 + 1.0 * (math.log(6.5) - 2.0) / 0.25
    assert predictor.risk(np.array([[3.2, 6.5]])) == pytest.approx([1 / (1 + math.exp(-z))], rel=1e-12)
    assert predictor.flagged(np.array([0.009, 0.01, 0.5])).tolist() == [False, True, True]


@pytest.mark.parametrize("weighted", [False, True])
def test_fit_is_the_minimum_of_the_penalized_loss(weighted):
    rng = np.random.default_rng(3)
    positive = rng.random(300) < 0.1
    terms = rng.normal([5, -2, 0], [3, 0.1, 1], (300, 3)) + positive[:, None] * [2.0, -0.1, 0.5]
    weight = np.where(positive, 1.0, 7.0) if weighted else np.ones(300)
    mean = np.average(terms, axis=0, weights=weight)
    spread = np.sqrt(np.average((terms - mean) ** 2, axis=0, weights=weight))
    z = (terms - mean) / spread

    def loss(at):
        margins = np.where(positive, 1, -1) * (z @ at[:3] + at[3])
        return (weight * np.log1p(np.exp(-margins))).sum() + 0.5 * 3 / 4 * (at[:3] ** 2).sum()

    found = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-7}).x
    model = fit_logistic(terms, positive, weight if weighted else None)
    assert model.coefficients == pytest.approx(found[:3], abs=1e-4)
    assert model.intercept == pytest.approx(found[3], abs=1e-4)
    assert model.means == pytest.approx(mean)
    assert model.scales == pytest.approx(spread)


@pytest.mark.parametrize(("positives", "others"), [(20, 20_000), (30, 100_000), (2_000, 2_000)])
def test_risks_sum_to_the_positives_however_rare_they_are(positives, others):
    terms = to_terms(draw(positives, others).features, FEATURES)
    positive = draw(positives, others).positive
    assert expit(fit_logistic(terms, positive).logit(terms)).sum() == pytest.approx(positives, rel=1e-4)


def test_risk_is_the_probability_that_bayes_gives():
    table = draw(20_000, 80_000)
    fitted = fit_predictor(table, SETTINGS._replace(trials=1), ORIGIN)
    terms = table.features.copy()
    terms[:, 1:3] = np.log(terms[:, 1:3])
    z = (terms - MEAN) / SPREAD
    odds = 0.2 / 0.8 * np.exp(z @ SHIFT - D**2 / 2)
    exact = odds / (1 + odds)
    risk = fitted.predictor.risk(table.features)
    assert np.abs(risk - exact).max() < 0.05
    assert risk.mean() == pytest.approx(0.2, abs=0.005)
    for point in fitted.curves.calibration:
        assert point.y == pytest.approx(point.x, abs=0.03)


def test_a_row_has_the_same_risk_alone_and_among_others(fitted, table):
    rows = table.features[:97]
    alone = [float(fitted.predictor.risk(row[None])[0]) for row in rows]
    assert fitted.predictor.risk(rows) == pytest.approx(alone, rel=1e-12)


def test_equal_seeds_give_equal_predictors(fitted, table):
    again = fit_predictor(table, SETTINGS, ORIGIN)
    assert again == fitted
    other = fit_predictor(table, SETTINGS._replace(seed=2), ORIGIN)
    assert other.predictor.threshold != fitted.predictor.threshold


def test_perplexities_enter_as_logarithms_and_signs_are_those_of_the_classes(fitted):
    assert fitted.predictor.logarithms == ("teacher_perplexity", "baseline_perplexity")
    assert [math.copysign(1, fitted.predictor.coefficients[name]) for name in FEATURES] == [-1, -1, -1, 1]
    assert fitted.predictor.positives == 400
    assert fitted.predictor.examples == 8400


@pytest.mark.parametrize("labels", ["easy_core", "teacher", "student"])
def test_a_predictor_can_use_all_features(table, labels):
    names = features_for("all", labels)
    rng = np.random.default_rng(0)
    noise = rng.integers(1, 9, (len(table.features), len(names) - 4))
    extra = np.column_stack([table.features, noise])
    fitted = fit_predictor(Table(extra, table.positive, table.groups), SETTINGS, ORIGIN, names)
    assert tuple(fitted.predictor.coefficients) == names
    assert fitted.figures.auc.mean == pytest.approx(norm.cdf(D / math.sqrt(2)), abs=0.02)
    assert all(reasons(fitted.predictor, extra[:50]))


def test_a_label_is_not_predicted_from_what_it_is_made_of():
    """The teacher memorizes what it matches whole, and what no other token comes before in."""
    measures = ("matched", "suffix_margin", "suffix_worst")
    of = {model: {f"{model}_{one}" for one in measures} for model in ("teacher", "baseline")}
    easy, teacher, student = ({*features_for("all", one)} for one in ("easy_core", "teacher", "student"))
    assert not easy & (of["teacher"] | of["baseline"])
    assert not teacher & of["teacher"]
    assert student - easy == {"teacher_suffix_margin", "baseline_suffix_margin"}
    assert student <= {*FEATURES_SCHEMA.names}
    assert {*features_for("all", "student")} <= {*FLAGGED_SCHEMA.names}
    for one in ("easy_core", "teacher", "student"):
        assert features_for("paper", one) == FEATURES


# Figures and curves


@pytest.mark.parametrize("most", [200_000, 7_000])
def test_trials_give_the_figures_of_the_population(most, monkeypatch):
    monkeypatch.setattr(splits, "TRIAL_OTHERS", most)
    figures = fit_predictor(draw(4_000, 80_000), SETTINGS._replace(trials=40), ORIGIN).figures
    recall = norm.cdf(D / 2)
    precision = recall * 400 / (recall * 400 + (1 - recall) * 8000)
    cuts = np.linspace(-8, 8, 20_001)  # average precision: precision over the steps of recall
    hits, false = 400 * norm.sf(cuts - D), 8000 * norm.sf(cuts)
    average = np.trapezoid(hits / (hits + false), -hits / 400)
    assert figures.auc.mean == pytest.approx(norm.cdf(D / math.sqrt(2)), abs=0.01)
    assert figures.recall.mean == pytest.approx(recall, abs=0.02)
    assert figures.precision.mean == pytest.approx(precision, abs=0.04)
    assert figures.average_precision.mean == pytest.approx(average, abs=0.06)
    for spread in figures:
        assert 0 <= spread.low <= spread.mean <= spread.high <= 1


def test_subsampled_trials_are_told(table, monkeypatch):
    monkeypatch.setattr("kdaudit.risk.fit.TRIAL_OTHERS", 700)
    notes = fit_predictor(table, SETTINGS._replace(trials=1), ORIGIN).notes
    assert any(
        "draw 700 of the 8,000 examples" in note.text and "weighted back" in note.text for note in notes
    )


def test_curves_are_those_of_the_population(fitted):
    roc, precision_recall = fitted.curves.roc, fitted.curves.precision_recall
    assert (roc[0].x, roc[0].y, roc[-1].x, roc[-1].y) == (0, 0, 1, 1)
    for points in (roc, precision_recall):
        assert len(points) <= 200
        assert np.all(np.diff([point.x for point in points]) >= 0)
    area = np.trapezoid([point.y for point in roc], [point.x for point in roc])
    assert area == pytest.approx(norm.cdf(D / math.sqrt(2)), abs=0.03)


def test_precision_of_flagging_all_is_the_share_of_positives(fitted):
    last = fitted.curves.precision_recall[-1]
    assert (last.x, last.y) == (1, pytest.approx(400 / 8400, rel=1e-9))


def test_calibration_bins_expect_equally_many_positives():
    rng = np.random.default_rng(0)
    risk = 10 ** rng.uniform(-5, -0.5, 20_000)
    positive = rng.random(20_000) < risk
    found = draw_curves(risk, positive).calibration
    ranked = sorted(zip(risk.tolist(), positive.tolist(), strict=True))
    bins, expected = [[]], 0.0
    for one in ranked:  # a bin ends with the example that reaches its share of the sum of all risks
        bins[-1].append(one)
        expected += one[0]
        if len(bins) < 10 and expected >= len(bins) / 10 * risk.sum():
            bins.append([])
    assert [(p.x, p.y) for p in found] == [
        (pytest.approx(sum(r for r, _ in one) / len(one)), pytest.approx(sum(p for _, p in one) / len(one)))
        for one in bins
    ]
    held = [len(one) * point.y for one, point in zip(bins, found, strict=True)]
    assert min(held) > 0.6 * positive.sum() / 10
    assert max(len(one) for one in bins) > 20 * min(len(one) for one in bins)


@pytest.mark.parametrize(("positives", "points"), [(9, 0), (10, 2), (34, 6), (400, 10)])
def test_few_positives_fill_few_bins(positives, points):
    rng = np.random.default_rng(1)
    found = draw_curves(rng.random(2_000), np.arange(2_000) < positives).calibration
    assert len(found or []) == points


def test_equal_risks_share_a_bin():
    assert draw_curves(np.full(100, 0.2), np.arange(100) < 20).calibration is None


def test_histogram_counts_each_example_once(fitted, table):
    risk = fitted.predictor.risk(table.features)
    histogram = risk_histogram(risk, {"memorized": table.positive, "other": ~table.positive})
    assert (len(histogram["edges"]), histogram["edges"][0], histogram["edges"][-1]) == (21, 0, 1)
    assert (sum(histogram["memorized"]), sum(histogram["other"])) == (400, 8000)
    assert histogram["other"][0] == sum(risk[~table.positive] < 0.05)
    assert sum(risk_histogram(np.array([0.0, 1.0]), {"memorized": np.array([False, True])})["memorized"]) == 1


# Groups


@given(st.integers(0, 2**32 - 1))
def test_no_group_is_on_both_sides(seed):
    rng = np.random.default_rng(seed)
    groups, positive = rng.integers(0, 150, 400) * 7 - 300, rng.random(400) < 0.2
    found = find_groups(groups, positive)
    trial, folds = draw_trial(found, rng), draw_folds(found, rng)
    for train, test in ((trial.train, trial.test), *((fold.train, fold.scored) for fold in folds)):
        assert set(groups[train].tolist()).isdisjoint(groups[test].tolist())
        assert len(train) + len(test) == 400
        for rows in (train, test):
            assert 0 < positive[rows].sum() < len(rows)
    assert len(folds) == FOLDS
    assert sorted(np.concatenate([fold.scored for fold in folds]).tolist()) == list(range(400))


def test_the_threshold_comes_from_models_that_did_not_see_the_example(fitted, table):
    terms = to_terms(table.features, FEATURES)
    draws, _ = np.random.default_rng(SETTINGS.seed).spawn(2)
    scores = []
    for fold in draw_folds(find_groups(table.groups, table.positive), draws):
        model = fit_logistic(terms[fold.train], table.positive[fold.train])
        scores += [expit(model.logit(terms[[row]]))[0] for row in fold.scored if table.positive[row]]
    rank = strongest_bound(400, SETTINGS.recall, SETTINGS.confidence).rank
    assert len(scores) == 400
    assert fitted.predictor.threshold == pytest.approx(sorted(scores)[rank - 1], rel=1e-8)


def test_a_draw_of_the_others_stands_for_all_of_them_in_each_fold(monkeypatch):
    monkeypatch.setattr(splits, "TRIAL_OTHERS", 500)
    positive = np.arange(5_000) < 50
    for fold in draw_folds(find_groups(np.arange(5_000), positive), np.random.default_rng(0)):
        known = positive[fold.train]
        assert (known.sum(), fold.weight[known].sum()) == (45, 45)
        assert fold.weight[~known].sum() == pytest.approx(0.9 * 4_950, rel=0.05)
        assert 400 < np.count_nonzero(~known) < 500


def test_the_guarantee_counts_texts_and_not_their_copies():
    table = draw(60, 600)
    copied = Table(*(np.concatenate([column] * 5) for column in table[:3]))
    fitted = fit_predictor(copied, SETTINGS, ORIGIN)
    assert fitted.positives == 300
    assert fitted.predictor.promise.calibration_positives == 60
    assert fitted.predictor.promise.recall == 0.95


def test_a_text_counts_by_its_least_risky_copy():
    scores = np.array([0.9, 0.2, 0.8, 0.1, 0.7])
    found = find_groups(np.array([5, 5, 8, 8, 9]), np.array([True, True, True, False, True]))
    some = np.array([True, True, True, False, False])
    assert sorted(found.lowest(scores, some)) == [0.2, 0.8]


# What is not available


def test_guarantee_names_its_kind(fitted):
    guarantee = fitted.predictor.promise
    assert (guarantee.recall, guarantee.confidence) == (0.95, 0.95)
    assert fitted.notes[0].code == "recall_guarantee"
    assert fitted.notes[0].text == (
        "The risk predictor's recall guarantee: with 95% confidence, at least 95% of the examples that "
        "“soft” memorizes are flagged. The guarantee rests on 400 memorized texts, each scored by a model "
        "fitted without it, and holds for text of the same kind. Another student may memorize other examples."
    )


def test_too_few_for_the_guarantee_get_a_weaker_one():
    notes = fit_predictor(draw(60, 600), SETTINGS._replace(recall=0.99), ORIGIN).notes
    assert "at least 95.1%" in notes[0].text
    assert notes[1].text == (
        "The risk predictor: 60 memorized texts allow a guarantee of at most 95.1%. To guarantee 99% with "
        "95% confidence, 299 are needed."
    )


def test_too_few_for_any_guarantee():
    fitted = fit_predictor(draw(12, 600), SETTINGS._replace(confidence=0.9999), ORIGIN)
    assert fitted.predictor.promise is None
    assert "12 memorized texts allow no recall guarantee" in fitted.notes[0].text


@pytest.mark.parametrize(
    ("positives", "others", "words"),
    [
        (0, 100, "it needs 10 distinct memorized texts, and there is none"),
        (1, 100, "there is 1."),
        (9, 100, "there are 9."),
        (100, 0, "all 100 examples are memorized"),
        (100, 9, "it needs 10 distinct texts that are not memorized, and there are 9."),
        (0, 0, "there is none"),
    ],
)
def test_hardly_any_give_no_predictor_and_say_so(positives, others, words):
    fitted = fit_predictor(draw(positives, others), SETTINGS, ORIGIN)
    assert fitted[:4] == (None, None, None, positives)
    (note,) = fitted.notes
    assert (note.code, note.subject) == ("no_predictor", "predictor")
    assert words in note.text
    assert "Examples that the models were observed to memorize are still flagged" in note.text


def test_ten_copies_of_one_text_are_hardly_any():
    table = draw(50, 600)
    one_text = np.where(table.positive, -1, table.groups)
    fitted = fit_predictor(Table(table.features, table.positive, one_text), SETTINGS, ORIGIN)
    assert fitted.predictor is None
    assert "there is 1." in fitted.notes[0].text


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        (0, np.nan, "zlib_entropy is NaN or infinite for 2 of 700 examples, the first of them in row 3;"),
        (1, np.inf, "teacher_perplexity is NaN or infinite for 2 of 700"),
        (2, 0.0, "baseline_perplexity is zero or negative for 2 of 700"),
        (3, -np.inf, "kl_divergence is NaN or infinite"),
    ],
)
def test_broken_features_are_named(column, value, words, fitted):
    table = draw(100, 600)
    table.features[[3, 8], column] = value
    with pytest.raises(UsageError, match=words):
        fit_predictor(table, SETTINGS, ORIGIN)
    with pytest.raises(UsageError, match=words):
        fitted.predictor.risk(table.features)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e-300, 123456.7])
def test_a_constant_feature_does_nothing(value):
    table = draw(100, 600)
    table.features[:, 3] = value
    fitted = fit_predictor(table, SETTINGS, ORIGIN)
    assert fitted.predictor.coefficients["kl_divergence"] == 0
    assert fitted.predictor.scales["kl_divergence"] == 1
    assert any("kl_divergence is the same for all examples" in note.text for note in fitted.notes)
    three = fit_predictor(
        Table(table.features[:, :3], table.positive, table.groups), SETTINGS, ORIGIN, FEATURES[:3]
    )
    risk = fitted.predictor.risk(table.features)
    assert risk == pytest.approx(three.predictor.risk(table.features[:, :3]), rel=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("twist", ["apart", "same columns", "nothing to learn", "all constant"])
def test_hard_tables_are_fitted_without_a_warning(twist):
    table = draw(100, 600)
    if twist == "apart":
        table.features[table.positive, 0] -= 100
    elif twist == "same columns":
        table.features[:, 2] = table.features[:, 1]
    elif twist == "nothing to learn":
        table.features[:, 1:3] = np.exp(np.random.default_rng(0).normal(size=(700, 2)))
        table.features[:, [0, 3]] = np.random.default_rng(1).normal(size=(700, 2))
    else:
        table.features[:] = 1.0
    fitted = fit_predictor(table, SETTINGS, ORIGIN)
    assert fitted.predictor.flagged(fitted.predictor.risk(table.features)).any()
    assert Predictor.model_validate_json(fitted.predictor.model_dump_json()) == fitted.predictor


def test_another_shape_is_a_mistake_of_the_program(fitted):
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        fitted.predictor.risk(np.ones((2, 3)))


# predictor.json


def test_file_holds_plain_numbers_and_comes_back_equal(fitted, table, tmp_path):
    path = tmp_path / "predictor.json"
    path.write_text(fitted.predictor.model_dump_json(indent=1))
    data = json.loads(path.read_text())
    assert data["schema_version"] == "1"
    assert data["origin"]["teacher"] == "teacher"
    loaded = load_predictor(path)
    assert loaded == fitted.predictor
    risk = loaded.risk(table.features)
    assert np.array_equal(risk, fitted.predictor.risk(table.features))
    assert np.mean(risk[table.positive] < loaded.threshold) < 0.1


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a predictor's JSON"),
        (b"\x80\x04\x95", "is not a predictor's JSON"),
        (b"[1, 2]", "is not a predictor's JSON"),
        (b"[" * 100_000, "is not a predictor's JSON"),
        (predictor_dict(schema_version="2", news=1), "has another schema version than '1'"),
        ({"hello": 1}, "has another schema version than '1'"),
        (predictor_dict(news=1), "news: extra inputs"),
        (predictor_dict(threshold=1.5), "threshold: input should be less than or equal to 1"),
        (predictor_dict(intercept=math.nan), "intercept: input should be a finite number"),
        (predictor_dict(scales={"zlib_entropy": 0, "teacher_perplexity": 1}), "scales.zlib_entropy: input"),
        (predictor_dict(means={"zlib_entropy": 0}), "means has not one number for each of the features"),
        (predictor_dict(features=["zlib_entropy", "mood"]), "features names mood"),
        (predictor_dict(features=["zlib_entropy"] * 2), "features names a feature twice"),
        (predictor_dict(logarithms=[]), "logarithms must name"),
        (predictor_dict(origin={**ORIGIN.model_dump(), "labels": "guess"}), "origin.labels: input should be"),
    ],
)
def test_foreign_files_are_refused_in_one_sentence(content, words, tmp_path):
    path = tmp_path / "predictor.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    with pytest.raises(UsageError) as caught:
        load_predictor(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert words in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


def test_missing_file_and_folder_are_refused(tmp_path):
    with pytest.raises(UsageError, match=r"none\.json: cannot be read \(No such file"):
        load_predictor(tmp_path / "none.json")
    with pytest.raises(UsageError, match=r"cannot be read \(Is a directory\); name the predictor\.json"):
        load_predictor(tmp_path)


# Words


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"labels": "teacher", "student": None}, []),
        ({"family": "olmo2"}, ["gpt_neox and is used on olmo2: its recall guarantee does not hold here"]),
        ({"family": "olmo2", "teacher": "x", "baselines": ()}, ["gpt_neox and is used on olmo2"]),
        ({"teacher": "x"}, ["another teacher or baseline of the family gpt_neox"]),
        ({"baselines": ("baseline", "b")}, ["another teacher or baseline of the family gpt_neox"]),
        ({"corpus": "x"}, ["fitted on another corpus"]),
        ({"suffix_tokens": 20}, ["a prefix of 50 and a suffix of 50 tokens and is used with 50 and 20"]),
        ({"family": "x", "corpus": "x", "prefix_tokens": 9}, ["family", "corpus", "prefix"]),
    ],
)
def test_use_elsewhere_warns(changes, words, fitted):
    found = family_warnings(fitted.predictor, ORIGIN.model_copy(update=changes))
    assert len(found) == len(words)
    assert all(word in warning for word, warning in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("easy_core", "of the examples that teacher and baseline both memorize are flagged."),
        ("easy_core", "It does not cover what a student inherits from the teacher alone."),
        ("teacher", "of the examples that the teacher memorizes are flagged."),
        ("teacher", "covers what a student may inherit"),
    ],
)
def test_guarantee_names_what_it_covers(labels, words, table):
    origin = ORIGIN.model_copy(update={"labels": labels, "student": None})
    assert words in fit_predictor(table, SETTINGS._replace(trials=1), origin).notes[0].text


def test_reasons_name_the_two_strongest_drivers():
    predictor = Predictor.model_validate(
        predictor_dict(
            features=FEATURES,
            logarithms=("teacher_perplexity", "baseline_perplexity"),
            means=dict(zip(FEATURES, (4.0, 3.0, 3.0, 0.4), strict=True)),
            scales=dict(zip(FEATURES, (0.5, 1.0, 1.0, 0.1), strict=True)),
            coefficients=dict(zip(FEATURES, (-4.0, -2.0, -1.0, 3.0), strict=True)),
        )
    )
    rows = [
        (2.1, 1.3, 1.3, 0.4),  # contributions 15.2, 5.5, 2.7, 0
        (4.0, 20.1, 30.0, 0.6),  # 0, 0.0, -0.4, 6
        (5.0, 9000.0, 9000.0, 0.1),  # all negative
        (4.1, 2.0, 20.1, 0.45),  # -0.8, 4.6, 0.0, 1.5
    ]
    assert reasons(predictor, np.array(rows)) == [
        "easy to compress (zlib entropy 2.1 bits per byte), low teacher perplexity (1.3)",
        "teacher and baseline differ (KL divergence 0.6 nats)",
        "no feature stands out from the average example",
        "low teacher perplexity (2), teacher and baseline differ (KL divergence 0.45 nats)",
    ]


def test_import_is_light():
    code = (
        "import sys, kdaudit.risk; "
        "print([name for name in ('sklearn', 'scipy', 'torch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
