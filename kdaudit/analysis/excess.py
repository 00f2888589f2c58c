"""Inheritance against chance: what a student has of its teacher beyond what any retraining regains.

Teacher-specific means that a baseline missed it, and trainings differ: another baseline, which never met the
teacher, memorizes a part of it too. With two or more baselines that part can be measured. Each baseline in
turn is the reference: among the examples that the teacher memorizes and the reference does not, the
student's rate is set against the mean rate of the other baselines; the mean over the references is taken.

Of models that memorize unlike many examples, the one with more has more of any set. So the others are also
cut at the student's own count, keeping what they are surest of: the floor at the student's rate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import hypot
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from kdaudit.analysis.by_document import Documents, widened
from kdaudit.analysis.intervals import Flags, Floats, clopper_pearson
from kdaudit.schemas.result import Interval

_ROUNDING = 1e-6
NEAR = 0.1
"""Share of a suffix's tokens, each asked after the true ones, that a model which nearly memorizes it may
miss: nearly all that another training regains lies there."""


class Baseline(NamedTuple):
    """What a baseline memorizes, and how near it is to the rest: arrays are (examples,)."""

    memorized: Flags
    nearness: Floats
    """Ranks the examples, memorized ones above all others; ties are shared: float64."""
    nearly: Flags | None
    """Which others it nearly memorizes: at most `NEAR` of the suffix's tokens are wrong. None if it was not
    scored."""
    stands: Floats | None = None
    """Examples that each stands for in the ranking, float64: 0 of what is not ranked. None if nearness is
    known only of what some model memorizes: it cannot be cut beyond what it memorizes itself then, since the
    rest of what it is near to is missing."""

    @classmethod
    def of(
        cls,
        memorized: Flags,
        matched: Floats,
        scored: NDArray[np.int64],
        wrong: Floats,
        probability: Floats,
        weights: Floats | None = None,
    ) -> Self:
        """Rank examples: what is memorized, what else is scored, then the rest by matched tokens.

        Args:
            memorized: bool (examples,).
            matched: share of the suffix's tokens matched: (examples,).
            scored: ids of the examples that were read with the true tokens, the memorized ones among them.
            wrong: share of their suffix's tokens that are not the argmax: (scored,).
            probability: geometric mean of the probabilities of their suffix's tokens: (scored,).
            weights: examples of the corpus that each of them stands for: (scored,); None if they are only
                what some model memorizes.

        """
        nearness = matched - 1
        own = memorized[scored]
        nearness[scored] = np.where(own, 2 + probability, 1 - wrong + probability)
        nearly = np.zeros(len(memorized), np.bool_)
        nearly[scored] = ~own & (wrong <= NEAR)
        if weights is None:
            return cls(memorized, nearness, nearly)
        stands = np.zeros(len(memorized))
        stands[scored] = weights
        return cls(memorized, nearness, nearly, stands)


class Excess(NamedTuple):
    """Inheritance beyond chance; figures are None where no baseline misses what the teacher memorizes."""

    rate: float | None
    """The student's rate among the examples that the teacher memorizes and a reference does not."""
    floor: float | None
    """The other baselines' mean rate there."""
    difference: float | None
    """Rate minus floor; its interval draws documents."""
    difference_ci95: Interval | None
    ratio: float | None
    """Rate over floor; None where no other baseline has any of them."""
    ratio_ci95: Interval | None


NO_EXCESS = Excess(None, None, None, None, None, None)


def excess_over_chance(
    student: Flags, teacher: Flags, baselines: Sequence[Flags], documents: Documents
) -> Excess:
    """Set a student's inheritance against that of retrained baselines.

    Args:
        student: which examples it memorizes: bool (examples,).
        teacher: the same of the teacher.
        baselines: the same of at least two baselines.
        documents: of the examples.

    """
    return _excess(student, teacher, baselines, baselines, documents)


def can_be_cut(baseline: Baseline, count: int) -> bool:
    """Whether it is known which `count` examples a baseline is nearest to."""
    return baseline.stands is not None or count <= int(np.count_nonzero(baseline.memorized))


def excess_at_own_rate(
    student: Flags, teacher: Flags, baselines: Sequence[Baseline], documents: Documents
) -> Excess:
    """The same, the other baselines cut at as many examples as the student memorizes, if they can be.

    The cut is taken as given: the interval does not hold how it would vary with the documents drawn.
    """
    references = [one.memorized for one in baselines]
    count = int(np.count_nonzero(student))
    if not all(can_be_cut(one, count) for one in baselines):
        return NO_EXCESS
    return _excess(student, teacher, references, [at_count(one, count) for one in baselines], documents)


def excess_difference(
    first: Flags, second: Flags, teacher: Flags, baselines: Sequence[Flags], documents: Documents
) -> Excess:
    """The first student's excess against the second's: `difference` is of both excesses.

    The floor is one for both and cancels, so the second student stands in the others' place.
    """
    return _excess(first, teacher, baselines, [second] * len(baselines), documents)


