"""Which features a predictor uses.

`paper` is the four of arXiv 2601.15394, means over whole windows. `all` reads both models on the suffix
alone, where memorization lies, how often the suffix occurs in the corpus, and zlib entropy. It was chosen by
cross-validation over documents (docs/performance.md, tests/benchmarks/feature_sets.py): beside these,
whole-window perplexities and KL divergence, copies, the window's length, the suffix's least likely token,
matched tokens and near-duplicates by MinHash told nothing more.

A label is not predicted from what it is made of. The teacher memorizes an example if and only if its smallest
margin over the suffix is positive. With that margin, with matched tokens or with the least likely token a
predictor of `easy_core` or `teacher` learns the definition of its labels: the AUC approaches 1, and the
examples that a student will memorize though these models do not, for whose sake a corpus is screened, are no
longer flagged. So these are left out; for `student` labels, whose models are others, the margins serve. Nor
does the baseline's margin help where only the teacher is the label.
"""

from __future__ import annotations

from kdaudit.config.predictor import FeatureSet
from kdaudit.risk.terms import DIVERGENCES, FEATURES, MARGINS, SUFFIX_FEATURES
from kdaudit.schemas.predictor import Labels

_ALL = ("zlib_entropy", *SUFFIX_FEATURES, "suffix_copies")


def features_for(chosen: FeatureSet, labels: Labels, *, one_vocabulary: bool = True) -> tuple[str, ...]:
    """Names of the features, columns of features/part-*.parquet.

    Args:
        chosen: the configuration's `predictor.features`.
        labels: what counts as a positive.
        one_vocabulary: whether teacher and baseline share a tokenizer: only then they have a KL divergence.

    """
    whole = (*_ALL, *MARGINS) if labels == "student" else _ALL
    names = FEATURES if chosen == "paper" else whole
    return names if one_vocabulary else tuple(name for name in names if name not in DIVERGENCES)
