"""Intervals whose unit is the document: windows of one document are not independent.

A document that is memorized is often memorized in several windows, so that n windows tell less than n
independent ones. How much less is the design effect: the variance of a figure where documents are drawn,
over its variance where windows are (Kish 1965, Survey Sampling, 8.2). Intervals for counts are then taken
with counts divided by it, as Korn and Graubard 1998 (Survey Methodology 24:193) do for Clopper-Pearson's;
they keep their properties at counts of zero. Their correction for few documents is in the factor too. What
has no such interval is resampled: whole documents are drawn with replacement.

Of documents of very unlike sizes, a few large ones decide a figure, and it lies so near to what they hold
that their distance from it says little. So each distance is taken from the figure without that document:
the jackknife's variance (MacKinnon, Nielsen and Webb 2023, J Econometrics 232:272). How many documents there
are is counted as so many of one size (Kish 1965, 8.2): a giant among small ones is hardly more than one.

An example that stands in several documents counts for the first of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from kdaudit.analysis.intervals import (
    Flags,
    Floats,
    PairedTable,
    bonett_price_ratio,
    clopper_pearson,
    newcombe_paired_difference,
)
from kdaudit.schemas.result import Interval

DRAWS: Final = 2000
"""Resamples of the documents."""
_MOST_UNDEFINED = 0.025
"""Share of the draws without a value from which an interval's ends are open."""


class Documents:
    """Which document each example stands in.

    Args:
        codes: equal for examples of one document: int64 (examples,).
        seed: of the resampling.

    """

    def __init__(self, codes: NDArray[np.int64], seed: int = 0) -> None:
        names, self._of_example = np.unique(codes, return_inverse=True)
        self.count = len(names)
        """Documents that hold an example."""
        self._seed = seed

    @cached_property
    def sizes(self) -> Floats:
        """Examples of each document: float64 (documents,)."""
        return np.bincount(self._of_example, minlength=self.count).astype(np.float64)

    @cached_property
    def alike(self) -> float:
        """Documents of one size that tell as much as these: 1 to `count`, and `count` if sizes are equal."""
        return float(self.sizes.sum() ** 2 / np.square(self.sizes).sum())

    def apart(self, values: Floats) -> Floats:
        """Sums of values that add up to 0, (examples,), each set against the mean without that document."""
        left: Floats = self.sums(values) / (1 - self.sizes / self.sizes.sum())
        return left

    def sums(self, values: Floats | Flags) -> Floats:
        """Sum of the examples' values, (examples,), in each document: float64 (documents,)."""
        return np.bincount(self._of_example, weights=values, minlength=self.count).astype(np.float64)

    def within(self, chosen: Flags) -> Documents:
        """The documents of some examples, bool (examples,), alone."""
        return Documents(self._of_example[chosen], self._seed)

    def rate(self, memorized: Flags, confidence: float = 0.95) -> Interval:
        """Interval of a share of the examples, bool (examples,): Korn and Graubard's."""
        total = self.effective(memorized)
        share = np.count_nonzero(memorized) / len(memorized)
        return clopper_pearson(share * total, total, confidence)

    def effective(self, memorized: Flags) -> float:
        """Independent examples that tell as much of a share of the examples, bool (examples,), as these do.

        Where no or every example is memorized nothing tells how alike windows of a document are, and each
        document counts as one; of unlike sizes, see `alike`.
        """
        total, count = len(memorized), int(np.count_nonzero(memorized))
        if not 0 < count < total:
            return self.alike
        share = count / total
        return total / self._effect(memorized.astype(np.float64) - share, total * share * (1 - share))

    def difference(self, first: Flags, others: Sequence[Flags]) -> Interval:
        """Interval of a share minus the mean of others', all bool (examples,): Newcombe's."""
        table = _added(first, others)
        mean, several = np.mean(others, axis=0), len(others)
        spread = (table.first_only + table.second_only) / table.total
        gap = (table.first - table.second) / table.total
        influence = first - mean - gap
        effect = self._effect(influence, len(first) * (spread - gap * gap), least=1 / several)
        return newcombe_paired_difference(table, design_effect=several * effect)

    def ratio(self, first: Flags, others: Sequence[Flags]) -> Interval:
        """Interval of a share over the mean of others', all bool (examples,): Bonett and Price's."""
        table = _added(first, others)
        several = len(others)
        if not (table.first and table.second):
            effect = self._worst_effect
        else:
            own, other = table.first / table.total, table.second / table.total
            both = table.both / table.total
            influence = first / own - np.mean(others, axis=0) / other
            alone = len(first) * (1 / own + 1 / other - 2 * both / (own * other))
            effect = self._effect(influence, alone, least=1 / several)
        return bonett_price_ratio(table, design_effect=several * effect)

    def resampled(self, sums: Floats, figure: Callable[[Floats], Floats]) -> Interval:
        """Percentile interval of a figure of sums over examples, whole documents drawn with replacement.

        Args:
            sums: of each document, see `sums`: float64 (documents, k).
            figure: gives the figure, (draws,), of drawn totals, (draws, k); NaN where it is undefined.

        """
        # Documents with equal sums are drawn together: the number of each kind is multinomial.
        kinds, counts = np.unique(sums, axis=0, return_counts=True)
        rng = np.random.default_rng(self._seed)
        drawn = rng.multinomial(self.count, counts / self.count, size=DRAWS)
        values = figure(drawn @ kinds)
        known = values[np.isfinite(values)]
        if len(known) < (1 - _MOST_UNDEFINED) * DRAWS:
            return (None, None)
        low, high = np.percentile(known, [2.5, 97.5])
        return (float(low), float(high))

    def _effect(self, influence: Floats, alone: float, least: float = 1.0) -> float:
        """Design effect, for few documents enlarged as Korn and Graubard do.

        Args:
            influence: each example's part in the figure; adds up to 0: float64 (examples,).
            alone: sum of their squares if each example were drawn by itself.
            least: below which chance alone takes it.

        """
        if self.count < 2 or alone <= 0:
            return self._worst_effect
        by_document = float(np.square(self.apart(influence)).sum()) * (self.count - 1) / self.count
        return self._open(max(by_document / alone, least) * self._few)

    @property
    def _worst_effect(self) -> float:
        """The effect where all examples of a document have one outcome."""
        return self._open(float(np.square(self.sizes).sum() / self.sizes.sum()) * self._few)

    def _open(self, effect: float) -> float:
        """An effect that leaves less than one example leaves nothing."""
        return effect if effect < self.sizes.sum() else math.inf

    @property
    def _few(self) -> float:
        """Square of Student's quantile over the normal one; a single document leaves all open."""
        return _reach(self.alike) ** 2 if self.count > 1 else float("inf")


def widened(documents: float) -> float:
    """By how much an interval that draws so few documents (above 1) must be wider.

    Drawn documents vary by (n - 1) / n of what they should, and a normal reach is too short for few of them:
    Student's takes its place.
    """
    return _reach(documents) * math.sqrt(documents / (documents - 1))


def _reach(documents: float) -> float:
    """Student's quantile for more than one document over the normal one."""
    from scipy.stats import norm, t

    return float(t.ppf(0.975, documents - 1) / norm.ppf(0.975))


def _added(first: Flags, others: Sequence[Flags]) -> PairedTable:
    """Counts over all pairs of the first with one of the others."""
    tables = [PairedTable.of(first, other) for other in others]
    return PairedTable(*(sum(counts) for counts in zip(*tables, strict=True)))
