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

LEAST_GROUPS = 10
"""Groups with a positive, and groups without, that a predictor needs at least."""
FOLDS = 10
"""Parts of a cross-fit: each model is fitted on nine tenths of the examples."""
TEST_SHARE = 0.3
"""Share of the groups that a trial tests on."""
TRIAL_OTHERS = 200_000
"""Groups without a positive that a trial, or a fit of a cross-fit, draws at most; their rows are weighted
back to all of them."""


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


class Fold(NamedTuple):
    """One part of a cross-fit: its rows are scored by a model of the other parts."""

    train: NDArray[np.int64]
    """Rows to fit on: of all groups in the other parts, or of a draw of those without a positive."""
    weight: NDArray[np.float64]
    """Rows of the corpus that each row of `train` stands for."""
    scored: NDArray[np.int64]
    """Rows of the part itself."""


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


def draw_folds(groups: Groups, rng: np.random.Generator) -> list[Fold]:
    """Deal the groups into `FOLDS` parts, each with its share of the positive ones.

    Args:
        groups: at least `FOLDS` positive ones.
        rng: draws the parts.

    """
    part, drawn = np.empty(groups.total, dtype=np.int8), np.ones(groups.total, dtype=np.bool_)
    for members in (groups.positives, groups.others):
        part[members] = rng.permutation(len(members)) % FOLDS
    weight = np.ones(groups.total)
    if len(groups.others) > TRIAL_OTHERS:
        drawn[groups.others] = False
        drawn[rng.choice(groups.others, TRIAL_OTHERS, replace=False)] = True
        weight[groups.others] = len(groups.others) / TRIAL_OTHERS
    part_of_row, usable, weight_of_row = part[groups.of_row], drawn[groups.of_row], weight[groups.of_row]
    folds = []
    for number in range(FOLDS):
        train = np.flatnonzero((part_of_row != number) & usable)
        folds.append(Fold(train, weight_of_row[train], np.flatnonzero(part_of_row == number)))
    return folds


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
