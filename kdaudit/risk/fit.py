"""From a table of features and labels to a predictor, its recall guarantee, its figures and its curves.

The saved model is fitted on all examples. Each example is also scored by a model that was fitted without it:
the groups are dealt into ten parts, and nine are fitted on to score the tenth (cross-fitting). So every
positive serves the fit and the guarantee. A group's score is the lowest of its positives', so the guarantee
is about texts, or documents, of which every such example is flagged.

This has a price in exactness. With positives held out from one model, the order-statistic bound is exact
whatever the model is (split-conformal calibration). Here the out-of-fold scores come from ten models that are
close to the saved one, but not equal to it. Without any assumption, less holds: for one example a coverage of
1 - 2a in place of 1 - a (CV+, Barber and others 2021, Ann Stat 49:486). But penalized logistic models of few
features that share nine tenths of their data differ by less than the bound allows for: in simulations with
known recall the guarantee holds as often as it says, from 30 positives on
(`tests/benchmarks/recall_guarantee.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit import __version__
from kdaudit.risk.curves import PredictorCurves, draw_curves
from kdaudit.risk.guarantee import RECALLS, Bound, strongest_bound
from kdaudit.risk.logistic import Logistic, fit_logistic
from kdaudit.risk.model import Predictor
from kdaudit.risk.splits import LEAST_GROUPS, TRIAL_OTHERS, Flags, Groups, draw_folds, find_groups
from kdaudit.risk.terms import FEATURES, LOGARITHMS, Floats, to_terms
from kdaudit.risk.trials import TrialFigures, run_trials
from kdaudit.risk.words import guarantee_words, weak_guarantee_words
from kdaudit.schemas.notes import Note, NoteCode
from kdaudit.schemas.predictor import Origin, RecallGuarantee, RecallThreshold, Unit

_ROUNDING = 1e-9
"""The threshold lies this share below the score that gives it, so that rounding elsewhere flags it too."""


class Table(NamedTuple):
    """Examples to learn from."""

    features: Floats
    """float64 (n, k), in the order of the features' names."""
    positive: Flags
    """Whether memorized: bool (n,)."""
    groups: NDArray[np.int64]
    """int64 (n,): rows with an equal group are never on both sides of a split."""
    unit: Unit = "texts"
    """What a group is, in the guarantee's words."""
    weight: Floats | None = None
    """Examples of the corpus that each row stands for, float64 (n,): one over its probability to be in the
    table, and 1 of every positive. None where the table is the corpus."""


class PredictorSettings(NamedTuple):
    """Settings of the fit."""

    trials: int
    """Resampled trials, at least 1."""
    recall: float
    """Share of the positives' kind that the threshold must flag, between 0 and 1."""
    confidence: float
    """Of that guarantee, between 0 and 1."""
    seed: int


class Fitted(NamedTuple):
    """A predictor and its evaluation; predictor, figures and curves are None if underpowered."""

    predictor: Predictor | None
    figures: TrialFigures | None
    curves: PredictorCurves | None
    positives: int
    """Positive examples."""
    thresholds: list[RecallThreshold]
    """Of rising recall, the predictor's own among them; empty if underpowered."""
    notes: list[Note]
    """The recall guarantee, and what is not available and why."""


class _Calibrated(NamedTuple):
    """A threshold and its basis."""

    threshold: float
    guarantee: RecallGuarantee | None
    positives: int
    """Positive groups."""
    unit: Unit
    """What a group is."""


def fit_predictor(
    table: Table,
    settings: PredictorSettings,
    origin: Origin,
    features: tuple[str, ...] = FEATURES,
    *,
    step: Callable[[int], None] = lambda _: None,
) -> Fitted:
    """Fit, calibrate and test a predictor.

    Args:
        table: all examples of the corpus, or all positives and a weighted sample of the others. Then
            intercept, figures and curves are estimates of those of the corpus.
        settings: the recall guarantee asked for, trials and seed; equal ones give an equal predictor.
        origin: recorded in predictor.json, and names the kind of positives.
        features: the names of the table's columns.
        step: called after each trial with the number done.

    Raises:
        UsageError: a feature is NaN, infinite, or not positive where its logarithm is taken.

    """
    from scipy.special import expit

    terms, positive = to_terms(table.features, features), table.positive
    groups = find_groups(table.groups, positive, table.weight)
    if (without := find_underpowered(positive, table.groups, sampled=table.weight is not None)) is not None:
        return without
    fold_draws, trial_draws = np.random.default_rng(settings.seed).spawn(2)
    model = fit_logistic(terms, positive, table.weight)
    unseen = expit(_out_of_fold(terms, positive, groups, fold_draws))
    scores = groups.lowest(unseen, positive)
    calibrated = _calibrate(scores, settings, table.unit)
    figures = run_trials(terms, positive, groups, settings.trials, trial_draws, step)
    return Fitted(
        _predictor(model, calibrated, table, origin, features),
        figures,
        draw_curves(unseen, positive, table.weight),
        int(positive.sum()),
        _thresholds(scores, calibrated, settings.confidence),
        _notes(model, calibrated, groups, settings, origin, features),
    )


