"""Splits of examples into a part to fit on and a part to test on, by groups of like texts.

A group is never on both sides, and is the unit that is drawn: copies of one text have one outcome, so they
must not count as independent. A group is positive if one of its rows is. Splits are stratified: positive
groups and the others are drawn apart.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]

FIT_POSITIVES = 20
"""Positive groups that the fit gets before the guarantee: five per feature."""
TEST_SHARE = 0.3
"""Share of the groups that a trial tests on."""
TRIAL_OTHERS = 200_000
"""Groups without a positive that a trial draws at most; what it tests on is weighted back to all of them."""


class Groups(NamedTuple):
    """The groups of a table."""

    of_row: NDArray[np.int64]
    """Index of each row's group: int64 (n,)."""
    positives: NDArray[np.int64]
    """Indices of the groups that hold a positive."""
    others: NDArray[np.int64]
    """Indices of the groups that hold none."""

    @property
    def total(self) -> int:
        """All groups."""
        return len(self.positives) + len(self.others)

    def lowest(self, scores: NDArray[np.float64], rows: Flags) -> NDArray[np.float64]:
        """The lowest score among the chosen rows of each group that has one."""
        found = np.full(self.total, np.inf)
        np.minimum.at(found, self.of_row[rows], scores[rows])
        lowest: NDArray[np.float64] = found[np.isfinite(found)]
        return lowest


class Trial(NamedTuple):
    """One resampled split."""

    train: NDArray[np.int64]
    """Rows to fit on."""
    test: NDArray[np.int64]
    """Rows to test on."""
    weight: NDArray[np.float64]
    """How many rows of the corpus each row of `test` stands for, up to a common factor."""


def find_groups(groups: NDArray[np.int64], positive: Flags) -> Groups:
    """Number the groups: `groups` int64 (n,) holds equal values for rows of one group."""
    distinct, of_row = np.unique(groups, return_inverse=True)
    holds = np.zeros(len(distinct), dtype=np.bool_)
    holds[of_row[positive]] = True
    return Groups(of_row, np.flatnonzero(holds), np.flatnonzero(~holds))


def fit_positives(positives: int, needed: int) -> int:
    """How many of the positive groups the fit gets; the others calibrate the threshold.

    The guarantee comes first, since a few positives suffice to fit a few features: the fit gets what the
    calibration does not need, but at least `FIT_POSITIVES`, and at most half.
    """
    return min(positives // 2, max(FIT_POSITIVES, positives - needed))


def fit_rows(groups: Groups, needed: int, rng: np.random.Generator) -> Flags:
    """Draw the rows that the saved model is fitted on, bool (n,): the others calibrate and test it.

    Args:
        groups: of the table.
        needed: positive groups that the requested guarantee needs.
        rng: draws the groups.

    """
    chosen = np.zeros(groups.total, dtype=np.bool_)
    count = fit_positives(len(groups.positives), needed)
    chosen[rng.permutation(groups.positives)[:count]] = True
    chosen[rng.permutation(groups.others)[: len(groups.others) // 2]] = True
    rows: Flags = chosen[groups.of_row]
    return rows


def draw_trial(groups: Groups, rng: np.random.Generator) -> Trial:
    """Draw a stratified split with `TEST_SHARE` of the groups to test on."""
    drawn = min(len(groups.others), TRIAL_OTHERS)
    others = rng.choice(groups.others, drawn, replace=False)
    part = np.zeros(groups.total, dtype=np.int8)  # 0: left out, 1: to fit on, 2: to test on
    for members in (rng.permutation(groups.positives), others):
        tested = max(1, round(TEST_SHARE * len(members)))
        part[members[:tested]], part[members[tested:]] = 2, 1
    weight = np.ones(groups.total)
    weight[groups.others] = len(groups.others) / drawn
    of_rows = part[groups.of_row]
    test = np.flatnonzero(of_rows == 2)
    return Trial(np.flatnonzero(of_rows == 1), test, weight[groups.of_row[test]])
