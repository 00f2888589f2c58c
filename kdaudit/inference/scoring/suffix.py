"""What a model makes of a window's suffix alone.

Memorized is a suffix: over a whole window its share of a mean is small, and what stands before and behind it
hides what the model knows of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from kdaudit.inference.base import Lengths, MatchedTokens
from kdaudit.inference.scoring.forward import Piece
from kdaudit.inference.scoring.softmax import Floats

if TYPE_CHECKING:
    import torch

_LOWEST_SHARE = 5
"""Min-K% takes the mean of one in so many tokens: 20%, at least one."""


class SuffixScores(NamedTuple):
    """Of each window's suffix under one model: float64 (windows,), logarithms and logits in nats."""

    nll: Floats
    """Mean -ln p of its tokens."""
    entropy: Floats
    """Mean entropy of the next-token distributions."""
    min_k: Floats
    """Mean of the lowest 20% of its tokens' ln p: Min-K% Prob, Shi and others 2024 (arXiv 2310.16789)."""
    worst: Floats
    """Lowest ln p of a token."""
    margin: Floats
    """Smallest over its tokens of the true token's logit less the largest of all other columns' logits, after
    the true tokens before it. Positive: greedy decoding reproduces the suffix; negative: it does not; 0: two
    tokens tie. It is also ln of the ratio of the two tokens' probabilities."""
    spread: Floats
    """Best logit less the median of all, at that token: the unit of `agreement`'s margins."""


class Leads(NamedTuple):
    """How far the true tokens are ahead of all others under one model; arrays are filled piece by piece."""

    hit: NDArray[np.bool_]
    """Whether it is the argmax of all columns, as in decoding: (rows, positions)."""
    margin: Floats
    """As in `SuffixScores`, of what was filled in: (rows,), at first infinite."""
    spread: Floats
    """As in `SuffixScores`: (rows,)."""

    @classmethod
    def empty(cls, shape: tuple[int, ...]) -> Self:
        """Of (rows, positions) of which nobody has asked yet."""
        return cls(np.zeros(shape, np.bool_), np.full(shape[0], np.inf), np.ones(shape[0]))

    def fill(self, logits: torch.Tensor, targets: torch.Tensor, piece: Piece, suffixes: Suffixes) -> None:
        """Fill in the suffixes' positions of a piece.

        Args:
            logits: of the piece's positions: (rows, positions, columns), of any dtype.
            targets: of all positions: int64 (rows, positions).
            piece: which positions the logits are of.
            suffixes: which positions count.

        """
        asked = suffixes.asked
        start, stop = max(piece.start, asked.start), min(piece.stop, asked.stop)
        if start >= stop:
            return
        there = (slice(None), slice(start, stop))
        read = logits[:, start - piece.start : stop - piece.start]
        self.hit[there], margins = _leads(read, targets[there])
        margins = np.where(suffixes.inside[there], margins, np.inf)
        least = margins.argmin(1)
        rows = np.flatnonzero(margins.min(1) < self.margin)
        self.margin[rows] = margins[rows, least[rows]]
        self.spread[rows] = _spreads(read[rows, least[rows]])


class Suffixes(NamedTuple):
    """Where the suffixes of a batch lie: bool (rows, positions); position i predicts token i + 1."""

    before: NDArray[np.bool_]
    inside: NDArray[np.bool_]

    asked: Piece
    """From the first position of any to behind the last."""

    @classmethod
    def between(cls, starts: Lengths, stops: Lengths, positions: int) -> Self:
        """Suffixes from their first to behind their last position: int64 (rows,) each."""
        places = np.arange(positions)
        before = places < starts[:, None]
        inside = ~before & (places < stops[:, None])
        return cls(before, inside, Piece(int(starts.min()), int(stops.max())))

    def matched(self, hit: NDArray[np.bool_]) -> MatchedTokens:
        """Hits of each row from the suffix's first token to the first miss, or its end: int16 (rows,)."""
        run = np.cumprod(hit | self.before, axis=1) * self.inside
        matched: MatchedTokens = run.sum(axis=1).astype(np.int16)
        return matched

    def mean(self, values: Floats) -> Floats:
        """Mean over each suffix of (rows, positions): float64 (rows,)."""
        mean: Floats = np.where(self.inside, values, 0.0).sum(1) / self.inside.sum(1)
        return mean

    def scores(self, nll: Floats, entropy: Floats, leads: Leads) -> SuffixScores:
        """What one model makes of them, from what it makes of each position (rows, positions)."""
        rising = np.sort(np.where(self.inside, -nll, np.inf), axis=1)
        count = np.maximum(1, self.inside.sum(1) // _LOWEST_SHARE)
        lowest = np.where(np.arange(rising.shape[1]) < count[:, None], rising, 0.0)
        return SuffixScores(
            nll=self.mean(nll),
            entropy=self.mean(entropy),
            min_k=lowest.sum(1) / count,
            worst=rising[:, 0],
            margin=leads.margin,
            spread=leads.spread,
        )


def _leads(logits: torch.Tensor, targets: torch.Tensor) -> tuple[NDArray[np.bool_], Floats]:
    """Hits, and the true tokens' logits less the largest others, at the same positions."""
    columns = targets[..., None]
    own = logits.gather(-1, columns)
    logits.scatter_(-1, columns, -np.inf)  # and back: a copy of the logits would cost as much again
    margin = (own[..., 0].float() - logits.amax(-1).float()).cpu().numpy()
    logits.scatter_(-1, columns, own)
    hit = margin > 0
    tied = np.nonzero(margin == 0)  # decoding takes one of the two: argmax knows which, and takes longer
    if len(tied[0]):
        hit[tied] = (logits[tied].argmax(-1) == targets[tied]).cpu().numpy()
    return hit, margin.astype(np.float64)


def _spreads(logits: torch.Tensor) -> Floats:
    """Best less median of logits (rows, columns): float64 (rows,)."""
    logits = logits.float()
    return (logits.amax(-1) - logits.median(-1).values).cpu().numpy().astype(np.float64)
