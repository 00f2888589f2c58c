"""Softmax statistics of logits, a few rows at a time.

Numbers are float32, in scratch memory that is used over and over: to allocate it for each chunk would
cost more than the arithmetic. Sums that cancel, or that hold the 1 of the likeliest token, are float64: where
both models are nearly sure, as of memorized text, entropy and divergence would be lost in rounding.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.inference.base import Sampling

if TYPE_CHECKING:
    import torch

Floats = NDArray[np.float64]

_CHUNK, _CHUNK_GPU = 1 << 17, 1 << 25
"""Numbers in one buffer: on a CPU what a core's cache holds, for each core; on a GPU what keeps it busy."""
_BUFFERS = 4
_AT_ONCE = 16
"""Chunks whose top k are taken together: little is written then, and what small steps cost is shared."""
_BLOCK = 64
"""Columns that `largest` looks at together."""


class Sums(NamedTuple):
    """Of one model at each position, with d(v) = logit(v) - largest logit: all float64 (positions,)."""

    total: Floats
    """Sum of exp(d(v)) over the vocabulary."""
    moment: Floats
    """Sum of exp(d(v)) d(v)."""
    target: Floats
    """d of the token that follows."""

    @property
    def nll(self) -> Floats:
        """-ln p of the token that follows, in nats."""
        return np.log(self.total) - self.target

    @property
    def entropy(self) -> Floats:
        """-sum of p ln p, in nats."""
        return np.log(self.total) - self.moment / self.total


class Details(NamedTuple):
    """What `Scores` takes of each position beyond `Sums`."""

    sums: Sums
    square: Floats
    """Sum of exp(d(v)) d(v)^2 over the vocabulary: float64 (positions,)."""
    hit: NDArray[np.bool_]
    """bool (positions,)"""

    @property
    def variance(self) -> Floats:
        """Of ln p over the distribution; rounding alone could make it negative."""
        total, moment = self.sums.total, self.sums.moment
        found: Floats = np.maximum(self.square / total - (moment / total) ** 2, 0.0)
        return found


class PairSums(NamedTuple):
    """Of two models at each position."""

    teacher: Sums
    baseline: Sums
    cross: Floats
    """Sum of exp(d_teacher) (d_teacher - d_baseline): where the models agree, it has no rounding error."""

    @property
    def kl_divergence(self) -> Floats:
        """KL(teacher || baseline) in nats; rounding alone could make it negative."""
        teacher, baseline = self.teacher.total, self.baseline.total
        found: Floats = np.maximum(self.cross / teacher - np.log(teacher) + np.log(baseline), 0.0)
        return found


