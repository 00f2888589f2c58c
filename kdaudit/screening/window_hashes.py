"""Which windows of a corpus are occurrences of some examples.

Examples are known as in `kdaudit.corpus.distinct`: by a 128-bit hash of prefix + suffix. Memory holds 16
bytes an example.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from kdaudit.attacks.examples import windows_of
from kdaudit.corpus.distinct import DIGEST_BYTES, example_hash
from kdaudit.runs.examples import read_examples
from kdaudit.runs.store import RunStore

Windows = Iterable[NDArray[np.int32]]


class KeySet:
    """Some examples.

    Args:
        windows: one occurrence of each: token ids, int32 (tokens,) each.
        measured: tokens of prefix + suffix.
        levels: of each, at least 0: int8 (examples,); None for 0.

    """

    def __init__(self, windows: Windows, measured: int, levels: NDArray[np.int8] | None = None) -> None:
        self._measured = measured
        hashes = self._hashes(windows)
        order = np.argsort(hashes)
        self._keys = hashes[order]
        self._levels = np.zeros(len(order), dtype=np.int8) if levels is None else levels[order]

    def __len__(self) -> int:
        return len(self._keys)

    def holds(self, windows: Windows) -> NDArray[np.bool_]:
        """Which of these windows are occurrences of the examples: bool (windows,)."""
        return self.levels(windows) >= 0

    def levels(self, windows: Windows) -> NDArray[np.int8]:
        """The level of the example of which each window is an occurrence, -1 for none: int8 (windows,)."""
        wanted = self._hashes(windows)
        if not len(self._keys):
            return np.full(len(wanted), -1, dtype=np.int8)
        places = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.where(self._keys[places] == wanted, self._levels[places], np.int8(-1))

    def _hashes(self, windows: Windows) -> NDArray[np.bytes_]:
        hashes = b"".join(example_hash(window, self._measured) for window in windows)
        return np.frombuffer(hashes, dtype=f"S{DIGEST_BYTES}")


def windows_of_examples(
    run: RunStore, examples: str, wanted: NDArray[np.int64]
) -> Iterator[NDArray[np.int32]]:
    """Token ids of the named examples, int32 (tokens,) each.

    Args:
        run: the run.
        examples: folder of the examples' shards.
        wanted: their ids, ascending.

    """
    for table in read_examples(run, examples, wanted):
        yield from windows_of(table)
