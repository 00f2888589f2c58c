"""From a table of features and labels to a predictor, its recall guarantee, its figures and its curves.

The examples are split in two by groups. The model is fitted on one part and never refitted, so the other
part's positives are independent of the fit, and the order-statistic bound on their scores is exact
(split-conformal calibration). A group's score is the lowest of its positives', so the guarantee is about
texts of which every copy is flagged.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit import __version__
from kdaudit.risk.curves import PredictorCurves, draw_curves
from kdaudit.risk.guarantee import positives_needed, strongest_bound
from kdaudit.risk.logistic import Logistic, fit_logistic
from kdaudit.risk.model import Predictor
from kdaudit.risk.splits import TRIAL_OTHERS, Flags, Groups, find_groups, fit_rows
from kdaudit.risk.terms import FEATURES, LOGARITHMS, Floats, to_terms
from kdaudit.risk.trials import TrialFigures, run_trials
from kdaudit.risk.words import guarantee_words, weak_guarantee_words
from kdaudit.schemas.notes import Note, NoteCode
from kdaudit.schemas.results import Origin, RecallGuarantee

LEAST_GROUPS = 10
"""Groups with a positive, and groups without, that a predictor needs at least."""
_ROUNDING = 1e-9
"""The threshold lies this share below the held-out score, so that another machine's rounding flags it too."""


class Table(NamedTuple):
    """Examples to learn from."""

    features: Floats
    """float64 (n, k), in the order of the features' names."""
    positive: Flags
    """Whether memorized: bool (n,)."""
    groups: NDArray[np.int64]
    """int64 (n,): rows with an equal group are never on both sides of a split."""


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

    status: Literal["ok", "underpowered"]
    predictor: Predictor | None
    figures: TrialFigures | None
    curves: PredictorCurves | None
    positives: int
    """Positive examples."""
    notes: list[Note]
    """The recall guarantee, and what is not available and why."""

    @property
    def guarantee(self) -> RecallGuarantee | None:
        """Its recall guarantee."""
        return self.predictor.promise if self.predictor else None


class _Calibrated(NamedTuple):
    """A threshold and its basis."""

    threshold: float
    guarantee: RecallGuarantee | None
    held_out: int
    """Positive groups that the fit did not see."""


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
        table: all examples of the corpus.
        settings: the recall guarantee asked for, trials and seed; equal ones give an equal predictor.
        origin: recorded in predictor.json, and names the kind of positives.
        features: the names of the table's columns.
        step: called after each trial with the number done.

    Raises:
        UsageError: a feature is NaN, infinite, or not positive where its logarithm is taken.

    """
    from scipy.special import expit

    terms, positive = to_terms(table.features, features), table.positive
    groups, positives = find_groups(table.groups, positive), int(positive.sum())
    missing = _why_underpowered(groups, positives, len(positive))
    if missing:
        return Fitted("underpowered", None, None, None, positives, [predictor_note("no_predictor", missing)])
    split_draws, trial_draws = np.random.default_rng(settings.seed).spawn(2)
    seen = fit_rows(groups, positives_needed(settings.recall, settings.confidence), split_draws)
    model = fit_logistic(terms[seen], positive[seen]).with_prior(positives, len(positive) - positives)
    risk = expit(model.logit(terms))
    calibrated = _calibrate(groups.lowest(risk, positive & ~seen), settings)
    figures = run_trials(terms, positive, groups, settings.trials, trial_draws, step)
    return Fitted(
        "ok",
        _predictor(model, calibrated, positive, origin, features),
        figures,
        _curves(risk, positive, ~seen),
        positives,
        _notes(model, calibrated, groups, settings, origin, features),
    )


def predictor_note(code: NoteCode, text: str) -> Note:
    """A note about the risk predictor."""
    return Note(code=code, subject="predictor", text=text)


def _why_underpowered(groups: Groups, positives: int, examples: int) -> str | None:
    found, others = len(groups.positives), len(groups.others)
    if found >= LEAST_GROUPS and others >= LEAST_GROUPS:
        return None
    if positives and positives == examples:
        what = f"all {examples:,} examples are memorized, and it needs {LEAST_GROUPS} that are not"
    elif found < LEAST_GROUPS:
        what = f"it needs {LEAST_GROUPS} distinct memorized texts, and there {_are(found)}"
    else:
        what = f"it needs {LEAST_GROUPS} distinct texts that are not memorized, and there {_are(others)}"
    return (
        f"There is no risk predictor: {what}. Examples that the models were observed to memorize are still "
        "flagged; no example has a risk."
    )


def _are(count: int) -> str:
    return {0: "is none", 1: "is 1"}.get(count, f"are {count:,}")


def _calibrate(scores: Floats, settings: PredictorSettings) -> _Calibrated:
    """The threshold from the scores of the held-out positive groups, one each."""
    bound = strongest_bound(len(scores), settings.recall, settings.confidence)
    guarantee = None
    if bound.recall is not None:
        guarantee = RecallGuarantee(
            recall=bound.recall, confidence=settings.confidence, calibration_positives=len(scores)
        )
    score = float(np.sort(scores)[bound.rank - 1])
    return _Calibrated(score * (1 - _ROUNDING), guarantee, len(scores))


def _predictor(
    model: Logistic, calibrated: _Calibrated, positive: Flags, origin: Origin, features: tuple[str, ...]
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
        positives=int(positive.sum()),
        examples=len(positive),
        origin=origin,
    )


def _curves(risk: Floats, positive: Flags, held_out: Flags) -> PredictorCurves:
    """Curves of the held-out examples, positives and others weighted to their numbers in the corpus."""
    shares = np.array([np.mean(held_out[~positive]), np.mean(held_out[positive])])
    truth = positive[held_out]
    return draw_curves(risk[held_out], truth, 1 / shares[truth.astype(np.int64)])


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
    if guarantee is None or guarantee.recall < settings.recall:
        text = weak_guarantee_words(calibrated.held_out, settings.recall, settings.confidence, guarantee)
        notes.append(predictor_note("weak_recall_guarantee", text))
    notes += [
        predictor_note(
            "constant_feature",
            f"The risk predictor: {name} is the same for all examples that it was fitted on and has no "
            "effect.",
        )
        for name, weight in zip(features, model.coefficients, strict=True)
        if weight == 0
    ]
    if len(groups.others) > TRIAL_OTHERS:
        text = (
            f"The risk predictor's trials each draw {TRIAL_OTHERS:,} of the {len(groups.others):,} texts "
            "that are not memorized; precision and average precision are weighted back to all of them."
        )
        notes.append(predictor_note("sampled_trials", text))
    return notes
