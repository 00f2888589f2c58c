"""The blind baseline: how well text alone tells members from the holdout, with no model asked.

Where other dates, sources or formats tell the two apart, a membership score of any model measures that too
(Das, Zhang and Tramer 2024, arXiv 2406.16201). The classifier is a logistic regression on the words of a text
and their pairs; each text is scored by one that saw no text of its document.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kdaudit.analysis.intervals import Flags

Floats = NDArray[np.float64]

LEAST_DOCUMENTS = 10
"""Documents of members, and of non-members, that the classifier takes at least."""
_FOLDS = 5
_BUCKETS = 1 << 18
_PENALTY = 0.1
"""Rows are of length 1; at scikit-learn's own 1 the classifier hardly leaves its start."""
_WORD = r"(?u)[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+|[^\w\s]"
"""A word, a sign, or a character of a script that writes no spaces."""


def blind_scores(texts: Sequence[str], member: Flags, documents: NDArray[np.int64], seed: int) -> Floats:
    """Log odds of each text to be a member's: float64 (texts,).

    Args:
        texts: of members and non-members.
        member: which are members: bool (texts,).
        documents: equal for texts of one document: int64 (texts,); `LEAST_DOCUMENTS` of either kind.
        seed: deals the documents into folds.

    """
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    counts = HashingVectorizer(token_pattern=_WORD, ngram_range=(1, 2), n_features=_BUCKETS).transform(texts)
    counts = counts[:, np.flatnonzero(counts.getnnz(0) > 1)]  # what stands in one text tells of no other
    scores = np.empty(len(texts))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(counts, member, documents):
        model = LogisticRegression(C=1 / _PENALTY, class_weight="balanced", solver="liblinear")
        scores[test] = model.fit(counts[train], member[train]).decision_function(counts[test])
    return scores
