"""The order of rows when several processes train: that of one process, divided step by step.

A step's rows are those that one process would read in it, whatever the number of processes. If the last
step of an epoch has fewer, it is padded with `NO_ROW`, which keeps the processes in step and changes neither
loss nor gradient. The Trainer by itself would read some rows twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import Sampler

NO_ROW = -1
"""Padding of an order, in place of a row."""


class SharedOrder(Sampler[int]):
    """The rows of an epoch, in the order that `accelerate` gives one process, padded to whole steps.

    Args:
        rows: how many there are.
        step: rows of one step, over all processes.
        seed: of the order.
        epoch: asked as an epoch begins for its number, from 0.

    """

    def __init__(self, rows: int, step: int, seed: int, epoch: Callable[[], int]) -> None:
        self._rows = rows
        self._filling = -rows % step
        self._seed = seed
        self._epoch = epoch

    def __len__(self) -> int:
        return self._rows + self._filling

    def __iter__(self) -> Iterator[int]:
        order = SeedableRandomSampler(range(self._rows), data_seed=self._seed)
        order.set_epoch(self._epoch())
        yield from order
        yield from [NO_ROW] * self._filling
