"""How often each example's suffix occurs in the corpus, at any offset of any document.

Two streamed passes: the first hashes the examples' suffixes, the second every span of as many tokens in
every document, once for each length that a suffix has. Memory is at most 90 bytes an example and some
megabytes, whatever the corpus's size.

The hash of tokens t_0 ... t_(n-1) is the sum of r(t_j) b^j modulo 2^64, with r a mix of the token's bits and
b odd, so that a span's hash is a difference of two running sums divided by a power of b. Two different spans
of natural text have the same hash with a probability of about 2^-64, two that differ by the order of their
tokens of 2^-57 at worst: 10^6 examples in a corpus of 10^9 tokens have fewer than 10^-2 false matches in all.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from kdaudit.inference.base import Ragged, Tokens

Hashes = NDArray[np.uint64]

_BASE = 0xD1342543DE82EF95
"""Odd, and 5 modulo 8: such b leave the most bits of b^d - 1 random."""
_CHUNK = 1 << 17
"""Spans hashed together: as many as a processor's caches hold."""
_FILTER_BITS = 4
"""The filter has 2^4 to 2^5 slots per example: of other spans it passes at most one in 16."""


class SuffixCounter:
    """Counts occurrences of suffixes.

    Args:
        suffixes: the examples' suffixes by example id, batch by batch.

    """

    def __init__(self, suffixes: Iterable[Ragged]) -> None:
        mixes = _Mixes()
        lengths, hashes = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
        for rows in suffixes:
            lengths.append(rows.lengths)
            hashes.append(_hash_rows(rows, mixes))
        self._lengths = np.concatenate(lengths)
        every = np.concatenate(hashes)
        self._of_length = {
            int(length): _OfLength(int(length), every[self._lengths == length], mixes)
            for length in np.unique(self._lengths)
        }

    def feed(self, tokens: Tokens) -> None:
        """Count in a document: int32 (tokens,)."""
        for one in self._of_length.values():
            one.feed(tokens)

    @property
    def counts(self) -> NDArray[np.int64]:
        """Occurrences of each example's suffix in all documents so far: int64 (examples,)."""
        counts = np.zeros(len(self._lengths), np.int64)
        for length, one in self._of_length.items():
            counts[self._lengths == length] = one.counts
        return counts


def _hash_rows(rows: Ragged, mixes: _Mixes) -> Hashes:
    """Hash of each row: uint64 (rows,)."""
    hashes = np.zeros(len(rows), np.uint64)
    for length in np.unique(rows.lengths):
        alike = np.flatnonzero(rows.lengths == length)
        powers = _powers(_BASE, int(length))
        hashes[alike] = (mixes.of(rows.take(alike).matrix()) * powers).sum(axis=1)
    return hashes


class _Mixes:
    """A random-looking number for each token id."""

    def __init__(self) -> None:
        self._table = _mixes(1)

    def of(self, tokens: Tokens) -> Hashes:
        """The tokens' numbers, in an array of the same shape."""
        highest = int(tokens.max(initial=0))
        if highest >= len(self._table):
            self._table = _mixes(1 << highest.bit_length())
        found: Hashes = self._table[tokens]
        return found


class _OfLength:
    """Counts occurrences of suffixes of one length, by their hashes: uint64 (suffixes,)."""

    def __init__(self, length: int, hashes: Hashes, mixes: _Mixes) -> None:
        self._length = length
        self._mixes = mixes
        self._known, self._places = np.unique(hashes, return_inverse=True)
        self._found = np.zeros(len(self._known), dtype=np.int64)
        bits = _FILTER_BITS + max(12, len(self._known).bit_length())
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(1 << bits, dtype=np.bool_)
        self._filter[self._known >> self._shift] = True
        self._powers = _powers(_BASE, _CHUNK + self._length - 1)
        self._inverse = _powers(pow(_BASE, -1, 1 << 64), _CHUNK)
        self._waiting: list[Tokens] = []
        self._tokens = 0

    def feed(self, tokens: Tokens) -> None:
        """Count in a document: int32 (tokens,)."""
        self._waiting.append(tokens)
        self._tokens += len(tokens)
        if self._tokens >= _CHUNK:
            self._flush()

    @property
    def counts(self) -> NDArray[np.int64]:
        """Occurrences of each example's suffix in all documents so far: int64 (examples,)."""
        self._flush()
        counts: NDArray[np.int64] = self._found[self._places]
        return counts

    def _flush(self) -> None:
        """Count in the waiting documents, joined."""
        if not self._tokens:
            return
        ends = np.cumsum([len(tokens) for tokens in self._waiting])
        joined = np.concatenate(self._waiting)
        self._waiting, self._tokens = [], 0
        for start in range(0, len(joined) - self._length + 1, _CHUNK):
            self._look(joined[start : start + _CHUNK + self._length - 1], ends - start)

    def _look(self, tokens: Tokens, ends: NDArray[np.int64]) -> None:
        """Count in tokens of several documents, which end at `ends`."""
        hashes = self._rolling(tokens)
        starts = np.flatnonzero(self._filter[hashes >> self._shift])
        inside = starts + self._length <= ends[np.searchsorted(ends, starts, side="right")]
        passed = hashes[starts[inside]]
        places = np.minimum(np.searchsorted(self._known, passed), len(self._known) - 1)
        np.add.at(self._found, places[self._known[places] == passed], 1)

    def _rolling(self, tokens: Tokens) -> Hashes:
        """Hash of each span of `length` tokens: uint64 (tokens - length + 1,)."""
        sums = np.zeros(len(tokens) + 1, dtype=np.uint64)
        np.cumsum(self._mixes.of(tokens) * self._powers[: len(tokens)], out=sums[1:])
        stretches = sums[self._length :] - sums[: -self._length]
        return stretches * self._inverse[: len(stretches)]


def _powers(base: int, count: int) -> Hashes:
    """base^0 ... base^(count - 1) modulo 2^64."""
    factors = np.full(count, base, dtype=np.uint64)
    factors[0] = 1
    return np.cumprod(factors)


def _mixes(count: int) -> Hashes:
    """A random-looking number for each token id: the finalizer of SplitMix64 (Steele and others, 2014)."""
    mixed = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed ^= mixed >> np.uint64(31)
    return mixed
