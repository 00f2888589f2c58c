"""The threshold for a recall guarantee: a binomial order-statistic bound.

Let the scores of m positives that the fit did not see, independent draws of their kind, be sorted ascending.
At least a share r of the kind scores the k-th of them or more, with confidence c, if

    P(Binomial(m, 1 - r) <= k - 1) <= 1 - c

(a distribution-free one-sided tolerance limit: Wilks 1941, Ann Math Stat 12:91). Ties only make it safer.
The lowest score, k = 1, guarantees r when r^m <= 1 - c: 99% with 95% confidence takes 299 positives.
"""

from __future__ import annotations

from math import ceil, log
from typing import NamedTuple

RECALLS = (0.5, 0.8, 0.9, 0.95, 0.97, 0.99)
"""Recalls at which a screening shows what it would flag."""
LEAST_RECALL = 0.5
"""A guarantee below this, if more was asked for, counts as none."""
_ROUNDING = 1e-12


class Bound(NamedTuple):
    """Which positive gives the threshold, and the recall that it guarantees."""

    rank: int
    """Its rank among them by ascending score, from 1."""
    recall: float | None
    """The share of the kind that is flagged, 0 to 1; None if nothing can be guaranteed."""


def positives_needed(recall: float, confidence: float) -> int:
    """The fewest positives that allow the guarantee; both arguments lie between 0 and 1."""
    return max(1, ceil(log(1 - confidence) / log(recall) - 1e-9))


def strongest_bound(positives: int, recall: float, confidence: float) -> Bound:
    """The highest threshold that guarantees `recall`; with too few positives the lowest score.

    Args:
        positives: at least 1.
        recall: the share asked for, between 0 and 1.
        confidence: between 0 and 1.

    """
    from scipy.stats import binom

    allowed = 1 - confidence + _ROUNDING
    if positives < positives_needed(recall, confidence):
        reached = float((1 - confidence) ** (1 / positives))
        return Bound(1, reached if reached >= LEAST_RECALL else None)
    # The quantile is the first count whose probability reaches 1 - c; the rank before it may be the last.
    rank = int(binom.ppf(1 - confidence, positives, 1 - recall))
    rank += int(binom.cdf(rank, positives, 1 - recall) <= allowed)
    return Bound(max(1, rank), recall)
