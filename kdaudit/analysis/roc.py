"""How well a score tells members from non-members: AUC, and true positives at few false ones.

The unit is the document. AUC's variance is DeLong's (DeLong, DeLong and Clarke-Pearson 1988, Biometrics
44:837): each example has a part in the AUC, and these parts are added up in each document first, as
Obuchowski 1997 (Biometrics 53:567) does for clustered data. Where each document holds one example the two
are the same.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from math import floor, sqrt
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from kdaudit.analysis.by_document import Documents
from kdaudit.analysis.intervals import Floats, clopper_pearson
from kdaudit.schemas.result import Interval


class Scored(NamedTuple):
    """A score of members and of non-members, and the documents of both; higher means member."""

    members: Floats
    """(members,)"""
    nonmembers: Floats
    """(non-members,)"""
    member_documents: Documents
    nonmember_documents: Documents


class Separation(NamedTuple):
    """The AUC, and each example's part in it (DeLong's structural components)."""

    auc: float
    """Probability that a member has the higher score; ties count half."""
    of_members: Floats
    """Share of the non-members that score below each member: (members,)."""
    of_nonmembers: Floats
    """Share of the members that score above each non-member: (non-members,)."""

    @classmethod
    def of(cls, scored: Scored) -> Self:
        """Of a score."""
        of_members = _share_below(scored.members, scored.nonmembers)
        of_nonmembers = 1 - _share_below(scored.nonmembers, scored.members)
        return cls(float(of_members.mean()), of_members, of_nonmembers)


class _Spread(NamedTuple):
    """A figure's variance, and the degrees of freedom of that."""

    variance: float
    freedom: float

    def reach(self, confidence: float) -> float:
        """Half of a symmetric interval's length."""
        from scipy.stats import t

        return float(t.isf((1 - confidence) / 2, self.freedom)) * sqrt(self.variance)


def auc_interval(scored: Scored, found: Separation, confidence: float = 0.95) -> Interval:
    """Interval of the AUC, symmetric in its log odds; open where one document holds all of either kind.

    Where members and non-members hardly overlap, the parts hardly vary, and DeLong's interval is too short.
    So it always reaches as far as `_unseen` does from a perfect score. Where the parts do not vary at all, as
    of a score that is one number for all, it reaches as far to both sides.
    """
    from scipy.special import expit, logit

    if _fewest(scored) < 2:
        return (None, None)
    spread, unseen = _spread(scored, found.of_members, found.of_nonmembers), _unseen(scored, confidence)
    if spread.variance == 0:
        low, high = found.auc - unseen, found.auc + unseen
    else:
        centre, reach = logit(found.auc), spread.reach(confidence) / (found.auc * (1 - found.auc))
        low, high = float(expit(centre - reach)), float(expit(centre + reach))
    return (max(0.0, min(low, 1 - unseen)), min(1.0, max(high, unseen)))


def auc_difference(
    scored: Scored, first: Separation, second: Separation, confidence: float = 0.95
) -> Interval:
    """Interval of the first AUC minus the second, of the same examples; open as above.

    Args:
        scored: says which examples and documents.
        first: by one score.
        second: by another.
        confidence: of the interval.

    """
    if _fewest(scored) < 2:
        return (None, None)
    of_members = first.of_members - second.of_members
    spread = _spread(scored, of_members, first.of_nonmembers - second.of_nonmembers)
    gap = first.auc - second.auc
    reach = spread.reach(confidence) if spread.variance else _unseen(scored, confidence)
    return (max(gap - reach, -1.0), min(gap + reach, 1.0))