class Softmax:
    """Scratch memory and the sums that are made in it.

    Args:
        width: columns of the logits that count: the vocabulary. Others, which padded models have, are
            left out, as if their probability were 0.
        device: where the logits are.

    """

    def __init__(self, width: int, device: str) -> None:
        import torch

        self._width = width
        chunk = _CHUNK * torch.get_num_threads() if device == "cpu" else _CHUNK_GPU
        self._rows = max(1, chunk // width)
        self._scratch = torch.empty((_BUFFERS, self._rows, width), device=device)
        self._wide = torch.float32 if device == "mps" else torch.float64  # Apple's GPUs have no float64

    def single(self, logits: torch.Tensor, targets: torch.Tensor) -> Sums:
        """Sums of one model.

        Args:
            logits: (positions, columns), of any dtype.
            targets: int64 (positions,), the tokens that follow.

        """
        import torch

        found = torch.empty((3, len(logits)), dtype=self._wide, device=logits.device)
        for rows in self._chunks(len(logits)):
            below, weights, spare, _ = self._buffers(rows)
            self._shift(logits[rows], below)
            found[:, rows] = self._sums(below, weights, spare, targets[rows])
        return Sums(*_float64(found))

    def details(self, logits: torch.Tensor, targets: torch.Tensor) -> Details:
        """The same sums, and what else a token's score has; arguments as in `single`."""
        import torch

        wide = torch.empty((4, len(logits)), dtype=self._wide, device=logits.device)
        hit = torch.empty(len(logits), dtype=torch.bool, device=logits.device)
        for rows in self._chunks(len(logits)):
            below, weights, spare, _ = self._buffers(rows)
            self._shift(logits[rows], below)
            wide[:3, rows] = self._sums(below, weights, spare, targets[rows])
            # `spare` holds exp(d) d.
            wide[3, rows] = spare.mul_(below).sum(-1, dtype=self._wide)
            hit[rows] = logits[rows].argmax(-1) == targets[rows]
        total, moment, target, square = _float64(wide)
        return Details(Sums(total, moment, target), square, hit.cpu().numpy())

    def sampled(self, logits: torch.Tensor, targets: torch.Tensor, sampling: Sampling) -> Floats:
        """Ln of the probability that each target is drawn: float64 (positions,); -inf outside the top k."""
        import torch

        found = torch.empty(len(logits), dtype=self._wide, device=logits.device)
        for rows in self._chunks(len(logits), _AT_ONCE if sampling.top_k else 1):
            found[rows] = self._drawn(logits[rows, : self._width], targets[rows, None], sampling)
        return found.cpu().numpy().astype(np.float64)

    def _drawn(self, logits: torch.Tensor, targets: torch.Tensor, sampling: Sampling) -> torch.Tensor:
        import torch

        logits, top_k = logits.float(), sampling.top_k
        own = logits.gather(-1, targets)
        if top_k is None or top_k >= self._width:
            return self._log_share(own, logits, sampling.temperature)
        best = largest(logits, top_k + 1)
        best, least, after = best[:, :top_k], best[:, top_k - 1], best[:, top_k]
        drawn = self._log_share(own, best, sampling.temperature)
        tied = torch.nonzero(after == least)[:, 0]  # others with the k-th, which can be drawn too
        if len(tied):
            kth = least[tied, None]
            others = (logits[tied] == kth).sum(-1) - (best[tied] == kth).sum(-1)
            share = self._log_share(kth, best[tied], sampling.temperature).exp()
            drawn[tied] -= torch.log1p(others * share)
        return drawn.masked_fill_(own[:, 0] < least, -np.inf)

    def _log_share(self, own: torch.Tensor, logits: torch.Tensor, temperature: float) -> torch.Tensor:
        """Ln of a softened logit's share among some: (rows, 1) of (rows, columns), to (rows,)."""
        import torch

        largest = logits.amax(-1, keepdim=True)
        total = torch.exp((logits - largest) / temperature).sum(-1, dtype=self._wide)
        return (own - largest)[:, 0].to(self._wide) / temperature - total.log()

    def pair(self, teacher: torch.Tensor, baseline: torch.Tensor, targets: torch.Tensor) -> PairSums:
        """Sums of two models; arguments as in `single`."""
        import torch

        found = torch.empty((7, len(teacher)), dtype=self._wide, device=teacher.device)
        for rows in self._chunks(len(teacher)):
            first, weights, spare, second = self._buffers(rows)
            self._shift(teacher[rows], first)
            self._shift(baseline[rows], second)
            found[:3, rows] = self._sums(first, weights, spare, targets[rows])
            found[6, rows] = first.sub_(second).mul_(weights).sum(-1, dtype=self._wide)
            found[3:6, rows] = self._sums(second, weights, spare, targets[rows])
        sums = _float64(found)
        return PairSums(Sums(*sums[:3]), Sums(*sums[3:6]), sums[6])

    def _chunks(self, positions: int, times: int = 1) -> list[slice]:
        rows = self._rows * times
        return [slice(start, min(start + rows, positions)) for start in range(0, positions, rows)]

    def _buffers(self, rows: slice) -> list[torch.Tensor]:
        return list(self._scratch[:, : rows.stop - rows.start])

    def _shift(self, logits: torch.Tensor, out: torch.Tensor) -> None:
        """Logits less the largest of their row."""
        import torch

        kept = logits[:, : self._width].float()
        torch.sub(kept, kept.amax(-1, keepdim=True), out=out)

    def _sums(
        self, below: torch.Tensor, weights: torch.Tensor, spare: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        """Total, moment and target: (3, rows). `weights` is left holding exp(below), `spare` times below."""
        import torch

        torch.exp(below, out=weights)
        torch.mul(weights, below, out=spare)
        own = below.gather(-1, targets[:, None])[:, 0].to(self._wide)
        # The moment too: mean and mean square nearly cancel where p is broad.
        return torch.stack([*(one.sum(-1, dtype=self._wide) for one in (weights, spare)), own])


def largest(logits: torch.Tensor, count: int) -> torch.Tensor:
    """The largest numbers of each row, descending: (rows, count).

    They are in as many blocks of columns as there are numbers: those with the largest maxima. To look into
    these alone takes a fifth of the time.
    """
    import torch

    blocks = logits.shape[1] // _BLOCK
    if blocks <= count:
        return logits.topk(count).values
    inside, behind = (
        logits[:, : blocks * _BLOCK].reshape(len(logits), blocks, _BLOCK),
        logits[:, blocks * _BLOCK :],
    )
    best = inside.amax(-1).topk(count).indices
    found = inside.gather(1, best[..., None].expand(-1, -1, _BLOCK)).flatten(1)
    return torch.cat([found, behind], dim=1).topk(count).values


def _float64(found: torch.Tensor) -> NDArray[np.float64]:
    return found.cpu().numpy().astype(np.float64)
