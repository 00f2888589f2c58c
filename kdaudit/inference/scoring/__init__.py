"""Features of examples: of their text, of their places in the corpus, and under teacher and baseline.

`text` compresses, `suffixes` counts places, `pair` scores windows under two models at once, `single` under
one. Models are met in worker processes; `batches`, `forward` and `softmax` are what runs there. Logarithms
are natural, and a mean is over all tokens after the first of a window.
"""

from kdaudit.inference.scoring.forward import ModelFiles
from kdaudit.inference.scoring.pair import PairScores, PairWorker
from kdaudit.inference.scoring.single import EntropyScores, FeatureService, FeatureWorker

__all__ = [
    "EntropyScores",
    "FeatureService",
    "FeatureWorker",
    "ModelFiles",
    "PairScores",
    "PairWorker",
]