def tpr_at(scored: Scored, fpr: float) -> tuple[float, float, float]:
    """Share of members above the threshold that at most `fpr` of the non-members exceed, and its interval.

    The threshold is known no better than the non-members tell. So it has an interval of its own, between
    two of their scores; the share's ends are those of Clopper and Pearson's intervals there. Both intervals
    are of 95%: the errors of members and non-members are independent, and an end is wrong only if their sum
    is above the sum of what both allow for. The coverage, by simulation, is 0.96 or more.
    """
    falling = np.sort(scored.nonmembers)[::-1]
    allowed = floor(fpr * len(falling) + _ROUNDING)
    above = scored.members > _score_at(falling, allowed + 1)
    high_place, low_place = _places(
        scored, above=scored.nonmembers > _score_at(falling, allowed + 1), fpr=fpr
    )
    low, _ = _share(scored, _score_at(falling, high_place))
    _, high = _share(scored, _score_at(falling, low_place))
    return (float(above.mean()), low, high)


_ROUNDING = 1e-9
"""A share such as 0.01 of 700 is 7, however it is rounded."""
_BOUND_ERROR = 0.025
"""Probability that one end of an interval is wrong."""


def _places(scored: Scored, above: NDArray[np.bool_], fpr: float) -> tuple[int, int]:
    """Ranks, from 1, of the non-members between whose scores the threshold lies; 0 above all, n + 1 below."""
    from scipy.special import betainc

    n, effective = len(above), scored.nonmember_documents.effective(above)
    if not effective:
        return 0, n + 1
    share = effective / n  # what each of the non-members counts

    def fewer(place: int) -> float:
        """Probability that fewer than so many exceed the true threshold."""
        return 1 - float(betainc((place - 1) * share + 1, effective - (place - 1) * share, fpr))

    def as_many(place: int) -> float:
        """Probability that so many or more do."""
        return float(betainc(place * share, effective - place * share + 1, fpr))

    places = range(1, n + 1)
    return (
        bisect_right(places, _BOUND_ERROR, key=fewer),
        bisect_left(places, -_BOUND_ERROR, key=lambda place: -as_many(place)) + 1,
    )


def _share(scored: Scored, threshold: float) -> tuple[float, float]:
    """Interval of the share of members above a threshold, each end wrong with `_BOUND_ERROR`."""
    low, high = scored.member_documents.rate(scored.members > threshold, 1 - 2 * _BOUND_ERROR)
    assert low is not None  # noqa: S101 - a share's interval has no open end
    assert high is not None  # noqa: S101
    return low, high


def _score_at(falling: Floats, place: int) -> float:
    """The score at a rank, from 1."""
    if place == 0:
        return np.inf
    return float(falling[place - 1]) if place <= len(falling) else -np.inf


def _share_below(values: Floats, others: Floats) -> Floats:
    """Share of the others that are below each value; equal ones count half."""
    rising = np.sort(others)
    below, up_to = (rising.searchsorted(values, side) for side in ("left", "right"))
    share: Floats = (below + up_to) / (2 * len(others))
    return share


def _spread(scored: Scored, of_members: Floats, of_nonmembers: Floats) -> _Spread:
    """Variance of the mean of parts of both kinds, the jackknife's over documents (see `by_document`).

    Degrees of freedom are Welch and Satterthwaite's.
    """
    parts = []
    for documents, values in (
        (scored.member_documents, of_members),
        (scored.nonmember_documents, of_nonmembers),
    ):
        apart, count = documents.apart(values - values.mean()), documents.count
        variance = float(np.square(apart).sum()) / len(values) ** 2 * (count - 1) / count
        parts.append((variance, documents.alike - 1))
    variance = sum(part for part, _ in parts)
    freedom = sum(part**2 / free for part, free in parts)
    return _Spread(variance, variance**2 / freedom if freedom else 1.0)


def _unseen(scored: Scored, confidence: float) -> float:
    """The most that an AUC may be from 1 where no member scores below any non-member.

    Each pair of a document of either kind is one trial of the AUC, and the bound is Clopper and Pearson's.
    """
    _, high = clopper_pearson(0, _fewest_alike(scored), confidence)
    assert high is not None  # noqa: S101 - a share's interval has no open end
    return high


def _fewest(scored: Scored) -> int:
    return min(scored.member_documents.count, scored.nonmember_documents.count)


def _fewest_alike(scored: Scored) -> float:
    return min(scored.member_documents.alike, scored.nonmember_documents.alike)
