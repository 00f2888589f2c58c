"""Every document's token ids on disk, between the pass over the corpus and a second one over its tokens.

A flat file of two or four bytes a token, as the vocabulary needs; memory holds one length a document.
"""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kdaudit.errors import StorageError

_READ = 1 << 20
"""Tokens read together at most, unless one document has more."""


class TokenFile:
    """Grows by `add`, is read by `documents` once `close` was called.

    Args:
        path: the file; made for its owner's eyes, and must not be there.
        vocabulary: ids are below it.

    Raises:
        StorageError: the file could not be written or read back; so do all methods.

    """

    def __init__(self, path: Path, vocabulary: int) -> None:
        self._path = path
        self._kind = np.uint16 if vocabulary <= 1 << 16 else np.uint32
        self._lengths = array("I")
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file = os.fdopen(descriptor, "wb")
        except OSError as error:
            raise self._failure(error) from error

    def add(self, token_ids: NDArray[np.int32]) -> None:
        """Append a document."""
        self._lengths.append(len(token_ids))
        try:
            self._file.write(token_ids.astype(self._kind).tobytes())
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        """Write what waits."""
        try:
            self._file.close()
        except OSError as error:
            raise self._failure(error) from error

    def documents(self) -> Iterator[NDArray[np.int32]]:
        """Each document's token ids, int32 (tokens,), in the order in which they were added."""
        try:
            with self._path.open("rb") as file:
                for lengths in self._groups():
                    raw = file.read(sum(lengths) * np.dtype(self._kind).itemsize)
                    tokens = np.frombuffer(raw, self._kind).astype(np.int32)
                    yield from np.split(tokens, np.cumsum(lengths)[:-1])
        except OSError as error:
            raise self._failure(error) from error

    def _groups(self) -> Iterator[list[int]]:
        """Lengths of documents that are read together."""
        group: list[int] = []
        tokens = 0
        for length in self._lengths:
            if group and tokens + length > _READ:
                yield group
                group, tokens = [], 0
            group.append(length)
            tokens += length
        if group:
            yield group

    def _failure(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self._path}: tokens could not be stored or read back ({error.strerror or error}); free space "
            "or fix the folder's permissions, then run again"
        )
