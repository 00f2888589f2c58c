"""Membership inference: scores that tell an example of the training data from one that the model never saw.

All follow from the scoring pass. The higher a score, the likelier a member. They are of the example's text:
of its suffix's tokens after the true tokens before them, and where a score adds up ln p, of its prefix's too.

    loss             mean ln p: Yeom and others 2018 (arXiv 1709.01604)
    zlib             mean ln p over the bytes of the compressed text: Carlini and others 2021
                     (arXiv 2012.07805)
    min_k            mean of the lowest 20% of ln p: Min-K% Prob, Shi and others 2024 (arXiv 2310.16789)
    min_k_plus_plus  the same of ln p standardized by the next-token distribution: Min-K%++, Zhang and others
                     2025 (arXiv 2404.02936)
    reference_NAME   mean ln p less that under another model: Carlini and others 2021, Mireshghallah and
                     others 2022 (arXiv 2203.03929)
    ez_NAME          where the model's argmax is another token, the share of the changes of ln p against
                     another model that go up: EZ-MIA, Ilic and others 2026 (arXiv 2601.12104)
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.inference import Lengths

Floats = NDArray[np.float64]

_LOWEST_SHARE = 5
"""Min-K% takes the mean of one in so many tokens: 20%, at least one."""


class SuffixTokens(NamedTuple):
    """What one model makes of some examples; natural logarithms.

    Arrays but the last are (examples, tokens), of the suffixes' tokens; what stands behind the end of a
    shorter suffix does not count.
    """

    log_probability: Floats
    """ln p of the token; NaN behind the suffix's end."""
    mean: Floats
    """Mean of ln p over the next-token distribution itself."""
    variance: Floats
    """Variance of ln p over the same."""
    hit: NDArray[np.bool_]
    """Whether the token is the argmax."""
    prefix: Floats
    """Sum of ln p over the prefix's tokens, 0 where prefixes do not count: (examples,)."""

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which tokens are of a suffix: (examples, tokens)."""
        return ~np.isnan(self.log_probability)

    @property
    def total(self) -> Floats:
        """Sum of ln p over prefix and suffix: (examples,)."""
        total: Floats = self.prefix + np.nansum(self.log_probability, axis=1)
        return total


class TextSizes(NamedTuple):
    """How much text each example has: int64 (examples,) each."""

    tokens: Lengths
    """Tokens that `SuffixTokens.total` adds up, in the run's tokenizer."""
    compressed: Lengths
    """Bytes of their text's zlib stream, see `compressed_bytes`."""


def compressed_bytes(text: str) -> int:
    """Size of a text's zlib stream, as the zlib score takes it: 2 bytes of header, 4 of checksum."""
    return len(zlib.compress(text.encode()))


def own_scores(reading: SuffixTokens, sizes: TextSizes) -> dict[str, Floats]:
    """The scores that take no other model, by name: float64 (examples,) each."""
    loss = reading.total / sizes.tokens
    return {
        "loss": loss,
        "zlib": loss / sizes.compressed,
        "min_k": _mean_of_lowest(reading.log_probability),
        "min_k_plus_plus": _mean_of_lowest(_standardized(reading)),
    }


def reference_score(reading: SuffixTokens, reference: SuffixTokens, sizes: TextSizes) -> Floats:
    """`reference_NAME`: the models may read the text as different tokens."""
    ratio: Floats = (reading.total - reference.total) / sizes.tokens
    return ratio


def ez_score(reading: SuffixTokens, reference: SuffixTokens) -> Floats:
    """`ez_NAME`: both models read the same tokens.

    The paper's score is up / down, sums over the error zone; this is up / (up + down), which ranks examples
    equally and stays finite. Without an error, or with none that went down, up / down is not defined or
    infinite: the example ranks highest. (The authors' code ranks it lowest, and so one with a single error;
    what a model knows by heart would be no member then.) Where nothing changed in either direction it is 1/2.
    """
    change = np.where(reading.inside & ~reading.hit, reading.log_probability - reference.log_probability, 0.0)
    up, moved = np.maximum(change, 0.0).sum(1), np.abs(change).sum(1)
    share = np.divide(up, moved, out=np.full(len(up), 0.5), where=moved > 0)
    score: Floats = np.where((reading.hit | ~reading.inside).all(1), 1.0, share)
    return score


def _standardized(reading: SuffixTokens) -> Floats:
    """(ln p - mean) / standard deviation; 0 where the distribution holds one token alone."""
    deviation = np.sqrt(reading.variance)
    distance = reading.log_probability - reading.mean
    scores = np.where(reading.inside, 0.0, np.nan)
    np.divide(distance, deviation, out=scores, where=reading.inside & (deviation > 0))
    return scores


def _mean_of_lowest(values: Floats) -> Floats:
    """Mean of each row's lowest 20%, at least one, of what is not NaN: (rows,)."""
    count = np.maximum(1, (~np.isnan(values)).sum(1) // _LOWEST_SHARE)
    rising = np.sort(values, axis=1)  # NaN goes last
    lowest = np.where(np.arange(values.shape[1]) < count[:, None], rising, 0.0)
    mean: Floats = lowest.sum(1) / count
    return mean
