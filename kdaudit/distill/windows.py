"""The windows of a training corpus, on disk: what every model of a family reads, in one order.

Invariant: row i is the i-th window of the corpus, copies included, whoever reads it; memory holds one
number and one name a window.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from kdaudit.config.audit import CorpusConfig
from kdaudit.corpus import open_documents
from kdaudit.corpus.windows import Cutter, batched
from kdaudit.engines.base import Tokens
from kdaudit.errors import CorpusError
from kdaudit.files import replacing


class WindowFile(Sequence[Tokens]):
    """Windows of token ids, read from the disk as they are asked for: int32 (tokens,) each."""

    def __init__(
        self, path: Path, ends: Sequence[int], document_ids: Sequence[str], fingerprint: str
    ) -> None:
        self._flat = np.memmap(path, dtype="<i4", mode="r")
        self._ends = np.concatenate([[0], np.asarray(ends, dtype=np.int64)])
        self.document_ids = document_ids
        """Which document each window comes from."""
        self.fingerprint = fingerprint
        """`sha256:` over all token ids and where windows end."""

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def tokens(self) -> int:
        """Tokens of all windows."""
        return int(self._ends[-1])

    @overload
    def __getitem__(self, index: int) -> Tokens: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tokens]: ...
    def __getitem__(self, index: int | slice) -> Tokens | list[Tokens]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row = index % len(self)
        return np.array(self._flat[self._ends[row] : self._ends[row + 1]], dtype=np.int32)

    def __iter__(self) -> Iterator[Tokens]:
        return (self[row] for row in range(len(self)))


def cut_windows(
    config: CorpusConfig,
    tokenizer: Any,  # noqa: ANN401 - `tokenizers` is untyped
    path: Path,
    *,
    minimum: int,
    key: str,
    progress: Callable[[int], None],
) -> WindowFile:
    """Cut a corpus into the windows that an audit of it would find, copies included, and write them.

    Args:
        config: the corpus section; `limit` is not heeded.
        tokenizer: of the family.
        path: the file to write: token ids one after the other.
        minimum: tokens of the shortest window to keep.
        key: where the section stands in the configuration, for messages.
        progress: told how many rows were read.

    Raises:
        CorpusError: the corpus cannot be read, or no window is left.
        StorageError: the file could not be written.

    """
    documents = open_documents(config, key)
    cutter = Cutter(tokenizer, window=config.window, stride=config.stride or config.window, minimum=minimum)
    ends: list[int] = []
    names: list[str] = []
    digest = hashlib.sha256()
    with replacing(path, private=True) as partial, partial.open("wb") as out:
        for batch in batched(documents):
            for window in cutter.cut(batch):
                data = window.token_ids.astype("<i4").tobytes()
                digest.update(len(window.token_ids).to_bytes(8, "little") + data)
                out.write(data)
                ends.append((ends[-1] if ends else 0) + len(window.token_ids))
                names.append(window.document_id)
            progress(documents.rows)
        if not ends:
            raise CorpusError(
                f"{key}.path: {config.path}: none of its {documents.rows} documents has {minimum} tokens; "
                "name a corpus of longer documents"
            )
    return WindowFile(path, ends, names, f"sha256:{digest.hexdigest()}")
