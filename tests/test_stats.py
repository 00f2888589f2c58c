"""Intervals and tests against published values, defining equations and their coverage."""

from __future__ import annotations

from collections import Counter
from functools import cache
from math import comb, inf

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.special import gammaln
from scipy.stats import poisson

from kdaudit.analysis.intervals import (
    PairedTable,
    bonett_price_ratio,
    clopper_pearson,
    mcnemar_exact,
    newcombe_paired_difference,
)

CAVO = PairedTable(59, 6, 16, 80)  # Cavo et al. 2012, in Fagerland, Lydersen and Laake 2017, chapter 8
BENTUR = PairedTable(1, 1, 7, 12)  # Bentur et al. 2009, in Fagerland, Lydersen and Laake 2014

counts = st.integers(0, 40)
tables = st.builds(PairedTable, counts, counts, counts, counts)


# Published values


@pytest.mark.parametrize(
    ("successes", "total", "low", "high"),
    [
        # Newcombe 1998, Stat Med 17:857, method 5
        (15, 148, 0.0578, 0.1617),
        (0, 20, 0.0000, 0.1684),
        (1, 29, 0.0009, 0.1776),
        # R package contingencytables 3.1 (Ligarden et al. 2010, and both ends)
        (13, 16, 0.5435, 0.9595),
        (10, 10, 0.6915, 1.0000),
        (0, 10, 0.0000, 0.3085),
    ],
)
def test_clopper_pearson_published(successes, total, low, high):
    assert clopper_pearson(successes, total) == pytest.approx((low, high), abs=5.1e-5)


@pytest.mark.parametrize(
    ("table", "low", "high", "digits"),
    [
        (PairedTable(20, 12, 2, 16), 0.0562, 0.3292, 4),  # Newcombe 1998, Stat Med 17:2635, method 10
        (BENTUR, -0.507, -0.026, 3),
        (CAVO, -0.1186, -0.0046, 4),
        (PairedTable(8, 3, 1, 2), -0.1574, 0.4136, 4),  # Tang et al. 2010, in R package ratesci's tests
        (PairedTable(7, 25, 2, 68), 0.133, 0.318, 3),  # Chang et al. 2024, there too
    ],
)
def test_newcombe_published(table, low, high, digits):
    assert newcombe_paired_difference(table) == pytest.approx((low, high), abs=0.51 * 10**-digits)


@pytest.mark.parametrize(
    ("table", "low", "high", "tolerance"),
    [
        # ci.ratio.prop.ps of Bonett's own R package statpsych: the documented examples of two releases
        (PairedTable(6, 26, 4, 12), 1.766544, 5.796628, 5.1e-7),
        (PairedTable(12, 26, 4, 6), 1.537157, 3.669518, 5.1e-7),
        (CAVO, 0.7579, 0.9910, 5.1e-5),
    ],
)
def test_bonett_price_published(table, low, high, tolerance):
    assert bonett_price_ratio(table) == pytest.approx((low, high), abs=tolerance)


def test_mcnemar_published():
    assert mcnemar_exact(CAVO) == pytest.approx(0.052479, abs=5.1e-7)


# Defining equations and zero counts


@pytest.mark.parametrize(("successes", "total"), [(1, 5), (3, 40), (39, 40), (18, 200)])
@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_clopper_pearson_ends_leave_half_the_error_in_each_tail(successes, total, confidence):
    def probability(share, outcomes):
        return sum(comb(total, k) * share**k * (1 - share) ** (total - k) for k in outcomes)

    low, high = clopper_pearson(successes, total, confidence)
    assert probability(low, range(successes, total + 1)) == pytest.approx((1 - confidence) / 2, rel=1e-6)
    assert probability(high, range(successes + 1)) == pytest.approx((1 - confidence) / 2, rel=1e-6)


