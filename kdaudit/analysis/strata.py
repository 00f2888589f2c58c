"""Shares of all examples, estimated from a sample in two strata.

The first stratum is looked at whole, of the second a simple random sample. The share is the sum of two: of
the examples that are in the first stratum and counted, and of those that are in the second and counted. Each
has a Clopper-Pearson interval, the second scaled by its stratum's size, and both are combined by squares:
MOVER, Zou and Donner 2008 (Stat Med 27:1693). As elsewhere the corpus itself counts as a sample of text of
its kind.
"""

from __future__ import annotations

from math import hypot
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from kdaudit.analysis.intervals import Flags, clopper_pearson
from kdaudit.schemas.result import Interval


class Estimate(NamedTuple):
    """A share of all examples."""

    rate: float
    ci95: Interval


class Strata(NamedTuple):
    """Which examples a sample stands for."""

    others: Flags
    """Which examples of the sample are of the second stratum, and stand for others too: bool (sample,)."""
    left: int
    """Examples of the second stratum, looked at or not; 0 where the sample is a census."""

    @classmethod
    def of(cls, weights: NDArray[np.float64]) -> Self:
        """From what each example of the sample stands for: 1 in the first stratum, float64 (sample,)."""
        others = weights > 1
        return cls(others, round(float(weights[others].sum())))

    @property
    def examples(self) -> int:
        """All that the sample stands for."""
        return int((~self.others).sum()) + self.left

    def share(self, counted: Flags) -> Estimate:
        """Estimate the share of all examples that are counted, from the sample's: bool (sample,)."""
        first, second = int((counted & ~self.others).sum()), int((counted & self.others).sum())
        whole, rate = clopper_pearson(first, self.examples), first / self.examples
        if not self.left:
            return Estimate(rate, whole)
        taken, size = int(self.others.sum()), self.left / self.examples
        part, scaled = clopper_pearson(second, taken), size * second / taken
        return Estimate(
            rate + scaled, _sum(rate, whole, scaled, (size * _end(part[0]), size * _end(part[1])))
        )


def _sum(one: float, ends: Interval, other: float, other_ends: Interval) -> Interval:
    """Interval of the sum of two independent estimates."""
    below = hypot(one - _end(ends[0]), other - _end(other_ends[0]))
    above = hypot(_end(ends[1]) - one, _end(other_ends[1]) - other)
    return (max(0.0, one + other - below), min(1.0, one + other + above))


def _end(bound: float | None) -> float:
    """An end of Clopper and Pearson's, which is never open."""
    assert bound is not None  # noqa: S101 - for the type alone
    return bound
