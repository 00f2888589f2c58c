"""The predictor's recall guarantee: its bound against exact sums, and its truth over simulated corpora.

In the simulations the features' distributions are known, so the recall of a shipped threshold in the whole
population is an integral, computed here from the numbers of predictor.json alone. The scores are continuous,
and out-of-fold scores are to be as good as those of a model that saw none of the positives. So the share of
broken guarantees must not only stay below 1 - confidence: it must be what the binomial says, or the threshold
would flag more than it needs to. tests/benchmarks/recall_guarantee.py has more kinds and more corpora.
"""

from __future__ import annotations

from fractions import Fraction
from math import comb, exp, log
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom, norm

from kdaudit.risk import Predictor, PredictorSettings, Table, fit_predictor
from kdaudit.risk.guarantee import positives_needed, strongest_bound
from kdaudit.risk.words import weak_guarantee_words
from kdaudit.schemas.predictor import Origin, RecallGuarantee

CORPORA = 100
ORIGIN = Origin(
    teacher="t", family="gpt_neox", corpus="c", labels="easy_core", prefix_tokens=50, suffix_tokens=50
)
hundredths = st.integers(1, 99).map(lambda k: k / 100)


# The bound


def at_most(count: int, draws: int, share: Fraction) -> Fraction:
    """P(Binomial(draws, share) <= count), exactly."""
    return sum(
        (comb(draws, k) * share**k * (1 - share) ** (draws - k) for k in range(count + 1)), Fraction(0)
    )


@pytest.mark.parametrize(
    ("recall", "confidence", "needed"),
    [
        (0.99, 0.95, 299),
        (0.95, 0.95, 59),
        (0.9, 0.9, 22),
        (0.5, 0.75, 2),
        (0.01, 0.5, 1),
        (0.999, 0.95, 2995),
    ],
)
def test_positives_needed_for_known_guarantees(recall, confidence, needed):
    assert positives_needed(recall, confidence) == needed


@given(hundredths, hundredths)
def test_positives_needed_is_the_fewest(recall, confidence):
    needed = positives_needed(recall, confidence)
    share, allowed = Fraction(round(recall * 100), 100), 1 - Fraction(round(confidence * 100), 100)
    assert share**needed <= allowed
    assert needed == 1 or share ** (needed - 1) > allowed


@given(st.integers(1, 400), hundredths, hundredths)
def test_rank_is_the_highest_that_the_binomial_allows(positives, recall, confidence):
    missed = 1 - Fraction(round(recall * 100), 100)
    allowed = 1 - Fraction(round(confidence * 100), 100)
    bound = strongest_bound(positives, recall, confidence)
    if at_most(0, positives, missed) > allowed:
        reached = exp(log(1 - confidence) / positives)
        assert bound.rank == 1
        assert bound.recall == (pytest.approx(reached) if reached >= 0.5 else None)
        assert reached < recall
    else:
        assert bound.recall == recall
        assert at_most(bound.rank - 1, positives, missed) <= allowed
        assert at_most(bound.rank, positives, missed) > allowed


@given(hundredths, hundredths)
def test_as_many_as_the_words_ask_for_are_enough(recall, confidence):
    few = RecallGuarantee(recall=recall, confidence=confidence, calibration_positives=5)
    words = weak_guarantee_words(few, None)
    asked = int(words.removesuffix(" are needed.").rsplit(" ", 1)[1].replace(",", ""))
    assert strongest_bound(asked, recall, confidence).recall == recall
    assert asked == 1 or strongest_bound(asked - 1, recall, confidence).recall != recall


# Simulated corpora


class Kind(NamedTuple):
    """How the positives' terms are spread: a mixture of normals with equal spread and shifted means."""

    shifts: tuple[float, ...]
    """Of the means of each component, in every term."""
    shares: tuple[float, ...]
    copies: int = 1
    """Copies of each positive text, in one group."""
    between_copies: float = 0.0
    """Standard deviation of a copy's terms around its text's."""


