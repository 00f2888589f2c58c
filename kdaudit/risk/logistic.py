"""Standardized logistic regression with balanced classes, fitted by scikit-learn.

Balanced: both classes weigh the same, so the model's score is 0.5 for an example that is equally likely in
both classes. `with_prior` turns it into a probability for a corpus where positives are rarer.
"""

from __future__ import annotations

import warnings
from math import log
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.risk.terms import Floats

_STEPS = 1000


class Logistic(NamedTuple):
    """ln(odds) = intercept + sum of coefficients * (terms - means) / scales; arrays are float64 (terms,)."""

    means: Floats
    scales: Floats
    coefficients: Floats
    intercept: float

    def logit(self, terms: Floats) -> Floats:
        """The log odds of each row: float64 (n,)."""
        # Term by term, not as a matrix product, so that a row's value never depends on the rows beside it.
        total = np.full(len(terms), self.intercept)
        for column, (mean, scale, weight) in enumerate(
            zip(self.means, self.scales, self.coefficients, strict=True)
        ):
            total += weight * ((terms[:, column] - mean) / scale)
        return total

    def with_prior(self, positives: int, others: int) -> Logistic:
        """The model for a population with a class ratio of `positives` to `others`, not one to one.

        Prior correction of King and Zeng 2001, Political Analysis 9:137: only the intercept changes.
        """
        return self._replace(intercept=self.intercept + log(positives / others))


def fit_logistic(terms: Floats, positive: NDArray[np.bool_]) -> Logistic:
    """Fit with an L2 penalty of strength 1 on the coefficients, scikit-learn's default.

    A term that is constant gets the coefficient 0 and the scale 1.

    Args:
        terms: float64 (n, k).
        positive: bool (n,); both classes occur.

    """
    from scipy.linalg import LinAlgWarning
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(terms)
    # Newton's method needs some ten passes over the rows and ends closer to the optimum than lbfgs does.
    model = LogisticRegression(class_weight="balanced", solver="newton-cholesky", max_iter=_STEPS)
    with warnings.catch_warnings():
        # Classes that are perfectly separable, terms that are collinear: any far step is as good as
        # the last, and scikit-learn switches to lbfgs by itself.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", LinAlgWarning)
        model.fit(scaler.transform(terms), positive)
    constant = np.ptp(terms, axis=0) == 0
    return Logistic(
        means=scaler.mean_,
        scales=np.where(constant, 1.0, scaler.scale_),
        coefficients=np.where(constant, 0.0, model.coef_[0]),
        intercept=float(model.intercept_[0]),
    )
