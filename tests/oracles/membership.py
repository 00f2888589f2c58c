"""Membership scores and AUCs, slowly: a token at a time and a pair at a time, from their papers' formulas."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from typing import NamedTuple


class Token(NamedTuple):
    """A token after those before it: the next-token distribution, and which it is."""

    probabilities: list[float]
    token: int

    @property
    def ln_p(self) -> float:
        return math.log(self.probabilities[self.token])

    @property
    def mean(self) -> float:
        return math.fsum(p * math.log(p) for p in self.probabilities if p)

    @property
    def variance(self) -> float:
        mean = self.mean
        return math.fsum(p * (math.log(p) - mean) ** 2 for p in self.probabilities if p)


Text = list[Token]


def perplexity(text: Text) -> float:
    return math.exp(-math.fsum(token.ln_p for token in text) / len(text))


def loss(prefix: Text, suffix: Text) -> float:
    return -math.log(perplexity(prefix + suffix))


def zlib_score(prefix: Text, suffix: Text, text: str) -> float:
    return -math.log(perplexity(prefix + suffix)) / len(zlib.compress(text.encode("utf-8")))


def _lowest_fifth(values: list[float]) -> float:
    kept = sorted(values)[: max(1, int(len(values) * 0.2 + 1e-9))]
    return math.fsum(kept) / len(kept)


def min_k(suffix: Text) -> float:
    return _lowest_fifth([token.ln_p for token in suffix])


def min_k_plus_plus(suffix: Text) -> float:
    return _lowest_fifth(
        [(token.ln_p - token.mean) / math.sqrt(token.variance) if token.variance else 0.0 for token in suffix]
    )


def reference(prefix: Text, suffix: Text, other_prefix: Text, other_suffix: Text) -> float:
    return math.log(perplexity(other_prefix + other_suffix) / perplexity(prefix + suffix))


def ez_ratio(suffix: Text, other: Text) -> float:
    """P / N of EZ-MIA: sums of what went up and down where the model errs; infinite if nothing went down."""
    zone = [
        one.ln_p - two.ln_p
        for one, two in zip(suffix, other, strict=True)
        if max(range(len(one.probabilities)), key=one.probabilities.__getitem__) != one.token
    ]
    up, down = sum(d for d in zone if d > 0), -sum(d for d in zone if d < 0)
    if not zone:
        return math.inf
    if not down:
        return math.inf if up else 1.0
    return up / down


def auc(members: Sequence[float], nonmembers: Sequence[float]) -> float:
    """Every pair of a member and a non-member."""
    wins = sum((m > n) + (m == n) / 2 for m in members for n in nonmembers)
    return wins / len(members) / len(nonmembers)


def delong_covariance(
    first: tuple[Sequence[float], Sequence[float]], second: tuple[Sequence[float], Sequence[float]]
) -> float:
    """Covariance of two AUCs of the same examples: DeLong and others 1988, equation 8, by pairs.

    Each is (members, non-members); twice the same one gives a variance.
    """
    components = []
    for members, nonmembers in (first, second):
        psi = [[(m > n) + (m == n) / 2 for n in nonmembers] for m in members]
        theta = auc(members, nonmembers)
        components.append(
            (
                [sum(row) / len(nonmembers) - theta for row in psi],
                [sum(column) / len(members) - theta for column in zip(*psi, strict=True)],
            )
        )
    total = 0.0
    for one, two in zip(*components, strict=True):
        total += sum(a * b for a, b in zip(one, two, strict=True)) / (len(one) - 1) / len(one)
    return total
