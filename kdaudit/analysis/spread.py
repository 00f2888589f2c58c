"""A figure over several trainings: mean, spread, and how far chance in training and in the text reaches.

Runs that differ by their seeds are audited on the same text. So what varies between them is the training, and
what each run's own interval tells, the choice of the text, is common to all of them: more trainings make the
first smaller, not the second.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from kdaudit.schemas.result import Interval
from kdaudit.schemas.trainings import Variance


class Spread(NamedTuple):
    """A figure over trainings."""

    mean: float | None = None
    deviation: float | None = None
    """Standard deviation; None for fewer than two, as all that follows."""
    ci95: Interval | None = None
    ci95_both_sources: Interval | None = None
    variance: Variance | None = None


def spread(values: Sequence[float], intervals: Sequence[Interval | None] = ()) -> Spread:
    """Mean and spread of a figure that independent trainings gave.

    Args:
        values: one of each training, at least one.
        intervals: the 95% interval of each, in the same order.

    """
    count = len(values)
    alike = min(values) == max(values)  # their mean must not differ from them by rounding
    mean = float(values[0]) if alike else float(np.mean(values))
    if count < 2:
        return Spread(mean)
    between = float(np.square(np.array(values) - mean).sum()) / (count - 1)
    within = _within(intervals)
    both = None if within is None else _t_interval(mean, between / count, count - 1, within)
    return Spread(
        mean=mean,
        deviation=between**0.5,
        ci95=_t_interval(mean, between / count, count - 1),
        ci95_both_sources=both,
        variance=Variance(between=between, within=within),
    )


def _within(intervals: Sequence[Interval | None]) -> float | None:
    """Mean variance that 95% intervals stand for, if each has both ends: a half is 1.96 standard errors."""
    halves = [_half(ends) for ends in intervals]
    known = [half for half in halves if half is not None]
    if not known or len(known) < len(halves):
        return None
    return float(np.mean(np.square(np.array(known) / stats.norm.ppf(0.975))))


def _half(ends: Interval | None) -> float | None:
    low, high = ends or (None, None)
    return None if low is None or high is None else (high - low) / 2


def _t_interval(mean: float, between: float, freedom: int, within: float = 0.0) -> Interval:
    """95% interval of a mean over trainings.

    The reach of each source is added in squares, t for the one that was estimated from few values and normal
    for the other, as Zou and Donner do with intervals of two estimates (Statistics in Medicine 27, 2008).

    Args:
        mean: the middle.
        between: variance of the mean that comes from the trainings.
        freedom: degrees of freedom of its estimate.
        within: variance that they share.

    """
    of_trainings, of_text = stats.t.ppf(0.975, freedom) ** 2 * between, stats.norm.ppf(0.975) ** 2 * within
    reach = float(of_trainings + of_text) ** 0.5
    return mean - reach, mean + reach
