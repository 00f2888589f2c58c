"""Whether risks are probabilities where memorization is rare, in simulated corpora whose truth is known.

    python tests/benchmarks/calibration.py --corpora 40

For each base rate: the mean over corpora of sum(risk) / positives, in the corpus that was fitted on and in
the whole population, and the calibration slope there (the coefficient of the log odds of the risk in a
logistic regression of the truth on it: below 1, risks are spread too far). `split, balanced` is what kdaudit
did before: a class-balanced fit of 20 positives, or of those beyond the 299 that the guarantee takes, whose
intercept is corrected to the corpus. Exit code 1 if a mean of today's fit lies outside 0.9 to 1.1.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.linear_model import LogisticRegression

from kdaudit.risk.logistic import fit_logistic

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
LogOdds = Callable[[Floats], Floats]

RATES = (0.0003, 0.001, 0.01, 0.1)
_SHIFT = np.array([-1.5, -0.8, -0.6, 0.5])
"""Of the positives' mean in each term; the spread is 1 in both classes."""
_POPULATION = 10_000
"""Of each class, drawn again and weighted to the base rate."""


class Kind(NamedTuple):
    """A kind of corpus."""

    like_others: float = 0.0
    """Share of the positives that lie a tenth as far from the others."""
    noisy: int = 0
    """Features beside the four: mixtures of them, with noise."""


KINDS = {
    "of one kind": Kind(),
    "a tenth like others": Kind(like_others=0.1),
    "20 features": Kind(noisy=16),
}


class Measured(NamedTuple):
    """One corpus; each is 1 where risks are probabilities."""

    in_corpus: float
    """Sum of its risks over its positives."""
    in_population: float
    slope: float


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--corpora", type=int, default=40, help="at each base rate; a tenth from 1% on")
    asked = parser.parse_args()
    wrong = 0
    print("positives                rate  fit              | sum in corpus, in population, slope (5 to 95%)")
    for label, kind in KINDS.items():
        for rate in RATES:
            seeds = range(asked.corpora if rate < 0.01 else max(4, asked.corpora // 10))
            for name, fit in (("split, balanced", split_balanced), ("all, weak ridge", all_rows)):
                found = np.array([measure(fit, asked.rows, rate, seed, kind) for seed in seeds])
                means, (low, high) = found.mean(axis=0), np.quantile(found[:, 2], [0.05, 0.95])
                print(
                    f"{label:20} {rate:8.2%}  {name:16} | {means[0]:.3f}, {means[1]:.3f}, {means[2]:.3f} "
                    f"({low:.2f} to {high:.2f})",
                    flush=True,
                )
                wrong += fit is all_rows and bool(np.abs(means - 1).max() > 0.1)
    return int(wrong > 0)


def measure(
    fit: Callable[[Floats, Flags], LogOdds], rows: int, rate: float, seed: int, kind: Kind
) -> Measured:
    """Draw a corpus with the base rate, fit, and compare with the truth."""
    rng = np.random.default_rng(seed)
    positives = round(rows * rate)
    terms, positive = _draw(positives, rows - positives, kind, rng)
    log_odds = fit(terms, positive)
    fresh, truth = _draw(_POPULATION, _POPULATION, kind, rng)
    score, weight = log_odds(fresh), np.where(truth, rate, 1 - rate) / _POPULATION
    return Measured(
        float(expit(log_odds(terms)).sum() / positives),
        float((weight * expit(score)).sum() / rate),
        _slope(score, truth, weight),
    )


def all_rows(terms: Floats, positive: Flags) -> LogOdds:
    """The predictor's fit."""
    return fit_logistic(terms, positive).logit


def split_balanced(terms: Floats, positive: Flags) -> LogOdds:
    """The fit of earlier versions: `terms` hold the positives first, in random order."""
    positives = int(positive.sum())
    count = min(positives // 2, max(20, positives - 299))
    seen = np.r_[0:count, positives : (positives + len(terms)) // 2]
    mean, spread = terms[seen].mean(axis=0), terms[seen].std(axis=0)
    model = LogisticRegression(class_weight="balanced", solver="newton-cholesky", max_iter=1000)
    model.fit((terms[seen] - mean) / spread, positive[seen])
    prior = float(np.log(positives / (len(terms) - positives)))
    return lambda rows: ((rows - mean) / spread) @ model.coef_[0] + model.intercept_[0] + prior


def _draw(positives: int, others: int, kind: Kind, rng: np.random.Generator) -> tuple[Floats, Flags]:
    near = rng.random(positives) < kind.like_others
    terms = rng.normal(size=(positives + others, len(_SHIFT)))
    terms[:positives] += np.where(near, 0.1, 1.0)[:, None] * _SHIFT
    mixtures = np.random.default_rng(7).normal(size=(len(_SHIFT), kind.noisy)) / 2
    noisy = terms @ mixtures + rng.normal(0, 0.5, (len(terms), kind.noisy))
    return np.hstack([terms, noisy]), np.arange(len(terms)) < positives


def _slope(score: Floats, truth: Flags, weight: Floats) -> float:
    model = LogisticRegression(C=np.inf, solver="newton-cholesky", tol=1e-10)
    model.fit(score[:, None], truth, sample_weight=weight * len(weight))
    return float(model.coef_[0, 0])


if __name__ == "__main__":
    sys.exit(main())