def test_clopper_pearson_of_nothing_rules_out_nothing():
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@given(tables)
def test_mcnemar_is_the_doubled_binomial_tail(table):
    discordant = table.first_only + table.second_only
    tail = sum(comb(discordant, k) for k in range(min(table.first_only, table.second_only) + 1))
    assert mcnemar_exact(table) == pytest.approx(min(1.0, 2 * tail / 2**discordant))


@given(tables)
def test_newcombe_stands_zero_counts_and_mirrors(table):
    low, high = newcombe_paired_difference(table)
    if table.total == 0:
        assert (low, high) == (None, None)
        return
    assert -1 <= low <= (table.first - table.second) / table.total <= high <= 1
    assert low < high
    swapped = table._replace(first_only=table.second_only, second_only=table.first_only)
    assert newcombe_paired_difference(swapped) == pytest.approx((-high, -low))
    wider = newcombe_paired_difference(table, 0.99)
    assert wider[0] <= low
    assert high <= wider[1]


@given(tables)
def test_bonett_price_stands_zero_counts_and_inverts(table):
    low, high = bonett_price_ratio(table)
    assert (low == 0.0) == (table.first == 0)
    assert (high is None) == (table.second == 0)
    if table.second:
        assert low <= table.first / table.second <= high < inf
    swapped = table._replace(first_only=table.second_only, second_only=table.first_only)
    inverse = bonett_price_ratio(swapped)
    assert inverse[0] == pytest.approx(0.0 if high is None else 1 / high)
    assert inverse[1] == (None if low == 0.0 else pytest.approx(1 / low))
    assert bonett_price_ratio(table._replace(neither=10**6)) == (low, high)


def test_bonett_price_of_no_outcome_rules_out_nothing():
    assert bonett_price_ratio(PairedTable(0, 0, 0, 9)) == (0.0, None)
    assert bonett_price_ratio(PairedTable(0, 0, 0, 0)) == (0.0, None)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=50))
def test_paired_table_counts_pairs(pairs):
    first = np.array([pair[0] for pair in pairs], dtype=bool)
    second = np.array([pair[1] for pair in pairs], dtype=bool)
    seen = Counter(pairs)
    table = PairedTable.of(first, second)
    assert table == (seen[True, True], seen[True, False], seen[False, True], seen[False, False])
    assert (table.first, table.second, table.total) == (first.sum(), second.sum(), len(pairs))


# Coverage: exact, by summing the probability of each table whose interval holds the truth

