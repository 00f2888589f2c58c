"""Exposure of canaries: how much likelier a model finds them than texts drawn alike that it never read.

Carlini et al., The Secret Sharer (arXiv 1802.08232), estimated by sampling (their section 4.3): with the
controls of its family and itself a canary stands in a set of |R| = controls + 1 texts, and its exposure is

    log2 |R| - log2 rank,    rank = 1 + controls that the model finds at least as likely,

from 0 to log2 |R| bits. A canary that a model never read has any rank with equal chance: its exposure is 1
bit or more with a chance of 1/2, and log2 e = 1.44 bits in the mean, where controls are many. The exposure
estimates -log2 of the probability q that a text drawn alike is found at least as likely; so an interval of q
gives one of the exposure. Where no control is as likely, its upper end is open: there are too few controls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from kdaudit.analysis.intervals import Floats

_ERROR = 0.05
"""Of an interval for each of both sources of error, the controls and the canaries. They are independent, and
an end that is as far out as both allow is exceeded no more often: `tests/test_exposure.py` simulates it."""


class Exposures(NamedTuple):
    """Of canaries, in bits: float64 (canaries,)."""

    value: Floats
    low: Floats
    """Lower end of an interval of 95% for what the controls leave open."""
    high: Floats
    """Upper end; inf where it is open."""


class Median(NamedTuple):
    """The median exposure of canaries, in bits, with an interval of 95% for other canaries and controls."""

    median: float
    low: float
    high: float | None
    """None if it is open."""


def exposures(canaries: Floats, controls: Floats) -> Exposures:
    """Exposure of canaries of one family.

    Args:
        canaries: ln p of each canary: float64 (canaries,).
        controls: the same of the family's controls: float64 (controls,), one at least.

    """
    from scipy.stats import beta

    total = len(controls)
    above = total - np.searchsorted(np.sort(controls), canaries, side="left")
    with np.errstate(divide="ignore"):  # the ends of Clopper and Pearson's interval of q
        high = -np.log2(np.where(above == 0, 0.0, beta.ppf(_ERROR / 2, above, total - above + 1)))
        low = -np.log2(np.where(above == total, 1.0, beta.ppf(1 - _ERROR / 2, above + 1, total - above)))
    return Exposures(highest(total) - np.log2(1.0 + above), low + 0.0, high)


def highest(controls: int) -> float:
    """The largest exposure that so many controls of a family can show, in bits."""
    return math.log2(controls + 1)


def median(found: Sequence[Exposures]) -> Median:
    """The median over canaries of all families, one at least.

    Its interval is of order statistics (the k-th smallest and largest), of the ends that `exposures` gives.
    """
    from scipy.stats import binom

    values, lows, highs = (np.sort(np.concatenate(parts)) for parts in zip(*found, strict=True))
    count = len(values)
    rank = int(binom.ppf(_ERROR / 2, count, 0.5))  # as many can lie below the median by chance, not fewer
    high = float(highs[count - rank]) if rank else math.inf
    return Median(
        median=float(np.median(values)),
        low=float(lows[rank - 1]) if rank else 0.0,
        high=high if math.isfinite(high) else None,
    )
