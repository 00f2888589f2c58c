"""The risk predictor: which examples a model will memorize, predicted from features alone.

A standardized logistic regression (`logistic`) is fitted on all examples. Its threshold comes from the scores
of memorized examples under models fitted without them (`fit`), and so carries a recall guarantee
(`guarantee`), counted in documents or in distinct texts (`units`). predictor.json holds the one model, as
plain numbers (`model`). Figures come from resampled trials (`trials`), curves from the out-of-fold scores
(`curves`).

Nothing here runs a language model or knows a run directory; scikit-learn is imported inside functions.
"""

from __future__ import annotations

from kdaudit.risk.curves import risk_histogram
from kdaudit.risk.feature_sets import features_for
from kdaudit.risk.fit import (
    Fitted,
    PredictorSettings,
    Table,
    find_underpowered,
    fit_predictor,
    predictor_note,
)
from kdaudit.risk.model import Predictor, load_predictor
from kdaudit.risk.terms import FEATURES
from kdaudit.risk.units import Units, find_units
from kdaudit.risk.words import (
    family_warnings,
    guarantee_clause,
    guarantee_words,
    memorized_by,
    percent_down,
    reasons,
)

__all__ = [
    "FEATURES",
    "Fitted",
    "Predictor",
    "PredictorSettings",
    "Table",
    "Units",
    "family_warnings",
    "features_for",
    "find_underpowered",
    "find_units",
    "fit_predictor",
    "guarantee_clause",
    "guarantee_words",
    "load_predictor",
    "memorized_by",
    "percent_down",
    "predictor_note",
    "reasons",
    "risk_histogram",
]
