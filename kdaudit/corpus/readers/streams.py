"""Corpus files as bytes: opened safely, unpacked, told by their first bytes, and cut into bounded lines.

A line ends in LF, CR LF or CR alone, as Python's own `open` takes it. NULs behind the last line are padding
and belong to no text. What is no UTF-8 text at all (UTF-16, a packed file under another name, a pointer of
Git LFS) is refused by the name of what it is.
"""

from __future__ import annotations

import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from kdaudit.config.paths import COMPRESSED_SUFFIXES
from kdaudit.corpus.readers.encodings import BOM, wide_encoding
from kdaudit.corpus.rows import Place
from kdaudit.errors import CorpusError, reason
from kdaudit.runs.files import open_regular

MAX_DOCUMENT_BYTES = 64 << 20
"""What one line, one json value and one document may hold: a row is in memory as a whole."""
MAX_DOCUMENT = f"{MAX_DOCUMENT_BYTES >> 20} MiB"

_PIECE = 1 << 20
_HOLE = b"\0" * 64
"""NULs that stand for data that was never written."""
_LFS = b"version https://git-lfs.github.com/spec/"
_BINARY = (
    (b"\x1f\x8b", "is compressed with gzip", "rename it so that its name ends in .gz"),
    (b"\xfd7zXZ\0", "is compressed with xz", "rename it so that its name ends in .xz"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd", "rename it so that its name ends in .zst"),
    (b"PK\x03\x04", "is a zip archive", "unpack it"),
    (b"BZh91AY&SY", "is compressed with bzip2", "unpack it"),
    (b"PAR1\x15", "is a parquet file", "rename it so that its name ends in .parquet"),
    (b"ARROW1\0\0", "is an Arrow file", "rename it so that its name ends in .arrow"),
    (b"\xff\xff\xff\xff", "is binary data, such as an Arrow stream", "give it the ending of its format"),
    (b"SQLite format 3\0", "is an SQLite database", "export its table as csv or json lines"),
    (b"%PDF-1.", "is a PDF", "extract its text"),
)
"""How a file of another kind begins, what it is, and what to do."""


@contextmanager
def reading(file: Path, key: str) -> Iterator[io.BufferedReader]:
    """Open a text file, unpacked if its name ends in .gz, .xz or .zst.

    Raises:
        CorpusError: it is not a regular file or cannot be read (also later, while it is read), or holds
            something other than UTF-8 text.
    """
    place = Place(f"{key}.path", file)
    try:
        with ExitStack() as stack:
            raw = stack.enter_context(open_regular(file))
            handle = stack.enter_context(_unpacked(raw, file.suffix.lower()))
            _refuse_other_kinds(handle.peek(io.DEFAULT_BUFFER_SIZE), place)
            yield handle
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        remedy = (
            "check it or its permissions"
            if isinstance(error, PermissionError)
            else "check or replace the file"
        )
        raise place.error(f"cannot be read ({_reason(error)})", fix=remedy) from error


def _unpacked(raw: io.BufferedReader, suffix: str) -> io.BufferedReader:
    if suffix in COMPRESSED_SUFFIXES and not raw.peek(1):
        # gzip and lzma take it for a file without content.
        raise EOFError("it is empty, which a compressed file never is")
    if suffix == ".gz":
        return io.BufferedReader(cast(io.RawIOBase, gzip.open(raw)))
    if suffix == ".xz":
        return io.BufferedReader(_XzReader(raw))
    if suffix == ".zst":
        # Not `zstandard.open`: it ends quietly where a file was cut short, and after the first of several
        # frames.
        return io.BufferedReader(pa.CompressedInputStream(raw, "zstd"))
    return raw


class _XzReader(io.RawIOBase):
    """The streams of an xz file one after the other, with the padding that may stand between them.

    `lzma.open` ignores whatever follows the first stream and does not begin like another: it would drop the
    rest of a corpus without a word.
    """

    def __init__(self, raw: io.BufferedReader) -> None:
        self._raw = raw
        self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ)
        self._packed = b""
        """What was read and not given to the stream."""

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: Any) -> int:  # noqa: ANN401 - any writable buffer
        """See `io.RawIOBase.readinto`."""
        while True:
            if self._stream.eof and not self._next():
                return 0
            if self._stream.needs_input and not self._packed:
                self._packed = self._raw.read(_PIECE)
                if not self._packed:
                    raise EOFError("it ends in the middle of its data")
            piece = self._stream.decompress(self._packed, len(buffer))
            self._packed = b""
            if piece:
                buffer[: len(piece)] = piece
                return len(piece)

    def _next(self) -> bool:
        """Pass to the next stream; False where there is none."""
        rest = self._stream.unused_data or self._raw.read(_PIECE)
        while rest and not rest.strip(b"\0"):
            rest = self._raw.read(_PIECE)
        self._packed = rest.lstrip(b"\0")
        if self._packed:
            self._stream = lzma.LZMADecompressor(lzma.FORMAT_XZ)
        return bool(self._packed)


