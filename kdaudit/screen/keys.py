"""Which windows of a corpus are among some examples, wherever a copy of them stands.

Windows are known as in `kdaudit.corpus.distinct`: by a 128-bit hash of their token ids. Memory holds 16 bytes
an example.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from kdaudit.corpus.distinct import DIGEST_BYTES, window_hash
from kdaudit.extraction import read_examples
from kdaudit.stages.likelihoods import windows_of
from kdaudit.store import RunStore

Windows = Iterable[NDArray[np.int32]]


class KeySet:
    """The windows of some examples.

    Args:
        windows: their token ids, int32 (tokens,) each.

    """

    def __init__(self, windows: Windows) -> None:
        self._keys = np.sort(_keys(windows))

    def __len__(self) -> int:
        return len(self._keys)

    def holds(self, windows: Windows) -> NDArray[np.bool_]:
        """Which of these windows are among the examples: bool (windows,)."""
        wanted = _keys(windows)
        if not len(self._keys):
            return np.zeros(len(wanted), dtype=np.bool_)
        places = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        found: NDArray[np.bool_] = self._keys[places] == wanted
        return found


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
        yield from windows_of(table["token_ids"])


def _keys(windows: Windows) -> NDArray[np.bytes_]:
    return np.frombuffer(b"".join(map(window_hash, windows)), dtype=f"S{DIGEST_BYTES}")
