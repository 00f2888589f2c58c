"""The blind baseline: how well text alone tells members from the holdout, with no model asked.

Where other dates, sources or formats tell the two apart, a membership score of any model measures that too
(Das, Zhang and Tramer 2024, arXiv 2406.16201). The classifier is a logistic regression on the words of a text
and their pairs, and on its form: length, letters, digits, white space, and how well it compresses. Words have
unit length in sum and no case, so they do not tell that. Each text is scored by one that saw no text of its
document.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kdaudit.analysis.intervals import Flags, Floats

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


LEAST_DOCUMENTS = 10
"""Documents of members, and of non-members, that the classifier takes at least."""
_FOLDS = 5
_BUCKETS = 1 << 18
_PENALTY = 0.1
"""Rows of words are of length 1; at scikit-learn's own 1 the classifier hardly leaves its start."""
_WORD = r"(?u)[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|\w+|[^\w\s]"
"""A word, a sign, or a character of a script that writes no spaces."""
_LONG_NUMBER = re.compile(r"\d{5,}")
"""Such as a time in seconds: each text has its own, and the first digits of like ones are equal."""
_LEADING = 3


def blind_scores(texts: Sequence[str], member: Flags, documents: NDArray[np.int64], seed: int) -> Floats:
    """Log odds of each text to be a member's: float64 (texts,).

    Args:
        texts: of members and non-members.
        member: which are members: bool (texts,).
        documents: equal for texts of one document: int64 (texts,); `LEAST_DOCUMENTS` of either kind.
        seed: deals the documents into folds.

    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    words, forms = _words(texts), np.array([_form(text) for text in texts])
    scores = np.empty(len(texts))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(words, member, documents):
        known, asked = _rows(words, forms, train, train), _rows(words, forms, train, test)
        model = LogisticRegression(C=1 / _PENALTY, class_weight="balanced", solver="liblinear")
        scores[test] = model.fit(known, member[train]).decision_function(asked)
    return scores


def _words(texts: Sequence[str]) -> csr_matrix:
    """Words and pairs of each text, rows of length 1; what one text alone has tells of no other."""
    from sklearn.feature_extraction.text import HashingVectorizer

    counts = HashingVectorizer(
        preprocessor=_prepared, token_pattern=_WORD, ngram_range=(1, 2), n_features=_BUCKETS
    ).transform(texts)
    kept: csr_matrix = counts[:, np.flatnonzero(counts.getnnz(0) > 1)]
    return kept


def _prepared(text: str) -> str:
    """Without case; behind the text the first digits of its long numbers."""
    numbers = (f"{one[:_LEADING]}of{len(one)}" for one in _LONG_NUMBER.findall(text))
    return " ".join([text.lower(), *numbers])


def _form(text: str) -> list[float]:
    """Length, and shares of its characters, as a model sees them and words do not."""
    size = max(1, len(text))
    counted = (str.isupper, str.isdigit, str.isspace, str.isalpha, str.isascii)
    shares = [sum(map(kind, text)) / size for kind in counted]
    lines, squeezed = text.count("\n") / size, len(zlib.compress(text.encode())) / size
    return [float(np.log(size)), float(np.log1p(len(text.split()))), *shares, lines, squeezed]


def _rows(words: csr_matrix, forms: Floats, train: NDArray[Any], chosen: NDArray[Any]) -> csr_matrix:
    """Words and form of some texts, the form standardized as it is spread in `train`, to a like length."""
    from scipy.sparse import csr_matrix, hstack
    from sklearn.preprocessing import StandardScaler

    scaled = StandardScaler().fit(forms[train]).transform(forms[chosen])
    return hstack([words[chosen], csr_matrix(scaled / np.sqrt(scaled.shape[1]))], format="csr")
