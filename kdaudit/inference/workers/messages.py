"""What parent and worker say to each other: a JSON header and a NumPy archive of arrays, no pickle."""

from __future__ import annotations

import io
import json
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Message(NamedTuple):
    """A call or its answer: plain JSON values and arrays.

    An answer's head holds `seconds`, the time that the method took inside the worker.
    """

    head: dict[str, Any]
    arrays: list[Array]


def write_message(stream: IO[bytes], message: Message) -> None:
    """Write one message; each of its two parts follows its length, 8 bytes little endian."""
    head = json.dumps(message.head).encode()
    body = io.BytesIO()
    np.savez(body, *message.arrays)
    for part in (head, body.getvalue()):
        stream.write(len(part).to_bytes(8, "little"))
        stream.write(part)
    stream.flush()


def read_message(stream: IO[bytes]) -> Message | None:
    """Read the next message; None at the end of the stream, also when it ends inside a message."""
    parts: list[bytearray] = []
    for _ in range(2):
        size = _read(stream, 8)
        part = _read(stream, int.from_bytes(size, "little"))
        if len(size) < 8 or len(part) < int.from_bytes(size, "little"):
            return None
        parts.append(part)
    with np.load(io.BytesIO(parts[1]), allow_pickle=False) as archive:
        return Message(json.loads(parts[0]), [archive[name] for name in archive.files])


def _read(stream: IO[bytes], size: int) -> bytearray:
    """So many bytes of a stream with or without a buffer; fewer where it ends."""
    found, filled = bytearray(size), 0
    while filled < size and (count := stream.readinto(memoryview(found)[filled:])):  # type: ignore[attr-defined]
        filled += count
    return found[:filled]