def find_underpowered(positive: Flags, groups: NDArray[np.int64], *, sampled: bool = False) -> Fitted | None:
    """What `fit_predictor` gives where there are too few examples of a kind; None where there are enough.

    Args:
        positive: whether memorized: bool (n,).
        groups: as in `Table`.
        sampled: whether these are a sample of the corpus.

    """
    positives = int(positive.sum())
    missing = _why_underpowered(find_groups(groups, positive), positives, len(positive), sampled)
    if missing is None:
        return None
    notes = [predictor_note("no_predictor", missing)]
    return Fitted(None, None, None, positives, [], notes)


def predictor_note(code: NoteCode, text: str) -> Note:
    """A note about the risk predictor."""
    return Note(code=code, subject="predictor", text=text)


def _why_underpowered(groups: Groups, positives: int, examples: int, sampled: bool) -> str | None:
    found, others = groups.with_positive, groups.with_other
    if found >= LEAST_GROUPS and others >= LEAST_GROUPS:
        return None
    if positives and positives == examples:
        what = f"all {examples:,} examples are memorized, and it needs {LEAST_GROUPS} that are not"
    elif found < LEAST_GROUPS:
        what = f"it needs {LEAST_GROUPS} distinct memorized texts, and there {_are(found)}"
    else:
        what = f"it needs {LEAST_GROUPS} distinct texts that are not memorized, and there {_are(others)}"
        what += " in the sample that is scored (attacks.sample)" if sampled else ""
    return (
        f"There is no risk predictor: {what}. Examples that the models were observed to memorize are still "
        "flagged; no example has a risk."
    )


def _are(count: int) -> str:
    return {0: "is none", 1: "is 1"}.get(count, f"are {count:,}")


def _out_of_fold(terms: Floats, positive: Flags, groups: Groups, rng: np.random.Generator) -> Floats:
    """The log odds of each row by a model that was fitted without its part: float64 (n,)."""
    logit = np.empty(len(terms))
    for fold in draw_folds(groups, rng):
        model = fit_logistic(terms[fold.train], positive[fold.train], fold.weight)
        logit[fold.scored] = model.logit(terms[fold.scored])
    return logit


def _calibrate(scores: Floats, settings: PredictorSettings, unit: Unit) -> _Calibrated:
    """The threshold from the out-of-fold scores of the positive groups, one each."""
    bound = strongest_bound(len(scores), settings.recall, settings.confidence)
    guarantee = None
    if bound.recall is not None:
        guarantee = RecallGuarantee(
            recall=bound.recall,
            confidence=settings.confidence,
            calibration_positives=len(scores),
            unit=unit,
        )
    return _Calibrated(_threshold(scores, bound), guarantee, len(scores), unit)


def _threshold(scores: Floats, bound: Bound) -> float:
    return float(np.sort(scores)[bound.rank - 1]) * (1 - _ROUNDING)


def _thresholds(scores: Floats, calibrated: _Calibrated, confidence: float) -> list[RecallThreshold]:
    """The thresholds of `RECALLS`, and the predictor's own."""
    own = {} if calibrated.guarantee is None else {calibrated.guarantee.recall: calibrated.threshold}
    found = {}
    for recall in RECALLS:
        bound = strongest_bound(len(scores), recall, confidence)
        found[recall] = _threshold(scores, bound) if bound.recall == recall else None
    return [
        RecallThreshold(recall=recall, confidence=confidence, threshold=threshold)
        for recall, threshold in sorted((found | own).items())
    ]


def _predictor(
    model: Logistic, calibrated: _Calibrated, table: Table, origin: Origin, features: tuple[str, ...]
) -> Predictor:
    def named(values: Floats) -> dict[str, float]:
        return dict(zip(features, values.tolist(), strict=True))

    return Predictor(
        schema_version="1",
        kdaudit_version=__version__,
        features=features,
        logarithms=tuple(name for name in features if name in LOGARITHMS),
        means=named(model.means),
        scales=named(model.scales),
        coefficients=named(model.coefficients),
        intercept=model.intercept,
        threshold=calibrated.threshold,
        promise=calibrated.guarantee,
        positives=int(table.positive.sum()),
        examples=len(table.positive) if table.weight is None else round(table.weight.sum()),
        origin=origin,
    )


def _notes(
    model: Logistic,
    calibrated: _Calibrated,
    groups: Groups,
    settings: PredictorSettings,
    origin: Origin,
    features: tuple[str, ...],
) -> list[Note]:
    notes = []
    guarantee = calibrated.guarantee
    if guarantee:
        text = guarantee_words(
            guarantee, origin.labels, origin.student, lead="The risk predictor's recall guarantee"
        )
        notes.append(predictor_note("recall_guarantee", text))
    reached = guarantee.recall if guarantee else None
    if reached is None or reached < settings.recall:
        asked = RecallGuarantee(
            recall=settings.recall,
            confidence=settings.confidence,
            calibration_positives=calibrated.positives,
            unit=calibrated.unit,
        )
        notes.append(predictor_note("weak_recall_guarantee", weak_guarantee_words(asked, reached)))
    notes += [
        predictor_note(
            "constant_feature",
            f"The risk predictor: {name} is the same for all examples that it was fitted on and has no "
            "effect.",
        )
        for name, weight in zip(features, model.coefficients, strict=True)
        if weight == 0
    ]
    others = int(np.count_nonzero(~groups.positive))
    if others > TRIAL_OTHERS:
        text = (
            f"The risk predictor's trials each draw {TRIAL_OTHERS:,} of the {others:,} examples "
            "that are not memorized; precision and average precision are weighted back to all of them."
        )
        notes.append(predictor_note("sampled_trials", text))
    return notes
