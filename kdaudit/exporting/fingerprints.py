"""Fingerprints of findings: keyed, so that they tell nothing of a text, and equal in all runs with one key.

Without the key a fingerprint cannot be computed. Whoever holds the key and the corpus can compute those of
all its examples: the key stays with the owner, like the run directory.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
from pathlib import Path
from typing import NamedTuple

from kdaudit.errors import RunStateError
from kdaudit.runs import layout
from kdaudit.runs.keys import make_key, read_key

_LENGTH = 32
"""Hexadecimal digits of a fingerprint: 128 bits."""


class Key(NamedTuple):
    """The secret key of fingerprints."""

    secret: bytes
    lasting: bool
    """Whether it is a file of the owner's; else it is the run's own, which no other run shares."""
    exposed: bool = False
    """Whether others than its owner can read the file."""


def key_of_run(run_dir: Path) -> Key:
    """The key that the run made for the hashes of its public page.

    Raises:
        RunStateError: the run has none, or it is damaged.

    """
    path = run_dir / layout.HMAC_KEY
    if not os.path.lexists(path):
        raise RunStateError(f"{run_dir}: holds no {layout.HMAC_KEY}", fix="name a key file with --key")
    return Key(_read(path, "name a key file with --key"), lasting=False)


def key_of_file(path: Path) -> Key:
    """The key in a file of the owner's; the file is made, for its owner alone, if nothing is there.

    Raises:
        RunStateError: something else stands there.
        StorageError: it could not be written.

    """
    if not os.path.lexists(path):
        if not path.parent.is_dir():
            raise RunStateError(f"{path.parent}: is not a directory", fix="make it, or choose another --key")
        make_key(path)
    secret = _read(path, "name another --key; a new file is made where there is none")
    return Key(secret, lasting=True, exposed=bool(stat.S_IMODE(path.stat().st_mode) & 0o077))


def _read(path: Path, fix: str) -> bytes:
    try:
        return read_key(path)
    except OSError as error:
        raise RunStateError(f"{path}: cannot be read ({error.strerror})", fix=fix) from error
    except ValueError as error:
        raise RunStateError(f"{path}: {error}", fix=fix) from None


def fingerprint(secret: bytes, student: str, prefix: str, suffix: str) -> str:
    """HMAC-SHA256, shortened, of what a student reproduces: the same wherever name and texts are.

    Args:
        secret: the key.
        student: name of the model that reproduces the suffix.
        prefix: text that it was given.
        suffix: text that it reproduced.

    """
    message = json.dumps(["kdaudit finding 1", student, prefix, suffix])  # \u0000 and quotes stay apart
    return hmac.new(secret, message.encode("ascii"), hashlib.sha256).hexdigest()[:_LENGTH]
