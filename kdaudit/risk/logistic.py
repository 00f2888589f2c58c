"""Standardized logistic regression with a weak ridge penalty, fitted by scikit-learn.

Classes are not balanced and the intercept is not penalized, so over the rows of the fit the probabilities sum
to the positives, however rare these are. The penalty keeps coefficients finite where features separate the
classes, and takes back what few positives overfit: that grows with the number of features (van Houwelingen
and le Cessie 1990, Stat Med 9:1303), and so does the penalty. It is not tuned, because a strength tuned on
few positives is worse calibrated than one set beforehand (Sinkovec and others 2021, BMC Med Res Methodol
21:199). Firth's correction would overstate rare probabilities (Puhr and others 2017, Stat Med 36:2302).
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.risk.terms import Floats

_STEPS = 1000
_PENALTY = 0.25
"""Strength of the penalty for each feature that varies: 1, scikit-learn's default, for four of them."""
_TOLERANCE = 1e-10
"""Largest entry of the mean loss's gradient at the end; it must be far below the share of positives."""


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


def fit_logistic(terms: Floats, positive: NDArray[np.bool_], weight: Floats | None = None) -> Logistic:
    """Fit with an L2 penalty of `_PENALTY` times the number of terms that vary.

    A term that is constant gets the coefficient 0 and the scale 1.

    Args:
        terms: float64 (n, k).
        positive: bool (n,); both classes occur.
        weight: rows of the corpus that each row stands for, (n,); None for one each.

    """
    from scipy.linalg import LinAlgWarning
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(terms, sample_weight=weight)
    # Newton's method needs some ten passes over the rows and ends closer to the optimum than lbfgs does.
    constant = np.ptp(terms, axis=0) == 0
    strength = _PENALTY * max(1, int(np.count_nonzero(~constant)))
    model = LogisticRegression(C=1 / strength, solver="newton-cholesky", max_iter=_STEPS, tol=_TOLERANCE)
    with warnings.catch_warnings():
        # Classes that are perfectly separable, terms that are collinear: any far step is as good as
        # the last, and scikit-learn switches to lbfgs by itself.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", LinAlgWarning)
        model.fit(scaler.transform(terms), positive, sample_weight=weight)
    return Logistic(
        means=scaler.mean_,
        scales=np.where(constant, 1.0, scaler.scale_),
        coefficients=np.where(constant, 0.0, model.coef_[0]),
        intercept=float(model.intercept_[0]),
    )
