"""Which windows are one example, how often each example occurs, and which ones a sample keeps.

What an audit measures is prefix + suffix, a window's first tokens. So an example is a distinct prefix +
suffix, and windows that differ only behind it are occurrences of one example; its first occurrence in corpus
order stands for it wherever whole windows are read (features, perplexity, entropy). The same tokens that are
cut elsewhere are another example: a longer prompt asks for less. `identity` and `example_hash` alone decide
this.

Examples are known by a 128-bit keyed hash of their identity, so that two differing ones among 10^9 share one
with probability below 10^-20. The ledger holds 16 bytes a window (some 50 while it sorts).

The sample of `limit` examples is the bottom-k sketch (Cohen and Kaplan, 2007): the examples with the smallest
hashes. As the hash depends on the seed and the identity alone, it is a uniform sample without replacement of
the distinct examples, whatever their order or number of occurrences.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES = 16
SLACK = 4096
"""Rows that a sample may gather above twice its size before it is settled: small samples settle seldom."""
_BLOCK = 1 << 16
"""Hashes looked up together."""


def identity(measured: NDArray[np.int32], moved: int) -> NDArray[np.int32]:
    """What makes a window an occurrence of its example: equal for the windows of one example alone.

    Args:
        measured: the window's prefix + suffix, int32 (tokens,): what lies behind does not count.
        moved: tokens that its prompt has beyond `extraction.prefix_tokens`; 0 of plain text, whose windows
            are all cut alike.

    """
    if not moved:
        return measured
    return np.concatenate([measured, np.array([-1, moved], np.int32)])  # no token has the id -1


def example_hash(identity: NDArray[np.int32], key: bytes = b"") -> bytes:
    """The hash by which the example of a window is known, `DIGEST_BYTES` long.

    Args:
        identity: of the window, see `identity`.
        key: of the hash.

    """
    content = identity.astype("<i4").tobytes()
    return hashlib.blake2b(content, digest_size=DIGEST_BYTES, key=key).digest()


class Distinct(NamedTuple):
    """The examples among the ledger's rows."""

    rows: NDArray[np.int64]
    """Row of each example's first occurrence, ascending: (examples,)."""
    copies: NDArray[np.int32]
    """Its occurrences: (examples,)."""


class Ledger:
    """Hashes of windows in corpus order; row i is the i-th window added since the last `settle`.

    Args:
        seed: decides the sample.
        limit: examples that a sample keeps; None for all.

    """

    def __init__(self, *, seed: int, limit: int | None) -> None:
        self._key = hashlib.sha256(f"kdaudit corpus sample, seed {seed}".encode()).digest()
        self._limit = limit
        self._threshold = b"\xff" * DIGEST_BYTES
        self._hashes = bytearray()
        self.sampled = False
        """Whether an example was left out."""
        self._settled_copies = np.zeros(0, dtype=np.int32)

    def __len__(self) -> int:
        return len(self._hashes) // DIGEST_BYTES

    def add(self, identity: NDArray[np.int32]) -> bool:
        """Note one window by its identity; False if its example cannot be in the sample: no row."""
        digest = example_hash(identity, self._key)
        if digest > self._threshold:
            self.sampled = True
            return False
        self._hashes += digest
        return True

    @property
    def crowded(self) -> bool:
        """Whether a sample has gathered so many rows that it should be settled."""
        return self._limit is not None and len(self) >= 2 * self._limit + SLACK

    def settle(self) -> Distinct:
        """Merge windows of one example, drop those that a sample cannot keep; the rest are the new rows.

        Copies stay exact: the threshold is the limit-th smallest hash so far and only ever falls. An
        example in the final sample has a hash at or below the final threshold, so none of its occurrences
        was ever above an earlier one, and each was counted.
        """
        fresh = np.ones(len(self) - len(self._settled_copies), dtype=np.int32)
        copies = np.concatenate([self._settled_copies, fresh])
        order = np.argsort(self._view(), kind="stable")  # of equal hashes the first place leads
        starts = np.flatnonzero(_leads(self._view(), order))
        totals = np.add.reduceat(copies[order], starts, dtype=np.int32) if len(starts) else copies
        smallest = order[starts[: self._limit]]
        self.sampled |= len(smallest) < len(starts)
        if len(smallest) == self._limit:
            self._threshold = bytes(self._hashes[smallest[-1] * DIGEST_BYTES :][:DIGEST_BYTES])
        del order, starts, copies
        by_place = np.argsort(smallest)
        self._settled_copies = totals[by_place]
        rows = smallest[by_place]
        self._keep(rows)
        return Distinct(rows, self._settled_copies)

    def _view(self) -> NDArray[np.bytes_]:
        """The hashes as an array over the same memory; while it lives the ledger cannot grow."""
        return np.frombuffer(self._hashes, dtype=f"S{DIGEST_BYTES}")

    def _keep(self, rows: NDArray[np.int64]) -> None:
        """Move the hashes of `rows`, which ascend, to the front, and drop the rest."""
        hashes = self._view()
        for start in range(0, len(rows), _BLOCK):
            # A row never stands before its new place, so what is overwritten has been moved already.
            block = rows[start : start + _BLOCK]
            hashes[start : start + len(block)] = hashes[block]
        del hashes
        del self._hashes[len(rows) * DIGEST_BYTES :]


def _leads(hashes: NDArray[np.bytes_], order: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which hashes, in ascending order, differ from the one before."""
    leads = np.ones(len(order), dtype=np.bool_)
    for start in range(1, len(order), _BLOCK):
        here = order[start : start + _BLOCK]
        leads[start : start + len(here)] = hashes[here] != hashes[order[start - 1 : start - 1 + len(here)]]
    return leads