SHARES = (0.0005, 0.01, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
RARE_MEANS = (0.01, 0.1, 0.3, 1.0, 2.0, 3.0, 8.0)
RARE_COUNTS = 26  # counts from here on have a probability below 1e-6 at the largest of these means
MANY = 100_000


class Enumerated:
    """All tables of a kind with their intervals; open ends are infinite here."""

    def __init__(self, cells: NDArray[np.int64]) -> None:
        every = [PairedTable(*map(int, row)) for row in cells]
        self.cells = cells
        self.difference = np.array([newcombe_paired_difference(table) for table in every])
        ratios = [bonett_price_ratio(table) for table in every]
        self.ratio = np.array([(low, inf if high is None else high) for low, high in ratios])


def _covered(intervals: NDArray[np.float64], truth: float) -> NDArray[np.bool_]:
    # Ends that are equal to the truth but for rounding hold it.
    return (intervals[:, 0] <= truth + 1e-12) & (truth - 1e-12 <= intervals[:, 1])


@cache
def _small() -> Enumerated:
    total = 30
    return Enumerated(
        np.array(
            [
                (a, b, c, total - a - b - c)
                for a in range(total + 1)
                for b in range(total + 1 - a)
                for c in range(total + 1 - a - b)
            ]
        )
    )


@cache
def _rare() -> Enumerated:
    cells = np.stack(np.meshgrid(*[np.arange(RARE_COUNTS)] * 3, indexing="ij"), -1).reshape(-1, 3)
    return Enumerated(np.column_stack([cells, MANY - cells.sum(axis=1)]))


def _coverage_of_few() -> NDArray[np.float64]:
    """Rows of difference's and ratio's coverage over a grid of shares of 30 examples."""
    tables = _small()
    log_ways = gammaln(31) - gammaln(tables.cells + 1).sum(axis=1)
    rows = []
    for shares in ((a, b, c, 1 - a - b - c) for a in SHARES for b in SHARES for c in SHARES if a + b + c < 1):
        probability = np.exp(log_ways + tables.cells @ np.log(shares))
        both, first, second, _ = shares
        rows.append(
            (
                probability @ _covered(tables.difference, first - second),
                probability @ _covered(tables.ratio, (both + first) / (both + second)),
            )
        )
    return np.array(rows)


@cache
def _coverage_of_rare() -> NDArray[np.float64]:
    """Rows of difference's and ratio's coverage and the rarer outcome's expected count.

    Counts of rare outcomes of many examples are independent Poisson counts.
    """
    tables = _rare()
    mass = {mean: poisson.pmf(np.arange(RARE_COUNTS), mean) for mean in RARE_MEANS}
    rows = []
    for both in RARE_MEANS:
        for first in RARE_MEANS:
            for second in RARE_MEANS:
                probability = np.einsum("i,j,k->ijk", mass[both], mass[first], mass[second]).ravel()
                rows.append(
                    (
                        probability @ _covered(tables.difference, (first - second) / MANY),
                        probability @ _covered(tables.ratio, (both + first) / (both + second)),
                        both + min(first, second),
                    )
                )
    return np.array(rows)


@pytest.mark.parametrize("total", [1, 10, 59, 299])
def test_clopper_pearson_never_covers_less_than_nominal(total):
    every = np.array([clopper_pearson(successes, total) for successes in range(total + 1)])
    shares = np.concatenate([np.geomspace(1e-6, 0.01, 20), np.linspace(0.01, 0.99, 99)])
    successes = np.arange(total + 1)
    ways = gammaln(total + 1) - gammaln(successes + 1) - gammaln(total - successes + 1)
    for share in shares:
        probability = np.exp(ways + successes * np.log(share) + (total - successes) * np.log1p(-share))
        assert probability @ _covered(every, share) >= 0.95 - 1e-9


def test_coverage_with_few_examples():
    difference, ratio = _coverage_of_few().T
    assert difference.min() >= 0.94
    assert difference.mean() >= 0.95
    assert ratio.min() >= 0.92
    assert ratio.mean() >= 0.95


def test_newcombe_coverage_of_rare_outcomes():
    difference = _coverage_of_rare()[:, 0]
    assert difference.min() >= 0.95


def test_bonett_price_coverage_of_rare_outcomes():
    _, ratio, expected = _coverage_of_rare().T
    assert ratio.mean() >= 0.95
    assert ratio[expected >= 2].min() >= 0.92
    assert ratio.min() >= 0.88


@pytest.mark.parametrize(
    ("total", "shares"),
    [
        (1_000_000, (0.0006, 0.0001, 0.0011)),  # a student at 0.07%, a baseline at 0.17%
        (1_955, (0.007, 0.018, 0.002)),  # hard inherits 2.7 times as often as soft, of 1,955
        (1_955, (0.0, 0.003, 0.0005)),  # soft mostly inherits none
    ],
)
def test_simulated_audits_hold_the_truth(total, shares):
    both, first, second = shares
    draws = np.random.default_rng(20260122).multinomial(total, [*shares, 1 - sum(shares)], size=4000)
    seen = Counter(PairedTable(*map(int, draw)) for draw in draws)
    simulated = Enumerated(np.array(list(seen)))
    weights = np.array(list(seen.values())) / len(draws)
    error = 3 * (0.95 * 0.05 / len(draws)) ** 0.5
    assert weights @ _covered(simulated.difference, first - second) >= 0.95 - error
    ratio_tolerance = 0.03 if (both + second) * total < 2 else 0.0
    assert (
        weights @ _covered(simulated.ratio, (both + first) / (both + second))
        >= 0.95 - error - ratio_tolerance
    )
