"""Which targets are still alive while their prompt is continued, compared by text.

The engine knows ids alone; what each of them writes is a table that it is given (`EngineOptions.pieces`). The
bytes of a continuation's tokens, joined, have to begin with the target's bytes: whichever tokens write them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kdaudit.inference.base import EngineOptions, MatchedBytes
from kdaudit.inference.examples import Lengths, Ragged
from kdaudit.inference.prefixes import SharedPrompts

EMPTY_TOKENS = 8
"""Tokens that write nothing which a continuation may hold: each other one writes a byte at least."""


def pieces_from(options: EngineOptions) -> list[bytes | None]:
    """What each token writes, see `EngineOptions.pieces`."""
    return [None if piece is None else piece.encode("latin-1") for piece in options.pieces]


class TextLedger:
    """Counts matched bytes; examples that share a prompt share its one greedy continuation.

    Args:
        prompts: what is read.
        targets: the bytes that should follow, 0 to 255: at least one each.
        pieces: by token id, what the token writes; None, and beyond them, what stands for no token.
        most: tokens of a prompt and its continuation at most.

    """

    def __init__(self, prompts: Ragged, targets: Ragged, pieces: Sequence[bytes | None], most: int) -> None:
        self.prompts, self._alive = SharedPrompts.of(prompts)
        self.matched: MatchedBytes = np.zeros(len(targets), dtype=np.int32)
        """Matched bytes of each example: int32 (examples,)."""
        self._targets = [target.astype(np.uint8).tobytes() for target in targets]
        self._pieces = pieces
        self._shown = [0] * len(self.prompts)
        self._empty = [0] * len(self.prompts)
        longest = np.array(
            [max(len(self._targets[one]) for one in alive) for alive in self._alive], dtype=np.int64
        )
        self.tokens: Lengths = np.minimum(longest + EMPTY_TOKENS, most - self.prompts.lengths)
        """Tokens that each continuation may have: int64 (prompts,)."""

    def advance(self, row: int, tokens: Sequence[int]) -> bool:
        """Take the next tokens of prompt `row`; False once no target can go on with them, or all are done."""
        for token in tokens:
            piece = self._pieces[token] if token < len(self._pieces) else None
            if piece is None:
                self._alive[row] = []
            elif piece:
                self._alive[row] = [one for one in self._alive[row] if self._goes_on(one, row, piece)]
                self._shown[row] += len(piece)
            else:
                self._empty[row] += 1
            if not self._alive[row] or self._empty[row] > EMPTY_TOKENS:
                return False
        return True

    def _goes_on(self, example: int, row: int, piece: bytes) -> bool:
        """Count what a piece matches of an example's target; whether there is more of it to match."""
        rest = self._targets[example][self._shown[row] :]
        common = common_bytes(rest, piece)
        self.matched[example] += common
        return common == len(piece) < len(rest)


def common_bytes(one: bytes, two: bytes) -> int:
    """Bytes that both begin with."""
    if one.startswith(two):
        return len(two)
    return next(
        (at for at, (a, b) in enumerate(zip(one, two, strict=False)) if a != b), min(len(one), len(two))
    )
