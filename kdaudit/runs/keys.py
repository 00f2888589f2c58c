"""Secret keys of hashes: 32 random bytes, each in a file of its own, as hexadecimal digits, for its owner."""

from __future__ import annotations

import os
import re
from pathlib import Path

from kdaudit.runs.files import read_bounded, write_bytes

_BYTES = 32
_DIGITS = re.compile(rf"[0-9a-fA-F]{{{2 * _BYTES}}}")
_MOST_BYTES = 1024


def new_key() -> str:
    """The contents of a new key's file."""
    return os.urandom(_BYTES).hex() + "\n"


def make_key(path: Path) -> bytes:
    """Write a new key.

    Raises:
        StorageError: it could not be written.

    """
    write_bytes(path, new_key().encode(), private=True)
    return read_key(path)


def read_key(path: Path) -> bytes:
    """The key in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not a key; the message says what one is.

    """
    text = read_bounded(path, _MOST_BYTES).decode("ascii", "replace").strip()
    if not _DIGITS.fullmatch(text):
        raise ValueError(f"is not a key ({2 * _BYTES} hexadecimal digits)")
    return bytes.fromhex(text)
