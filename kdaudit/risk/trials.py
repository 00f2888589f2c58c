"""How well the predictor separates memorized examples from others: figures over resampled trials.

Each trial draws a stratified split by groups, fits on one side and tests on the other. Recall and precision
are taken at a risk equal to the share of positives among the rows of the fit, where an example is equally
likely in both classes (a score of 0.5 of a class-balanced model), not at the threshold of the recall
guarantee. Precision and average precision are those of the whole corpus: tested rows are
weighted back to it where a trial draws only some of the negatives, or the table is a sample.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.risk.logistic import fit_logistic
from kdaudit.risk.splits import Groups, Trial, draw_trial
from kdaudit.risk.terms import Floats
from kdaudit.schemas.predictor import Trials


class TrialFigures(NamedTuple):
    """Each figure's mean and 2.5 to 97.5% range over the trials."""

    auc: Trials
    """Area under the ROC curve."""
    average_precision: Trials
    recall: Trials
    precision: Trials | None
    """Over the trials that flag anything; None if no trial does."""


class _Scores(NamedTuple):
    auc: float
    average_precision: float
    recall: float
    precision: float
    """NaN if nothing is flagged."""


def run_trials(
    terms: Floats,
    positive: NDArray[np.bool_],
    groups: Groups,
    count: int,
    rng: np.random.Generator,
    step: Callable[[int], None] = lambda _: None,
) -> TrialFigures:
    """Draw, fit and test `count` times.

    Args:
        terms: float64 (n, k), see `terms.to_terms`.
        positive: bool (n,).
        groups: of the rows, with at least two that are positive and two others.
        count: trials.
        rng: draws the splits.
        step: called after each trial with the number done.

    """
    scores = []
    for done in range(1, count + 1):
        scores.append(_score(terms, positive, draw_trial(groups, rng)))
        step(done)
    auc, average_precision, recall, precision = np.array(scores).T
    told = precision[np.isfinite(precision)]
    return TrialFigures(
        _spread(auc), _spread(average_precision), _spread(recall), _spread(told) if len(told) else None
    )


def _score(terms: Floats, positive: NDArray[np.bool_], trial: Trial) -> _Scores:
    from scipy.special import logit
    from sklearn.metrics import average_precision_score, roc_auc_score

    known = positive[trial.train]
    scores = fit_logistic(terms[trial.train], known, trial.train_weight).logit(terms[trial.test])
    truth, weight = positive[trial.test], trial.weight
    flagged = scores >= logit(np.average(known, weights=trial.train_weight))
    hit, all_flagged = weight[flagged & truth].sum(), weight[flagged].sum()
    return _Scores(
        auc=float(roc_auc_score(truth, scores, sample_weight=weight)),
        average_precision=float(average_precision_score(truth, scores, sample_weight=weight)),
        recall=float(hit / weight[truth].sum()),
        precision=float(hit / all_flagged) if all_flagged else float("nan"),
    )


def _spread(values: Floats) -> Trials:
    low, high = np.percentile(values, [2.5, 97.5])
    return Trials(mean=float(values.mean()), low=float(low), high=float(high))
