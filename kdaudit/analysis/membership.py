"""Membership inference of a model: every score's AUC, the best of them, and what they are set against.

Members and non-members are plain samples, of like sizes. A score says nothing of membership where members and
holdout differ in other ways too; so the text alone, without a model, stands beside it (`analysis.blind`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from kdaudit.analysis.blind import LEAST_DOCUMENTS
from kdaudit.analysis.roc import Scored, Separation, auc_difference, auc_interval, tpr_at
from kdaudit.schemas.attacks import (
    FALSE_POSITIVES,
    AgainstTeacher,
    BestScore,
    MembershipResult,
    MembershipScore,
)
from kdaudit.schemas.notes import Note

MOST = 10_000
"""Members, and non-members, that are compared at most: more would narrow intervals little."""


class Judged(NamedTuple):
    """A score of the examples, and what it tells."""

    scored: Scored
    separation: Separation

    @classmethod
    def of(cls, scored: Scored) -> Self:
        """Of a score."""
        return cls(scored, Separation.of(scored))


ModelScores = Mapping[str, Judged]
"""A model's scores by name; all of the same examples."""


class PlainSamples(NamedTuple):
    """Places in the samples of what is compared: int64, ascending."""

    members: NDArray[np.int64]
    nonmembers: NDArray[np.int64]


def plain_samples(members: NDArray[np.float64], nonmembers: NDArray[np.float64], seed: int) -> PlainSamples:
    """Draw plain samples from weighted ones: at most `MOST` of each, and no more members than non-members.

    Args:
        members: examples that each of the sample stands for, as one in so many was drawn: (members,).
        nonmembers: the same of the holdout's.
        seed: of the draw.

    """
    rng = np.random.default_rng(seed)
    others = _plain(nonmembers, MOST, rng)
    return PlainSamples(_plain(members, len(others), rng), others)


def _plain(weights: NDArray[np.float64], size: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """A sample in which every example of the text is equally likely to be.

    One in w was drawn of those with weight w; so of these w / (highest weight) are kept.
    """
    kept = np.flatnonzero(rng.random(len(weights)) * weights.max(initial=0) < weights)
    return np.sort(rng.permutation(kept)[:size]).astype(np.int64)


def membership_result(
    scores: ModelScores, blind: Judged | None, teacher: ModelScores | None
) -> MembershipResult:
    """What results.json says of a model.

    Args:
        scores: the model's, at least one.
        blind: the classifier on text alone, of the same examples.
        teacher: the teacher's scores, if the model is a student.

    """
    scored = next(iter(scores.values())).scored
    best = _best(scores, blind)
    blind_ci95 = None if blind is None else auc_interval(*blind)
    return MembershipResult(
        members=len(scored.members),
        nonmembers=len(scored.nonmembers),
        member_documents=scored.member_documents.count,
        nonmember_documents=scored.nonmember_documents.count,
        blind_auc=None if blind is None else blind.separation.auc,
        blind_ci95=blind_ci95,
        score={name: _score(judged) for name, judged in scores.items()},
        best=best,
        explained_by_text=_is_explained(blind_ci95, best),
        against_teacher=None if teacher is None else _against(scores, teacher),
    )


def membership_notes(results: Mapping[str, MembershipResult]) -> list[Note]:
    """Which figures are not available, and which say nothing; the results are by model."""
    found = next(iter(results.values()), None)
    if found is None:
        return []
    explained = [name for name, one in results.items() if one.explained_by_text]
    return [
        *_too_few(found),
        *([_no_blind(found)] if found.blind_auc is None else []),
        *([_text_differs(found, explained)] if explained else []),
    ]


def _score(judged: Judged) -> MembershipScore:
    scored = judged.scored
    return MembershipScore(
        auc=judged.separation.auc,
        ci95=auc_interval(*judged),
        tpr_at_fpr={
            fpr: tpr_at(scored, float(fpr)) if len(scored.nonmembers) >= least else None
            for fpr, least in FALSE_POSITIVES.items()
        },
    )


def _best(scores: ModelScores, blind: Judged | None) -> BestScore:
    """The highest AUC, with intervals that hold for all scores together (Bonferroni)."""
    name, judged = max(scores.items(), key=lambda pair: pair[1].separation.auc)
    scored, found = judged
    confidence = 1 - 0.05 / len(scores)
    return BestScore(
        score=name,
        auc=found.auc,
        ci95=auc_interval(scored, found, confidence),
        minus_blind=None if blind is None else found.auc - blind.separation.auc,
        minus_blind_ci95=None
        if blind is None
        else auc_difference(scored, found, blind.separation, confidence),
    )


def _is_explained(blind_ci95: tuple[float | None, float | None] | None, best: BestScore) -> bool | None:
    if blind_ci95 is None or best.minus_blind_ci95 is None:
        return None
    differs, more = blind_ci95[0], best.minus_blind_ci95[0]
    return differs is not None and differs > _CHANCE and (more is None or more <= 0)


_CHANCE = 0.5


def _against(scores: ModelScores, teacher: ModelScores) -> AgainstTeacher:
    """A student against its teacher.

    The score is chosen by the sum of both AUCs, which says next to nothing of their difference; the best
    score of one of them would favour that one.
    """
    shared = [name for name in scores if name in teacher]
    name = max(shared, key=lambda one: scores[one].separation.auc + teacher[one].separation.auc)
    scored, own = scores[name]
    other = teacher[name].separation
    return AgainstTeacher(
        score=name,
        auc=own.auc,
        teacher_auc=other.auc,
        difference=own.auc - other.auc,
        ci95=auc_difference(scored, own, other),
    )


def _too_few(found: MembershipResult) -> list[Note]:
    shares = [fpr for fpr, least in FALSE_POSITIVES.items() if found.nonmembers < least]
    if not shares:
        return []
    takes = " and ".join(f"{FALSE_POSITIVES[fpr]:,} at {100 * float(fpr):g}%" for fpr in shares)
    text = (
        "Membership: how many members are recognized at few false positives is not given with too few "
        f"examples of the holdout. It takes {takes}; there are {found.nonmembers:,}."
    )
    return [Note(code="membership_too_few", subject="attacks", text=text)]


def _no_blind(found: MembershipResult) -> Note:
    text = (
        "Membership: whether text alone tells members from the holdout is not known. That takes "
        f"{LEAST_DOCUMENTS} documents of both; there are {found.member_documents:,} and "
        f"{found.nonmember_documents:,}. Where they differ in date, source or format, scores measure that "
        "too."
    )
    return Note(code="membership_no_blind_baseline", subject="attacks", text=text)


def _text_differs(found: MembershipResult, explained: list[str]) -> Note:
    text = (
        "Membership: a classifier on words alone tells members from the holdout with an AUC of "
        f"{found.blind_auc:.3f}, and no score is shown to do better under {', '.join(explained)}. Their "
        "figures say nothing of membership: name a holdout of the same kind of text."
    )
    return Note(code="membership_text_differs", subject="attacks", text=text)
