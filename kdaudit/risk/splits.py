"""Splits of examples into a part to fit on and a part to test on, by groups of like texts.

A group is never on both sides, and is the unit that is drawn: copies of one text have one outcome, so they
must not count as independent. A group is positive if one of its rows is. Splits are stratified by what a
group holds: positives, others, or both, as a document may. Where the others are many, a fit and a test read a
draw of them, weighted back to all.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Flags = NDArray[np.bool_]

LEAST_GROUPS = 10
"""Groups that hold a positive, and groups that hold another row, that a predictor needs at least."""
FOLDS = 10
"""Parts of a cross-fit: each model is fitted on nine tenths of the examples."""
TEST_SHARE = 0.3
"""Share of the groups that a trial tests on."""
TRIAL_OTHERS = 200_000
"""Rows that are not positive that a trial, or a cross-fit, draws at most."""


class Groups(NamedTuple):
    """The groups of a table."""

    of_row: NDArray[np.int64]
    """Index of each row's group: int64 (n,)."""
    positive: Flags
    """Whether each row is positive: (n,)."""
    strata: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]
    """Indices of the groups that hold others alone, positives alone, and both."""
    weight: NDArray[np.float64] | None = None
    """Rows of the corpus that each row stands for: (n,); None for one each."""

    @property
    def total(self) -> int:
        """All groups."""
        return sum(map(len, self.strata))

    @property
    def with_positive(self) -> int:
        """Groups that hold a positive."""
        return len(self.strata[1]) + len(self.strata[2])

    @property
    def with_other(self) -> int:
        """Groups that hold a row that is not positive."""
        return len(self.strata[0]) + len(self.strata[2])

    def lowest(self, scores: NDArray[np.float64], rows: Flags) -> NDArray[np.float64]:
        """The lowest score among the chosen rows of each group that has one."""
        found = np.full(self.total, np.inf)
        np.minimum.at(found, self.of_row[rows], scores[rows])
        lowest: NDArray[np.float64] = found[np.isfinite(found)]
        return lowest


class Fold(NamedTuple):
    """One part of a cross-fit: its rows are scored by a model of the other parts."""

    train: NDArray[np.int64]
    """Rows to fit on, of the other parts."""
    weight: NDArray[np.float64]
    """Rows of the corpus that each row of `train` stands for."""
    scored: NDArray[np.int64]
    """Rows of the part itself."""


class Trial(NamedTuple):
    """One resampled split."""

    train: NDArray[np.int64]
    """Rows to fit on."""
    train_weight: NDArray[np.float64] | None
    """Rows of the corpus that each of them stands for; None where they are fitted on as they are."""
    test: NDArray[np.int64]
    """Rows to test on."""
    weight: NDArray[np.float64]
    """How many rows of the corpus each row of `test` stands for, up to a common factor."""


def find_groups(
    groups: NDArray[np.int64], positive: Flags, weight: NDArray[np.float64] | None = None
) -> Groups:
    """Number the groups: `groups` int64 (n,) holds equal values for rows of one group."""
    distinct, of_row = np.unique(groups, return_inverse=True)
    holds = np.zeros((2, len(distinct)), dtype=np.int8)
    holds[0, of_row[~positive]] = 1
    holds[1, of_row[positive]] = 2
    others, positives, both = (np.flatnonzero(holds.sum(axis=0) == kind) for kind in (1, 2, 3))
    return Groups(of_row, positive, (others, positives, both), weight)


def draw_folds(groups: Groups, rng: np.random.Generator) -> list[Fold]:
    """Deal the groups into `FOLDS` parts, each with its share of every stratum.

    Args:
        groups: at least `FOLDS` of them hold a positive, and as many another row.
        rng: draws the parts.

    """
    part = np.empty(groups.total, dtype=np.int8)
    start = 0
    for members in groups.strata:  # each continues where the last ended: parts are of equal size
        part[rng.permutation(members)] = (start + np.arange(len(members))) % FOLDS
        start += len(members)
    weight, of_row = _weights(groups, rng), part[groups.of_row]
    folds = []
    for number in range(FOLDS):
        train = np.flatnonzero((of_row != number) & (weight > 0))
        folds.append(Fold(train, weight[train], np.flatnonzero(of_row == number)))
    return folds


def draw_trial(groups: Groups, rng: np.random.Generator) -> Trial:
    """Draw a stratified split with `TEST_SHARE` of the groups to test on."""
    tested = np.zeros(groups.total, dtype=np.bool_)
    for members in groups.strata:
        count = max(1, round(TEST_SHARE * len(members)))
        tested[rng.permutation(members)[:count]] = True
    weight, of_row = _weights(groups, rng), tested[groups.of_row]
    train, test = (np.flatnonzero(rows & (weight > 0)) for rows in (~of_row, of_row))
    return Trial(train, None if groups.weight is None else weight[train], test, weight[test])


def _weights(groups: Groups, rng: np.random.Generator) -> NDArray[np.float64]:
    """Rows that each row stands for where `TRIAL_OTHERS` of the others are drawn; 0 if it is not drawn."""
    others = np.flatnonzero(~groups.positive)
    weight = np.ones(len(groups.positive)) if groups.weight is None else groups.weight.copy()
    if len(others) > TRIAL_OTHERS:
        drawn = rng.choice(others, TRIAL_OTHERS, replace=False, shuffle=False)
        kept = weight[drawn] * (len(others) / TRIAL_OTHERS)
        weight[others] = 0
        weight[drawn] = kept
    return weight
