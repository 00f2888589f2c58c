"""Which targets are still alive while their prompt is decoded, word for word; see `edits` and `texts` too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from kdaudit.inference.examples import Lengths, Ragged, no_matches


class Ledger(Protocol):
    """What an engine decodes for: it tells each prompt's tokens as they come, until the ledger has enough."""

    prompts: Ragged
    """Distinct prompts."""
    tokens: Lengths
    """Tokens that each continuation may have at most: int64 (prompts,)."""

    def advance(self, row: int, tokens: Sequence[int]) -> bool:
        """Take the next tokens of prompt `row`; False once it needs no more."""
        ...


class SharedPrompts(NamedTuple):
    """Examples by their prompt: those that share one share its one greedy continuation."""

    prompts: Ragged
    """Distinct prompts in the order in which they first stand."""
    examples: list[list[int]]
    """Numbers of each prompt's examples, ascending."""

    @classmethod
    def of(cls, prompts: Ragged) -> Self:
        """Of one prompt for each example."""
        examples: dict[bytes, list[int]] = {}
        for example, prompt in enumerate(prompts):
            examples.setdefault(prompt.tobytes(), []).append(example)
        first = np.array([numbers[0] for numbers in examples.values()], dtype=np.intp)
        return cls(prompts.take(first), [*examples.values()])


class SuffixLedger:
    """Counts matched tokens; examples that share a prompt share its one greedy continuation.

    Invariant: `matched[e]` is the length of the longest common start of example e's target and the
    tokens that its prompt's continuation has shown so far.
    """

    def __init__(self, prompts: Ragged, targets: Ragged) -> None:
        self.prompts, self._alive = SharedPrompts.of(prompts)
        self.matched: NDArray[np.int16] = no_matches(targets)
        """Matched tokens of each example: int16 (examples,)."""
        lengths = targets.lengths
        self.tokens: Lengths = np.array([lengths[alive].max() for alive in self._alive], dtype=np.int64)
        """Tokens of the longest target of each distinct prompt: int64 (prompts,)."""
        self._targets = [target.tolist() for target in targets]
        self._shown = [0] * len(self.prompts)

    def advance(self, row: int, tokens: Sequence[int]) -> bool:
        """Take the next tokens of prompt `row`; False once none of its targets goes on with them.

        Also True when its longest target is complete: such a request ends by itself.
        """
        for token in tokens:
            step = self._shown[row]
            self._alive[row] = [
                e
                for e in self._alive[row]
                if len(self._targets[e]) > step and self._targets[e][step] == token
            ]
            for example in self._alive[row]:
                self.matched[example] = step + 1
            self._shown[row] = step + 1
            if not self._alive[row]:
                return False
        return True
