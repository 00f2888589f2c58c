"""Which windows of a corpus are occurrences of some examples.

Examples are known as in `kdaudit.corpus.distinct`: by a 128-bit hash of their identity. Memory holds 16 bytes
an example.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from kdaudit.attacks.examples import cuts_of, windows_of
from kdaudit.corpus.distinct import DIGEST_BYTES, example_hash, identity
from kdaudit.inference import Split
from kdaudit.runs.examples import read_examples
from kdaudit.runs.store import RunStore

Identities = Iterable[NDArray[np.int32]]
"""Of some windows or examples, see `identity`."""


class KeySet:
    """Some examples.

    Args:
        examples: the identity of each.
        levels: of each, at least 0: int8 (examples,); None for 0.

    """

    def __init__(self, examples: Identities, levels: NDArray[np.int8] | None = None) -> None:
        hashes = _hashes(examples)
        order = np.argsort(hashes)
        self._keys = hashes[order]
        self._levels = np.zeros(len(order), dtype=np.int8) if levels is None else levels[order]

    def __len__(self) -> int:
        return len(self._keys)

    def holds(self, windows: Identities) -> NDArray[np.bool_]:
        """Which windows, by their identities, are occurrences of the examples: bool (windows,)."""
        return self.levels(windows) >= 0

    def levels(self, windows: Identities) -> NDArray[np.int8]:
        """The level of the example of which each window is an occurrence, -1 for none: int8 (windows,)."""
        wanted = _hashes(windows)
        if not len(self._keys):
            return np.full(len(wanted), -1, dtype=np.int8)
        places = np.minimum(np.searchsorted(self._keys, wanted), len(self._keys) - 1)
        return np.where(self._keys[places] == wanted, self._levels[places], np.int8(-1))


def _hashes(windows: Identities) -> NDArray[np.bytes_]:
    hashes = b"".join(map(example_hash, windows))
    return np.frombuffer(hashes, dtype=f"S{DIGEST_BYTES}")


def identities_of(
    run: RunStore, examples: str, wanted: NDArray[np.int64], usual: Split
) -> Iterator[NDArray[np.int32]]:
    """The identity of each of the named examples.

    Args:
        run: the run.
        examples: folder of the examples' shards.
        wanted: their ids, ascending.
        usual: see `cuts_of`.

    """
    for table in read_examples(run, examples, wanted):
        prefixes, suffixes = cuts_of(table, usual)
        measured = windows_of(table).head(prefixes + suffixes)
        yield from map(identity, measured, (prefixes - usual.prefix_tokens).tolist())
