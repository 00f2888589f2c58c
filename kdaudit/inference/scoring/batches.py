"""Windows in and out of a worker, and in batches of like length.

A model reads each window without its last token, whose successor nobody asks for, and after a BOS token where
it has one: `Reading` puts it there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.inference.base import Tokens

Ids = NDArray[np.int64]


class Packed(NamedTuple):
    """Windows as they are sent to a worker."""

    flat: Tokens
    """int32 (tokens,), all windows one after the other."""
    ends: Ids
    """int64 (windows,), where each ends in `flat`."""


class PaddedBatch(NamedTuple):
    """Windows that are read together; short ones are padded on the right."""

    rows: list[int]
    """Which windows."""
    inputs: Ids
    """int64 (rows, positions), what is read."""
    mask: Ids
    """int64 (rows, positions), 0 where there is padding."""
    targets: Ids
    """int64 (rows, positions), the token that follows each position."""
    counted: NDArray[np.bool_]
    """(rows, positions), whether the target is a window's token after its first."""

    def means(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Mean of each window's (rows, positions) over what counts: float64 (rows,)."""
        means: NDArray[np.float64] = np.where(self.counted, values, 0.0).sum(1) / self.counted.sum(1)
        return means


def pack(windows: Sequence[Tokens], least: int | Ids = 2) -> Packed:
    """Windows in the form that they travel in.

    Args:
        windows: int32 (tokens,) each.
        least: tokens that all, or each, must have; with one there is no token after the first.

    Raises:
        ValueError: a window has fewer.

    """
    lengths = np.array([len(window) for window in windows])
    wanted = np.broadcast_to(least, lengths.shape)
    if short := np.flatnonzero(lengths < wanted).tolist():
        raise ValueError(f"window {short[0]} has {lengths[short[0]]} tokens, not {wanted[short[0]]}")
    flat = np.concatenate([np.empty(0, np.int32), *windows])
    return Packed(flat, np.cumsum(lengths, dtype=np.int64))


def batches(packed: Packed, positions: int) -> Iterator[PaddedBatch]:
    """Batches of like length, the longest windows first.

    Args:
        packed: the windows.
        positions: how many a batch may have, padding included; a longer window comes alone.

    """
    windows = np.split(packed.flat.astype(np.int64), packed.ends)[:-1]  # the last is what follows them all
    order = np.argsort([len(window) for window in windows], kind="stable")[::-1].tolist()
    while order:
        room = max(1, positions // (len(windows[order[0]]) - 1))
        rows, order = order[:room], order[room:]
        yield _padded(rows, [windows[row] for row in rows])


def _padded(rows: list[int], sequences: list[Ids]) -> PaddedBatch:
    shape = (len(rows), max(map(len, sequences)) - 1)
    inputs, targets, mask = np.zeros((3, *shape), np.int64)
    batch = PaddedBatch(rows, inputs, targets, mask, np.zeros(shape, np.bool_))
    for row, sequence in enumerate(sequences):
        end = len(sequence) - 1
        batch.inputs[row, :end], batch.targets[row, :end] = sequence[:-1], sequence[1:]
        batch.mask[row, :end] = 1
        batch.counted[row, :end] = True
    return batch
