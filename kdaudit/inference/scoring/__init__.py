"""Windows read by forward passes, with the true tokens before each token: `Engine.score` and the features.

    pair.py     teacher and baseline at once: what the risk predictor's features are made of
    single.py   one model: perplexity, entropy, how near it is to a suffix, `score_tokens`
    solo.py     one model: what pair.py gives of each model, where both read different tokens
    forward.py  a loaded model, and its logits a bounded stretch at a time (memory: `_LOGITS_BYTES`)
    batches.py  windows of like length together
    softmax.py  sums over the vocabulary
    suffix.py   figures of the suffix alone
    broken.py   models that give NaN are refused by name

`pair` and `single` meet models in worker processes. Logarithms are natural.
"""

from kdaudit.inference.scoring.forward import ModelFiles
from kdaudit.inference.scoring.pair import PairScores, PairWorker
from kdaudit.inference.scoring.single import (
    Answered,
    EntropyScores,
    FeatureService,
    FeatureWorker,
    Question,
    entropy_of,
    log_likelihood_of,
    nearness_of,
    scores_of,
)
from kdaudit.inference.scoring.solo import SoloScores

__all__ = [
    "Answered",
    "EntropyScores",
    "FeatureService",
    "FeatureWorker",
    "ModelFiles",
    "PairScores",
    "PairWorker",
    "Question",
    "SoloScores",
    "entropy_of",
    "log_likelihood_of",
    "nearness_of",
    "scores_of",
]
