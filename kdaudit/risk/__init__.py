"""The risk predictor: which examples a model will memorize, told from features alone.

A standardized logistic regression (`logistic`) is fitted on one part of the examples; its threshold comes
from memorized examples of the other part, which it never saw, and so carries a recall guarantee
(`guarantee`). What is shipped is the model of the first part: plain numbers (`model`, predictor.json).
Figures come from resampled trials (`trials`), curves from the part held out (`curves`).

Nothing here runs a language model or knows a run directory; scikit-learn is imported inside functions.
"""

from __future__ import annotations

from kdaudit.risk.curves import risk_histogram
from kdaudit.risk.fit import Fitted, PredictorSettings, Table, fit_predictor, predictor_note
from kdaudit.risk.model import Predictor, load_predictor
from kdaudit.risk.terms import EXTRA_FEATURES, FEATURES
from kdaudit.risk.words import family_warnings, guarantee_words, reasons

__all__ = [
    "EXTRA_FEATURES",
    "FEATURES",
    "Fitted",
    "Predictor",
    "PredictorSettings",
    "Table",
    "family_warnings",
    "fit_predictor",
    "guarantee_words",
    "load_predictor",
    "predictor_note",
    "reasons",
    "risk_histogram",
]
