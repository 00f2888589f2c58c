"""Examples as engines and attacks are given them: token ids alone, rows of any length.

An example is a prompt, which a model reads, and a target, which it may reproduce. Text corpora make both from
windows (`Split.cut`); nothing else knows that these have equal lengths.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]
Lengths = NDArray[np.int64]

MAX_TARGET_TOKENS = int(np.iinfo(np.int16).max)
"""Longest target: matched tokens are counted in int16."""


@dataclass(frozen=True, slots=True, eq=False)
class Ragged:
    """Rows of token ids, each of its own length, in one stretch of memory."""

    values: Tokens
    """int32 (tokens,), all rows one after the other."""
    offsets: Lengths
    """int64 (rows + 1,), ascending from 0: row i is `values[offsets[i]:offsets[i + 1]]`."""

    @classmethod
    def of(cls, rows: Iterable[Any]) -> Self:
        """From rows: arrays or lists of ids, or the rows of a matrix."""
        arrays = [np.asarray(row, dtype=np.int32) for row in rows]
        offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
        np.cumsum([len(row) for row in arrays], out=offsets[1:])
        return cls(np.concatenate([np.empty(0, np.int32), *arrays]), offsets)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Tokens:
        if not 0 <= row < len(self):
            raise IndexError(row)
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[Tokens]:
        return (self[row] for row in range(len(self)))

    @property
    def lengths(self) -> Lengths:
        """Tokens of each row: int64 (rows,)."""
        return np.diff(self.offsets)

    @property
    def arrays(self) -> tuple[Tokens, Lengths]:
        """Values and offsets, as rows travel between processes."""
        return self.values, self.offsets

    def take(self, rows: NDArray[np.intp]) -> Ragged:
        """The named rows, in that order."""
        return _gathered(self.values, self.offsets[rows], self.lengths[rows])

    def head(self, tokens: int | Lengths) -> Ragged:
        """Each row's first tokens: as many as named, or all where it has fewer."""
        return _gathered(self.values, self.offsets[:-1], np.minimum(self.lengths, tokens))

    def tail(self, skipped: int | Lengths) -> Ragged:
        """Each row without its first tokens."""
        starts = np.minimum(self.offsets[:-1] + skipped, self.offsets[1:])
        return _gathered(self.values, starts, self.offsets[1:] - starts)

    def followed_by(self, other: Ragged) -> Ragged:
        """Each row with the other's row of the same number behind it."""
        lengths = self.lengths + other.lengths
        offsets = _offsets(lengths)
        values = np.empty(offsets[-1], dtype=np.int32)
        own = np.arange(len(values)) - np.repeat(offsets[:-1], lengths) < np.repeat(self.lengths, lengths)
        values[own], values[~own] = self.values, other.values
        return Ragged(values, offsets)

    def after(self, bos: int | None) -> Ragged:
        """Each row after a BOS token, where there is one."""
        if bos is None:
            return self
        begin = Ragged(np.full(len(self), bos, np.int32), np.arange(len(self) + 1, dtype=np.int64))
        return begin.followed_by(self)

    def matrix(self) -> Tokens:
        """The rows as int32 (rows, tokens).

        Raises:
            ValueError: their lengths differ.

        """
        if len({*self.lengths.tolist()}) > 1:
            raise ValueError("rows of different lengths are not a matrix")
        return self.values.reshape(len(self), -1) if len(self) else np.empty((0, 0), np.int32)


class Batch(NamedTuple):
    """Examples that are worked on together."""

    example_ids: NDArray[np.int64]
    """int64 (examples,)"""
    prompts: Ragged
    """What the model reads, its BOS token included where it has one."""
    targets: Ragged
    """What follows in the corpus: at least one token each, at most `MAX_TARGET_TOKENS`."""

    def take(self, rows: NDArray[np.intp]) -> Batch:
        """The named examples, in that order."""
        return Batch(self.example_ids[rows], self.prompts.take(rows), self.targets.take(rows))


class Split(NamedTuple):
    """Where a window is cut into prompt and target, and what stands before it."""

    prefix_tokens: int
    suffix_tokens: int
    bos: int | None
    """Id of the BOS token before each prompt, or None; models differ in it."""

    @property
    def tokens(self) -> int:
        """Tokens of the longest sequence that an engine makes; it reads all but the last."""
        return self.prefix_tokens + self.suffix_tokens + (self.bos is not None)

    def cut(
        self,
        example_ids: NDArray[np.int64],
        windows: Ragged,
        prefixes: Lengths | None = None,
        suffixes: Lengths | None = None,
    ) -> Batch:
        """Examples from windows, each at least prefix + suffix long: the prompt is the window's start.

        Args:
            example_ids: int64 (examples,).
            windows: without BOS tokens, or with those that stand in the text.
            prefixes: tokens of each prompt, int64 (examples,); None for `prefix_tokens`.
            suffixes: tokens of each target; None for `suffix_tokens`.

        """
        skipped = self.prefix_tokens if prefixes is None else prefixes
        kept = self.suffix_tokens if suffixes is None else suffixes
        prompts = windows.head(skipped).after(self.bos)
        return Batch(example_ids, prompts, windows.tail(skipped).head(kept))


def no_matches(targets: Ragged) -> NDArray[np.int16]:
    """A count of 0 for each target: int16 (examples,).

    Raises:
        ValueError: a target is longer than such a count can say.

    """
    longest = int(targets.lengths.max(initial=0))
    if longest > MAX_TARGET_TOKENS:
        raise ValueError(f"a target has {longest:,} tokens, and may have {MAX_TARGET_TOKENS:,}")
    return np.zeros(len(targets), dtype=np.int16)


def lengths_of(tokens: int | Lengths, rows: int) -> Lengths:
    """A number of tokens for each row: int64 (rows,)."""
    return np.broadcast_to(np.asarray(tokens, dtype=np.int64), (rows,))


def _offsets(lengths: Lengths) -> Lengths:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _gathered(values: Tokens, starts: Lengths, lengths: Lengths) -> Ragged:
    """The stretches of `values` that begin at `starts`."""
    offsets = _offsets(lengths)
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
    return Ragged(values[places], offsets)
