"""Extraction by sampling: a target is (n, p)-discoverable if n samples hold it with probability p or more.

Hayes and others (arXiv 2410.19482): with p_z the probability that one sample from the target's prompt is the
target, at least one of n independent samples is with 1 - (1 - p_z)^n. p_z is the product of the probabilities
that its tokens are drawn, each after the true tokens before it, so that one forward pass gives it and nothing
has to be sampled (Cooper and others, arXiv 2505.12546). Under greedy decoding n and p mean nothing: p_z is 1
or 0.

Everything here takes ln p_z, -inf where a token is outside the top k: float64 (examples,).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kdaudit.attacks.base import Flags


def discoverable(log_probability: NDArray[np.float64], queries: int, p: float) -> Flags:
    """Which targets are (n, p)-discoverable: bool (examples,)."""
    least = np.log(-np.expm1(np.log1p(-p) / queries))  # ln of the p_z that n samples hold with p
    flags: Flags = log_probability >= least
    return flags


def expected_queries(log_probability: NDArray[np.float64]) -> NDArray[np.float64]:
    """Samples that are drawn on average until one is the target, 1 / p_z: infinite where none can be."""
    with np.errstate(over="ignore"):
        queries: NDArray[np.float64] = np.exp(-log_probability)
    return queries
