"""Which suffixes are still alive while their prefix is decoded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kdaudit.inference.base import Tokens


class SuffixLedger:
    """Counts matched tokens; examples that share a prefix share its one greedy continuation.

    Invariant: `matched[e]` is the length of the longest common start of example e's suffix and the
    tokens that its prefix's continuation has shown so far.
    """

    def __init__(self, prefixes: Tokens, suffixes: Tokens) -> None:
        distinct, first, group = np.unique(prefixes, axis=0, return_index=True, return_inverse=True)
        order = np.argsort(first, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        self.prefixes: Tokens = distinct[order]
        """Distinct prefixes in the order in which they first stand: int32 (prefixes, prefix tokens)."""
        self.matched: NDArray[np.int16] = np.zeros(len(suffixes), dtype=np.int16)
        """Matched tokens of each example: int16 (examples,)."""
        self._suffixes = suffixes.tolist()
        self._alive: list[list[int]] = [[] for _ in range(len(distinct))]
        for example, row in enumerate(rank[group.reshape(-1)].tolist()):
            self._alive[row].append(example)
        self._shown = [0] * len(distinct)

    def advance(self, row: int, tokens: Sequence[int]) -> bool:
        """Take the next tokens of prefix `row`; False once none of its suffixes agrees any more.

        Also True when all suffixes are complete: such a request ends by itself.
        """
        for token in tokens:
            step = self._shown[row]
            self._alive[row] = [e for e in self._alive[row] if self._suffixes[e][step] == token]
            for example in self._alive[row]:
                self.matched[example] = step + 1
            self._shown[row] = step + 1
            if not self._alive[row]:
                return False
        return True