def at_count(baseline: Baseline, count: int) -> Floats:
    """The `count` examples that a baseline is nearest to, as weights that add up to it: float64 (examples,).

    Examples that are tied at the cut share what is left of it; one that stands for others counts as these.
    """
    nearness = baseline.nearness
    stands = baseline.memorized.astype(np.float64) if baseline.stands is None else baseline.stands
    if count == 0:
        return np.zeros(len(nearness))
    levels, place = np.unique(nearness, return_inverse=True)
    at_level = np.bincount(place, stands)[::-1]
    up_to = np.cumsum(at_level)
    cut = min(int(np.searchsorted(up_to, count - _ROUNDING)), len(levels) - 1)
    rest = count - (up_to[cut] - at_level[cut])
    share = np.zeros(len(levels))
    share[:cut] = 1.0
    share[cut] = min(1.0, rest / at_level[cut]) if at_level[cut] else 0.0
    weights: Floats = stands * share[::-1][place]
    return weights


def _excess(
    student: Flags,
    teacher: Flags,
    references: Sequence[Flags],
    others: Sequence[Flags | Floats],
    documents: Documents,
) -> Excess:
    """The excess of the student over the mean of `others` but the reference's own, over all references."""
    sums = []
    for number, reference in enumerate(references):
        specific = teacher & ~reference
        rest = np.mean([other for place, other in enumerate(others) if place != number], axis=0)
        sums.append([specific, specific & student, specific * rest])
    by_document = np.stack(
        [documents.sums(values) for kind in zip(*sums, strict=True) for values in kind], axis=1
    )
    total = by_document.sum(axis=0, keepdims=True)
    rate, floor = (float(values[0]) for values in _rates(total))
    if np.isnan(rate):
        return NO_EXCESS
    ends = _Ends(by_document, rate, floor, documents)
    ratio = rate / floor if floor else None
    return Excess(rate, floor, rate - floor, ends.difference, ratio, ends.ratio if floor else None)


class _Ends:
    """Intervals of rate minus floor and rate over floor.

    Documents that all have one outcome show no spread when they are drawn again. Then the ends of rate and
    floor come from the number of documents, and are put together as independent ones are (Zou and Donner
    2008, Stat Med 27:1693).
    """

    def __init__(self, by_document: Floats, rate: float, floor: float, documents: Documents) -> None:
        specific = np.split(by_document, 3, axis=1)[0].sum(axis=1)
        self._asked = int(np.count_nonzero(specific))
        """Documents with a teacher-specific example."""
        self._alike = float(specific.sum() ** 2 / np.square(specific).sum())
        """As many documents with equally many of them tell as much, see `Documents.alike`."""
        self._sums, self._documents = by_document, documents
        self._rate, self._floor = rate, floor

    @property
    def difference(self) -> Interval:
        """Of rate minus floor."""
        gap = self._rate - self._floor
        if self._few:
            return (None, None)
        drawn = self._drawn(lambda totals: np.subtract(*_rates(totals)), gap)
        if drawn is not None:
            return (max(-1.0, drawn[0]), min(1.0, drawn[1]))
        (low, high), (floor_low, floor_high) = self._own(0), self._own(1)
        return (
            max(-1.0, gap - hypot(self._rate - low, floor_high - self._floor)),
            min(1.0, gap + hypot(high - self._rate, self._floor - floor_low)),
        )

    @property
    def ratio(self) -> Interval:
        """Of rate over floor, which is above 0."""
        if self._few:
            return (0.0, None)
        drawn = self._drawn(lambda totals: _ratio(*_rates(totals)), self._rate / self._floor)
        if drawn is not None:
            return (max(0.0, drawn[0]), drawn[1])
        (low, high), (floor_low, floor_high) = self._own(0), self._own(1)
        return (low / floor_high, high / floor_low if floor_low else None)

    @property
    def _few(self) -> bool:
        return self._asked < 2

    def _drawn(self, figure: Callable[[Floats], Floats], value: float) -> tuple[float, float] | None:
        """Ends by drawing documents; None where these do not vary, or the rate or the floor is 0 or 1."""
        low, high = self._documents.resampled(self._sums, figure)
        if low is None or high is None or low == high or not (0 < self._rate < 1 and 0 < self._floor < 1):
            return None
        reach = widened(self._alike)
        return (value - reach * (value - low), value + reach * (high - value))

    def _own(self, which: int) -> tuple[float, float]:
        """Ends of the rate (0) or of the floor (1) alone."""
        value = (self._rate, self._floor)[which]
        low, high = self._documents.resampled(self._sums, lambda drawn: _rates(drawn)[which])
        if low is None or high is None or low == high or not 0 < value < 1:
            low, high = clopper_pearson(self._alike * value, self._alike)
        return (low or 0.0, 1.0 if high is None else high)


def _rates(totals: Floats) -> tuple[Floats, Floats]:
    """The student's and the others' mean rate, each (draws,), NaN without any teacher-specific example.

    Args:
        totals: (draws, 3 * references): teacher-specific examples for each reference, those that the student
            memorizes of them, those that the others do.

    """
    specific, inherited, regained = np.split(totals, 3, axis=1)
    met = specific > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = [np.where(met, part / specific, 0.0).sum(1) / met.sum(1) for part in (inherited, regained)]
    return shares[0], shares[1]


def _ratio(rate: Floats, floor: Floats) -> Floats:
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(floor > 0, rate / floor, np.nan)
