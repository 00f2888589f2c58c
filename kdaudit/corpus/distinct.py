"""Which windows are the same, in how many places each stands, and which ones a sample keeps.

Windows are known by a 128-bit keyed hash of their token ids, so that two differing windows among 10^9
share one with probability below 10^-20. The ledger holds 16 bytes a window (some 60 while it sorts).

The sample of `limit` windows is the bottom-k sketch (Cohen and Kaplan, 2007): the distinct windows
with the smallest hashes. As the hash depends on the seed and the token ids alone, it is a uniform
sample without replacement of the distinct windows, whatever their order or number of copies.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

DIGEST_BYTES = 16
SLACK = 4096
"""Rows that a sample may gather above twice its size before it is settled: small samples settle seldom."""


class Distinct(NamedTuple):
    """The distinct windows among the ledger's rows."""

    rows: NDArray[np.int64]
    """Row of each distinct window's first place, ascending: (distinct,)."""
    copies: NDArray[np.int64]
    """Places where it stands: (distinct,)."""


class Ledger:
    """Hashes of windows in corpus order; row i is the i-th window added since the last `settle`."""

    def __init__(self, *, seed: int, limit: int | None) -> None:
        self._key = hashlib.sha256(f"kdaudit corpus sample, seed {seed}".encode()).digest()
        self._limit = limit
        self._threshold = b"\xff" * DIGEST_BYTES
        self._hashes = bytearray()
        self._settled_copies = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._hashes) // DIGEST_BYTES

    def add(self, token_ids: NDArray[np.int32]) -> bool:
        """Note one place of a window; False if the window cannot be in the sample and has no row."""
        content = token_ids.astype("<i4").tobytes()
        digest = hashlib.blake2b(content, digest_size=DIGEST_BYTES, key=self._key).digest()
        if digest > self._threshold:
            return False
        self._hashes += digest
        return True

    @property
    def crowded(self) -> bool:
        """Whether a sample has gathered so many rows that it should be settled."""
        return self._limit is not None and len(self) >= 2 * self._limit + SLACK

    def settle(self) -> Distinct:
        """Merge equal windows, and drop those that a sample cannot keep; the rest are the new rows.

        Copies stay exact: the threshold is the limit-th smallest hash so far and only ever falls. A
        window in the final sample has a hash at or below the final threshold, so none of its places was
        ever above an earlier one, and each was counted.
        """
        hashes = np.frombuffer(self._hashes, dtype=">u8").reshape(-1, 2).astype(np.uint64)
        fresh = np.ones(len(hashes) - len(self._settled_copies), dtype=np.int64)
        copies = np.concatenate([self._settled_copies, fresh])
        order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: of equal hashes the first place leads
        ordered = hashes[order]
        leads = np.ones(len(order), dtype=np.bool_)
        leads[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
        starts = np.flatnonzero(leads)
        totals = np.add.reduceat(copies[order], starts) if len(starts) else copies
        return self._keep(order[starts][: self._limit], totals[: self._limit], hashes)

    def _keep(
        self, smallest: NDArray[np.int64], copies: NDArray[np.int64], hashes: NDArray[np.uint64]
    ) -> Distinct:
        """Reduce the ledger to the rows `smallest`, which are in ascending order of hash."""
        if len(smallest) == self._limit:
            self._threshold = hashes[smallest[-1]].astype(">u8").tobytes()
        by_place = np.argsort(smallest)
        rows = smallest[by_place]
        self._settled_copies = copies[by_place]
        self._hashes = bytearray(hashes[rows].astype(">u8").tobytes())
        return Distinct(rows, self._settled_copies)
