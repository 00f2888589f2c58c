"""Which targets may still come out nearly word for word while their prompt is decoded.

The edit distance is Levenshtein's, in tokens, between a target and a greedy continuation of as many tokens.
Of its table (Wagner and Fischer 1974, J ACM 21:168) only a band is needed: a cell off the diagonal by more
than the limit cannot lie on the way to a distance within it (Ukkonen 1985, Inform Control 64:100). After each
token the band's best cell, with the insertions that it still takes to come back to the diagonal, bounds the
final distance from below: a target is given up as soon as that exceeds the limit, a few tokens after its
first difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.inference.examples import Lengths, Ragged, no_matches
from kdaudit.inference.prefixes import SharedPrompts

TOO_FAR = -1
"""In place of a distance above the limit, which is not known."""


class NearMatches(NamedTuple):
    """How near greedy continuations come to their targets: int16 (examples,) each."""

    matched: NDArray[np.int16]
    """As `Engine.match` gives it."""
    distance: NDArray[np.int16]
    """Edits in tokens between target and continuation; `TOO_FAR` where there are more than the limit."""


class EditLedger:
    """Edit distances of examples; those that share a prompt share its one greedy continuation.

    Args:
        prompts: what is read.
        targets: what follows: at least one token each.
        limits: most edits of each example: int64 (examples,).

    """

    def __init__(self, prompts: Ragged, targets: Ragged, limits: Lengths) -> None:
        matched, wanted = no_matches(targets), [target.tolist() for target in targets]
        self.found = NearMatches(matched, np.full(len(matched), TOO_FAR, dtype=np.int16))
        self.prompts, examples = SharedPrompts.of(prompts)
        self._alive = [[_Band(one, wanted[one], int(limits[one])) for one in each] for each in examples]
        self.tokens: Lengths = np.array(
            [max(len(band.target) for band in alive) for alive in self._alive], dtype=np.int64
        )
        """Tokens of the longest target of each distinct prompt: int64 (prompts,)."""

    def advance(self, row: int, tokens: Sequence[int]) -> bool:
        """Take the next tokens of prompt `row`; False once none of its targets can come near enough.

        Also True when its longest target is complete: such a request ends by itself.
        """
        for token in tokens:
            alive = self._alive[row]
            for band in alive:
                band.take(token)
                self._note(band)
            self._alive[row] = [band for band in alive if band.is_open]
            if not self._alive[row]:
                return any(band.is_complete for band in alive)
        return True

    def _note(self, band: _Band) -> None:
        self.found.matched[band.example] = band.matched
        if band.is_complete and band.distance <= band.limit:
            self.found.distance[band.example] = band.distance


class _Band:
    """One example's row of the table, after so many tokens of the continuation.

    Cell `limit + d` is the distance between the tokens so far and the target's first `tokens + d` tokens;
    `limit + 1` stands for every distance above the limit.
    """

    __slots__ = ("_cells", "_tokens", "example", "limit", "matched", "target")

    def __init__(self, example: int, target: list[int], limit: int) -> None:
        self.example, self.target, self.limit = example, target, min(limit, len(target))
        self.matched = self._tokens = 0
        self._cells: list[int] = [*[self.limit + 1] * self.limit, *range(self.limit + 1)]

    @property
    def is_complete(self) -> bool:
        return self._tokens == len(self.target)

    @property
    def is_open(self) -> bool:
        """Whether more tokens are needed, and may yet give a distance within the limit."""
        return not self.is_complete and self._bound() <= self.limit

    @property
    def distance(self) -> int:
        """Between the tokens so far and as many of the target; above the limit it is not exact."""
        return self._cells[self.limit]

    def take(self, token: int) -> None:
        """Take the continuation's next token."""
        if self.matched == self._tokens and self.target[self._tokens] == token:
            self.matched += 1
        self._tokens += 1
        cells: list[int] = []
        over = before = self.limit + 1
        for at, diagonal in enumerate(self._cells):
            place = self._tokens + at - self.limit  # tokens of the target
            if 0 < place <= len(self.target):
                below = self._cells[at + 1] if at + 1 < len(self._cells) else over
                before = min(diagonal + (self.target[place - 1] != token), below + 1, before + 1, over)
            else:
                before = self._tokens if place == 0 and self._tokens <= self.limit else over
            cells.append(before)
        self._cells = cells

    def _bound(self) -> int:
        """The least distance that the whole continuation can have."""
        return min(cell + abs(at - self.limit) for at, cell in enumerate(self._cells))