def draw(kind: Kind, positives: int, others: int, rng: np.random.Generator) -> Table:
    component = rng.choice(len(kind.shifts), positives, p=kind.shares)
    texts = rng.normal(np.array(kind.shifts)[component, None], 1, (positives, 4))
    copies = np.repeat(texts, kind.copies, axis=0)
    copies = copies + rng.normal(0, kind.between_copies, copies.shape)
    terms = np.vstack([copies, rng.normal(0, 1, (others, 4))])
    groups = np.concatenate([np.repeat(np.arange(positives), kind.copies), positives + np.arange(others)])
    order = rng.permutation(len(terms))
    features = terms.copy()
    features[:, 1:3] = np.exp(terms[:, 1:3])  # perplexities, whose logarithms are the terms
    return Table(features[order], (np.arange(len(terms)) < len(copies))[order], groups[order])


def true_recall(predictor: Predictor, kind: Kind) -> float:
    """Share of the population's positive texts of which every copy is flagged."""
    weights = [predictor.coefficients[name] / predictor.scales[name] for name in predictor.features]
    start = predictor.intercept - sum(
        weight * predictor.means[name] for weight, name in zip(weights, predictor.features, strict=True)
    )
    # A text's log odds are normal; those of its copies are normal around them.
    cut, length = log(predictor.threshold / (1 - predictor.threshold)), sum(w * w for w in weights) ** 0.5
    text = np.linspace(-9, 9, 4001)
    total = 0.0
    for shift, share in zip(kind.shifts, kind.shares, strict=True):
        above = start + shift * sum(weights) + length * text - cut
        if kind.between_copies:
            flagged = norm.cdf(above / (length * kind.between_copies)) ** kind.copies
            total += share * float(np.trapezoid(flagged * norm.pdf(text), text))
        else:
            total += share * float(norm.cdf((start + shift * sum(weights) - cut) / length))
    return total


PLAIN = Kind((-1.5,), (1.0,))
MIXED = Kind((-2.5, -0.2), (0.9, 0.1))  # a tenth look almost like any other text
COPIED = Kind((-1.5,), (1.0,), copies=3, between_copies=0.5)


@pytest.mark.parametrize(
    ("kind", "positives", "recall", "confidence", "guaranteed"),
    [
        pytest.param(PLAIN, 400, 0.99, 0.95, 0.99, id="lowest score"),
        pytest.param(MIXED, 400, 0.99, 0.95, 0.99, id="two kinds"),
        pytest.param(MIXED, 300, 0.9, 0.9, 0.9, id="higher rank"),
        pytest.param(COPIED, 140, 0.95, 0.8, 0.95, id="copies"),
        pytest.param(PLAIN, 30, 0.99, 0.8, 0.2 ** (1 / 30), id="too few for the one asked for"),
    ],
)
def test_guarantee_is_broken_as_often_as_it_says(kind, positives, recall, confidence, guaranteed):
    fails = 0
    for seed in range(CORPORA):
        table = draw(kind, positives, 3 * positives, np.random.default_rng(seed))
        settings = PredictorSettings(1, recall, confidence, seed)
        predictor = fit_predictor(table, settings, ORIGIN).predictor
        assert predictor.promise.recall == pytest.approx(guaranteed)
        assert predictor.promise.confidence == confidence
        assert predictor.promise.calibration_positives == positives
        fails += true_recall(predictor, kind) < guaranteed
    broken = 1 - confidence
    assert fails / CORPORA <= broken + 3 * (broken * (1 - broken) / CORPORA) ** 0.5
    rank = next(k for k in range(1, positives) if binom.cdf(k, positives, 1 - guaranteed) > broken + 1e-9)
    exactly = binom.cdf(rank - 1, positives, 1 - guaranteed)
    assert binom.ppf(0.001, CORPORA, exactly) <= fails <= binom.ppf(0.999, CORPORA, exactly)


def test_the_simulation_finds_a_threshold_that_was_fitted_too():
    """The same check turns down the obvious threshold: the 1% quantile of all positives, seen ones too."""
    fails = 0
    for seed in range(CORPORA):
        table = draw(PLAIN, 400, 1200, np.random.default_rng(seed))
        predictor = fit_predictor(table, PredictorSettings(1, 0.99, 0.95, seed), ORIGIN).predictor
        naive = float(np.quantile(predictor.risk(table.features)[table.positive], 0.01))
        fails += true_recall(predictor.model_copy(update={"threshold": naive}), PLAIN) < 0.99
    assert fails / CORPORA > 0.3