def _reason(error: Exception) -> str:
    """What went wrong, without the number and the path that an OSError's text repeats."""
    return (error.strerror if isinstance(error, OSError) else None) or reason(error)


def refuse_pointer(head: bytes, place: Place) -> None:
    """Raise a CorpusError for the few lines that Git LFS leaves where a large file was not fetched."""
    if head.startswith(_LFS):
        raise place.error(
            "is a pointer of Git LFS, the data itself was not fetched",
            fix="run `git lfs pull` in its repository",
        )


def _refuse_other_kinds(head: bytes, place: Place) -> None:
    refuse_pointer(head, place)
    for magic, what, fix in _BINARY:
        if head.startswith(magic):
            raise place.error(what, fix=fix)
    encoding = wide_encoding(head) or ("ISO-2022-JP" if re.search(rb"\x1b\$[@B]", head) else None)
    if encoding is not None:
        raise place.error(
            f"is encoded in {encoding}, and text is read as UTF-8",
            fix=f"save it as UTF-8, as in `iconv -f {encoding} -t UTF-8 FILE > NEW`",
        )


def lines(handle: io.BufferedReader, place: Place) -> Iterator[bytes]:
    """The lines of a file with their ends.

    Args:
        handle: the file.
        place: which file that is.

    Raises:
        CorpusError: a line is longer than `MAX_DOCUMENT`, is encoded in UTF-16 or UTF-32, or data is missing.
    """
    held: list[bytes] = []
    size, number, hole = 0, 1, False
    while piece := handle.readline(_PIECE):
        if not held and piece.endswith(b"\n") and b"\r" not in piece and b"\0" not in piece and not hole:
            yield piece
            number += 1
            continue
        if not piece.strip(b"\0"):
            hole = True  # at the end of a file it is padding
            continue
        if hole:
            raise _missing(place, number)
        if piece.endswith(b"\r") and handle.peek(1).startswith(b"\n"):  # a piece ends within CR LF
            piece += handle.read(1)
        for part in piece.splitlines(keepends=True):
            held.append(part)
            size += len(part.rstrip(b"\0"))
            if size > MAX_DOCUMENT_BYTES:
                raise place.error(
                    f"is longer than {MAX_DOCUMENT}, the most that a line may hold",
                    fix="split it, or remove it",
                    line=number,
                )
            if part.endswith((b"\n", b"\r")):
                yield _checked(b"".join(held), place, number)
                held, size, number = [], 0, number + 1
    last = b"".join(held).rstrip(b"\0")
    if last:
        yield _checked(last, place, number)


def _checked(line: bytes, place: Place, number: int) -> bytes:
    if b"\0" in line:
        if _HOLE in line:
            raise _missing(place, number)
        encoding = wide_encoding(line) if len(line) > 8 else None
        if encoding is not None:
            raise place.error(
                f"is encoded in {encoding}, unlike what stands before it",
                fix="save all of the file as UTF-8",
                line=number,
            )
    return line


def _missing(place: Place, number: int) -> CorpusError:
    return place.error(
        "holds a run of NUL bytes where text was never written",
        fix="write the file again, or remove them",
        line=number,
    )


def whole(handle: io.BufferedReader, place: Place) -> bytes:
    """All bytes of a file that is one document, without padding and byte order marks.

    Raises:
        CorpusError: it is larger than `MAX_DOCUMENT`, or data is missing.
    """
    data = handle.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise place.error(
            f"is larger than {MAX_DOCUMENT}, the most that a document may hold",
            fix="split the file, or set documents to line",
        )
    data = data.rstrip(b"\0")
    if _HOLE in data:
        raise _missing(place, data[: data.index(_HOLE)].count(b"\n") + 1)
    return re.sub(rb"(?:^|(?<=[\r\n]))(?:\xef\xbb\xbf)+", b"", data) if BOM in data else data


def without_mark(line: bytes) -> bytes:
    """A line without byte order marks at its start: joined files have them inside."""
    while line.startswith(BOM):
        line = line[len(BOM) :]
    return line
