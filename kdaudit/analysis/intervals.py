"""Intervals and tests for shares and for paired shares of distinct examples.

The counts here are of independent outcomes; where outcomes are not, as of windows of one document, a design
effect above 1 divides the counts (see `by_document`). Every function accepts zero counts and never gives NaN
or infinity: an interval's end that cannot be bounded is None.
"""

from __future__ import annotations

from math import isinf, sqrt
from statistics import NormalDist
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from kdaudit.schemas.result import Interval

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
"""bool (examples,): which examples a model memorizes."""


class PairedTable(NamedTuple):
    """Counts of examples by two yes-or-no outcomes: the paired 2x2 table."""

    both: int
    first_only: int
    second_only: int
    neither: int

    @classmethod
    def of(cls, first: Flags, second: Flags) -> Self:
        """Count two outcomes of the same examples: bool arrays of one shape (examples,)."""
        both = int(np.count_nonzero(first & second))
        first_only = int(np.count_nonzero(first)) - both
        second_only = int(np.count_nonzero(second)) - both
        return cls(both, first_only, second_only, first.size - both - first_only - second_only)

    @property
    def first(self) -> int:
        """Examples with the first outcome."""
        return self.both + self.first_only

    @property
    def second(self) -> int:
        """Examples with the second outcome."""
        return self.both + self.second_only

    @property
    def total(self) -> int:
        """All examples."""
        return sum(self)


_NOTHING = 1e-12
"""A share that is none, and would be shown with all its zeros."""


class _Bounds(NamedTuple):
    low: float
    high: float


def clopper_pearson(successes: float, total: float, confidence: float = 0.95) -> Interval:
    """Exact interval of a share (Clopper and Pearson 1934, Biometrika 26:404); (0, 1) of no examples.

    Its coverage is never below `confidence`. Counts that a design effect divided need not be whole.
    """
    from scipy.stats import beta

    tail = (1 - confidence) / 2
    low = beta.ppf(tail, successes, total - successes + 1) if successes > 0 else 0.0
    low = low if low > _NOTHING else 0.0  # of a part of a success alone, its power of a small share
    high = beta.isf(tail, successes + 1, total - successes) if successes < total else 1.0
    return (float(low), float(high))


def newcombe_paired_difference(
    table: PairedTable, confidence: float = 0.95, design_effect: float = 1.0
) -> Interval:
    """Interval of the first share minus the second: method 10 of Newcombe 1998, Stat Med 17:2635.

    The Wilson intervals of both shares are combined by squares, less the part that their correlation
    explains. Without examples both ends are open. Its coverage at 0.95, by enumeration, is 0.95 or more
    for rare outcomes of many examples; with 30 examples or fewer and shares near 0 or 1 it can fall
    below 0.9.
    """
    if table.total == 0 or isinf(design_effect):
        return (None, None)
    z, total = _normal_quantile(confidence), table.total / design_effect
    first, second = table.first / table.total, table.second / table.total
    low_1, high_1 = _wilson(total * first, total, z)
    low_2, high_2 = _wilson(total * second, total, z)
    phi = _newcombe_phi(table, design_effect)
    below = _square_and_add(first - low_1, high_2 - second, phi)
    above = _square_and_add(high_1 - first, second - low_2, phi)
    difference = (table.first - table.second) / table.total
    return (max(difference - below, -1.0), min(difference + above, 1.0))


def bonett_price_ratio(table: PairedTable, confidence: float = 0.95, design_effect: float = 1.0) -> Interval:
    """Interval of the first share over the second: Bonett and Price 2006, Stat Med 25:3039.

    The ratio of two Wilson intervals over the examples with either outcome, at a normal quantile that
    is adjusted for the pairing; that sets the standard error of the log ratio, with one added to the
    counts, against the sum of both shares' own. Examples with neither outcome do not matter.

    Its coverage at 0.95, by enumeration for rare outcomes of many examples, is above 0.95 on average,
    0.92 or more where each outcome is expected at least twice, and 0.88 or more below that.

    With no first outcome the low end is 0; with no second outcome the high end is open; with neither
    outcome at all every ratio is possible: (0, None).
    """
    either = (table.total - table.neither) / design_effect
    if either == 0:
        return (0.0, None)
    one, other = table.first / design_effect, table.second / design_effect
    discordant = (table.first_only + table.second_only) / design_effect
    paired_error = sqrt((discordant + 2) / ((one + 1) * (other + 1)))
    own_errors = _log_share_error(one, either) + _log_share_error(other, either)
    z = _normal_quantile(confidence) * paired_error / own_errors
    first, second = _wilson(one, either, z), _wilson(other, either, z)
    return (first.low / second.high, first.high / second.low if table.second else None)


def mcnemar_exact(table: PairedTable) -> float:
    """Two-sided p of equal paired shares, exact given the discordant pairs (McNemar 1947); 1 without any."""
    from scipy.stats import binomtest

    discordant = table.first_only + table.second_only
    return float(binomtest(table.first_only, discordant).pvalue) if discordant else 1.0


def _normal_quantile(confidence: float) -> float:
    """The standard normal's quantile for a two-sided interval: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def _wilson(successes: float, total: float, z: float) -> _Bounds:
    """Score interval of a share (Wilson 1927, J Am Stat Assoc 22:209), exactly 0 or 1 where it ends there."""
    centre = successes + z * z / 2
    spread = z * sqrt(z * z / 4 + successes * (1 - successes / total))
    low = (centre - spread) / (total + z * z) if successes else 0.0
    high = (centre + spread) / (total + z * z) if successes < total else 1.0
    return _Bounds(low, high)


def _newcombe_phi(table: PairedTable, design_effect: float) -> float:
    """Correlation of the outcomes; a positive one is continuity-corrected, an undefined one is 0."""
    covariance: float = table.both * table.neither - table.first_only * table.second_only
    if covariance > 0:
        covariance = max(covariance - design_effect * table.total / 2, 0.0)
    margins = table.first * (table.total - table.first) * table.second * (table.total - table.second)
    return covariance / sqrt(margins) if margins else 0.0


def _square_and_add(a: float, b: float, phi: float) -> float:
    # Rounding can take the sum just below 0 where phi is 1 and a equals b.
    return sqrt(max(a * a - 2 * phi * a * b + b * b, 0.0))


def _log_share_error(successes: float, total: float) -> float:
    """Standard error of the log of a share, with one success and one failure added."""
    return sqrt((1 - (successes + 1) / (total + 2)) / (successes + 1))
