"""Which features a predictor of which kind of example may use.

`paper` is the four of arXiv 2601.15394, means over whole windows. `all` adds what one pass over teacher and
baseline and the corpus give besides: both models on the suffix alone, where memorization lies, and how often
window and suffix stand in the corpus.

Left out of `all` is what the label itself is made of. The teacher memorizes an example if it matches all of
its suffix, that is if its smallest margin is positive: with these two among its features a predictor of that
kind would learn this definition, reach an AUC of 1, and flag nothing but what is known without it. So for
`teacher` labels the teacher's matched tokens and margin are left out, for `easy_core` the baseline's too. A
student is another model, and for `student` labels all of them serve. Of several baselines the first is
scored: an example that only another one memorizes is positive all the same.
"""

from __future__ import annotations

from kdaudit.config.audit import FeatureSet
from kdaudit.risk.terms import CORPUS_FEATURES, FEATURES, MATCH_FEATURES, SUFFIX_FEATURES
from kdaudit.schemas.results import Labels

_OF_THE_LABEL: dict[Labels, tuple[str, ...]] = {
    "easy_core": ("teacher_matched", "teacher_suffix_margin", "baseline_matched", "baseline_suffix_margin"),
    "teacher": ("teacher_matched", "teacher_suffix_margin"),
    "student": (),
}
"""Features that say what the label says."""


def features_for(chosen: FeatureSet, labels: Labels) -> tuple[str, ...]:
    """Names of the features, columns of features/part-*.parquet.

    Args:
        chosen: the configuration's `predictor.features`.
        labels: what counts as a positive.

    """
    if chosen == "paper":
        return FEATURES
    known = (*FEATURES, *SUFFIX_FEATURES, *CORPUS_FEATURES, *MATCH_FEATURES)
    return tuple(name for name in known if name not in _OF_THE_LABEL[labels])
