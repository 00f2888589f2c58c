"""The features that a predictor can use, and how each enters the logistic formula.

Perplexities and counts enter as natural logarithms: they are spread over orders of magnitude, and the log of
a perplexity is the mean loss per token. A logarithm rises with its argument, so a coefficient's sign has the
same meaning as for the plain feature.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdaudit.errors import UsageError

Floats = NDArray[np.float64]

FEATURES = ("zlib_entropy", "teacher_perplexity", "baseline_perplexity", "kl_divergence")
"""The four of arXiv 2601.15394, in the order of a table's columns."""
SUFFIX_FEATURES = (
    "suffix_kl_divergence",
    "teacher_suffix_nll",
    "baseline_suffix_nll",
    "teacher_suffix_entropy",
    "baseline_suffix_entropy",
    "teacher_suffix_min_k",
    "baseline_suffix_min_k",
)
"""Both models on the suffix alone, where memorization lies."""
DIVERGENCES = frozenset({"kl_divergence", "suffix_kl_divergence"})
"""Of teacher and baseline: undefined where these have different vocabularies."""
MARGINS = ("teacher_suffix_margin", "baseline_suffix_margin")
"""Positive where the model memorizes the example."""
EARLIER_FEATURES = ("copies", "tokens", "teacher_entropy")
"""What earlier versions could fit on besides."""
KNOWN_FEATURES = (*FEATURES, *SUFFIX_FEATURES, "suffix_copies", *MARGINS, *EARLIER_FEATURES)
"""What a predictor.json may name."""
LOGARITHMS = frozenset({"teacher_perplexity", "baseline_perplexity", "copies", "suffix_copies", "tokens"})
"""Features that enter as natural logarithms."""


def to_terms(features: Floats, names: tuple[str, ...]) -> Floats:
    """The features as terms of the formula: float64 (n, len(names)), the same shape as `features`.

    Raises:
        UsageError: a value is NaN or infinite, or has no logarithm where one is taken.

    """
    terms = np.array(features, dtype=np.float64)
    if terms.ndim != 2 or terms.shape[1] != len(names):
        raise ValueError(f"features are of shape {terms.shape}, not (n, {len(names)})")
    for column, name in enumerate(names):
        values = terms[:, column]
        _refuse(name, ~np.isfinite(values), "NaN or infinite")
        if name in LOGARITHMS:
            _refuse(name, values <= 0, "zero or negative")
            np.log(values, out=values)
    return terms


def _refuse(name: str, wrong: NDArray[np.bool_], words: str) -> None:
    count = int(wrong.sum())
    if count:
        raise UsageError(
            f"the feature {name} is {words} for {count:,} of {len(wrong):,} examples, the first "
            f"of them in row {int(wrong.argmax()):,}",
            fix="check the weights of the models that it comes from, or set their dtype to float32",
        )
