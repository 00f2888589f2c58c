"""How often each example's suffix occurs in the corpus, and where, at any offset of any document.

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
from typing import NamedTuple

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


class Occurrences(NamedTuple):
    """Where suffixes occur in a document, by ascending start: int64 (occurrences,) each."""

    starts: NDArray[np.int64]
    """First token of each."""
    ends: NDArray[np.int64]
    """The token after its last."""
    suffixes: NDArray[np.int64]
    """Which suffix it is, see `SuffixFinder.number_of`."""


class SuffixFinder:
    """Finds occurrences of suffixes.

    Args:
        suffixes: one for each of some examples; several may be equal.

    """

    def __init__(self, suffixes: Ragged) -> None:
        mixes = _Mixes()
        hashes, lengths = _hash_rows(suffixes, mixes), suffixes.lengths
        self.number_of = np.zeros(len(suffixes), np.int64)
        """The number of each example's suffix among the distinct ones: int64 (examples,)."""
        self._of_length: list[tuple[int, _OfLength]] = []
        self.distinct = 0
        """How many distinct suffixes there are."""
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            one = _OfLength(int(length), hashes[rows], mixes)
            self.number_of[rows] = self.distinct + one.places
            self._of_length.append((self.distinct, one))
            self.distinct += one.distinct

    def find(self, tokens: Tokens) -> Occurrences:
        """The suffixes in a document, int32 (tokens,)."""
        found = [np.empty((3, 0), np.int64)]
        for first, one in self._of_length:
            starts, places = one.find(tokens)
            found.append(np.stack([starts, starts + one.length, first + places]))
        every = np.concatenate(found, axis=1)
        return Occurrences(*every[:, np.argsort(every[0], kind="stable")])


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
    """Finds and counts occurrences of suffixes of one length, by their hashes: uint64 (suffixes,)."""

    def __init__(self, length: int, hashes: Hashes, mixes: _Mixes) -> None:
        self.length = length
        self._mixes = mixes
        self._known, places = np.unique(hashes, return_inverse=True)
        self.places: NDArray[np.int64] = places
        """Which of the distinct ones each suffix is: int64 (suffixes,)."""
        self._found = np.zeros(len(self._known), dtype=np.int64)
        bits = _FILTER_BITS + max(12, len(self._known).bit_length())
        self._shift = np.uint64(64 - bits)
        self._filter = np.zeros(1 << bits, dtype=np.bool_)
        self._filter[self._known >> self._shift] = True
        self._powers = _powers(_BASE, _CHUNK + length - 1)
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
        counts: NDArray[np.int64] = self._found[self.places]
        return counts

    @property
    def distinct(self) -> int:
        """Distinct suffixes."""
        return len(self._known)

    def find(self, tokens: Tokens) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Starts in a document, and which of the distinct suffixes each is: int64 (occurrences,) each."""
        starts, places = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        for start in range(0, len(tokens) - self.length + 1, _CHUNK):
            inside, which = self._matches(tokens[start : start + _CHUNK + self.length - 1])
            starts.append(start + inside)
            places.append(which)
        return np.concatenate(starts), np.concatenate(places)

    def _flush(self) -> None:
        """Count in the waiting documents, joined."""
        if not self._tokens:
            return
        ends = np.cumsum([len(tokens) for tokens in self._waiting])
        joined = np.concatenate(self._waiting)
        self._waiting, self._tokens = [], 0
        for start in range(0, len(joined) - self.length + 1, _CHUNK):
            self._look(joined[start : start + _CHUNK + self.length - 1], ends - start)

    def _look(self, tokens: Tokens, ends: NDArray[np.int64]) -> None:
        """Count in tokens of several documents, which end at `ends`."""
        starts, places = self._matches(tokens)
        inside = starts + self.length <= ends[np.searchsorted(ends, starts, side="right")]
        np.add.at(self._found, places[inside], 1)

    def _matches(self, tokens: Tokens) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Starts of spans that are one of the suffixes, and which: int64 (matches,) each."""
        hashes = self._rolling(tokens)
        starts = np.flatnonzero(self._filter[hashes >> self._shift])
        passed = hashes[starts]
        places = np.minimum(np.searchsorted(self._known, passed), len(self._known) - 1)
        known = self._known[places] == passed
        return starts[known], places[known]

    def _rolling(self, tokens: Tokens) -> Hashes:
        """Hash of each span of `length` tokens: uint64 (tokens - length + 1,)."""
        sums = np.zeros(len(tokens) + 1, dtype=np.uint64)
        np.cumsum(self._mixes.of(tokens) * self._powers[: len(tokens)], out=sums[1:])
        stretches = sums[self.length :] - sums[: -self.length]
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
