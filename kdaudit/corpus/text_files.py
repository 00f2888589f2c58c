"""Rows of jsonl, json, csv and txt files, read line by line.

These formats are read with the standard library, not through `datasets`, whose readers (5.2) change
text or give up where an audit may not: dates become timestamps, `NA` in a csv becomes null, one invalid
byte or lone surrogate fails the whole file, and json errors name a row within a block, not the line.

Text is UTF-8, a byte order mark at the start of a file is dropped, and lines end in LF or CR LF. Invalid
bytes become lone surrogates (`surrogateescape`), by which `documents` knows such a row and counts it.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import lzma
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa

from kdaudit.config.audit import CorpusConfig
from kdaudit.corpus.rows import Row, check_columns
from kdaudit.corpus.sources import Format
from kdaudit.errors import CorpusError
from kdaudit.reasons import reason

COLUMN_SAMPLE = 1000
"""Objects looked at to see whether a column exists; a json object may leave out a null."""


_SEPARATORS = {";": "';'", "\t": "tabs", "|": "'|'"}
"""What other programs put between the columns of a file that they name .csv."""


class _Object(NamedTuple):
    """A json object or csv record, and where it stands."""

    fields: dict[str, Any]
    place: str


def text_rows(file: Path, form: Format, config: CorpusConfig, key: str) -> Iterator[Row]:
    """Rows of one file.

    Raises:
        CorpusError: the file cannot be read, a line is broken, a column is missing, text is not a string.
    """
    if form == "txt":
        return _txt_rows(file, config, key)
    if form == "csv":
        return _object_rows(csv_objects(file, config, key), file, config, key)
    objects = jsonl_objects if form == "jsonl" else json_objects
    return _object_rows(objects(file, key), file, config, key)


def open_bytes(file: Path) -> IO[bytes]:
    """Open a file for reading, unpacked if its name ends in .gz, .xz or .zst."""
    openers: dict[str, Callable[[Path], Any]] = {".gz": gzip.open, ".xz": lzma.open, ".zst": _open_zst}
    opener = openers.get(file.suffix.lower())
    return file.open("rb") if opener is None else io.BufferedReader(opener(file))


def _open_zst(file: Path) -> Any:  # noqa: ANN401 - pyarrow is untyped
    # Not `zstandard.open`: it ends quietly where a file was cut short, and after the first of several frames.
    return pa.CompressedInputStream(pa.OSFile(str(file)), "zstd")


@contextmanager
def reading(file: Path, key: str) -> Iterator[IO[bytes]]:
    """Open a file, unpacked; failures to read it become a CorpusError that names it."""
    try:
        with open_bytes(file) as handle:
            yield handle
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise CorpusError(
            f"{key}.path: {file}: cannot be read ({_reason(error)}); check or replace the file"
        ) from error


def _reason(error: Exception) -> str:
    """What went wrong, without the number and the path that an OSError's text repeats."""
    return (error.strerror if isinstance(error, OSError) else None) or reason(error)


def _lines(handle: IO[bytes]) -> Iterator[str]:
    """Lines without their ends; invalid bytes as lone surrogates."""
    for number, line in enumerate(handle):
        if number == 0:
            line = line.removeprefix(b"\xef\xbb\xbf")
        yield line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "surrogateescape")


def _txt_rows(file: Path, config: CorpusConfig, key: str) -> Iterator[Row]:
    if config.id is not None:
        raise CorpusError(f"{key}.id: {file}: a txt file has no columns; remove {key}.id")
    with reading(file, key) as handle:
        if config.documents == "file":
            yield Row(handle.read().removeprefix(b"\xef\xbb\xbf"))
        else:
            yield from map(Row, _lines(handle))


def _object_rows(objects: Iterator[_Object], file: Path, config: CorpusConfig, key: str) -> Iterator[Row]:
    head = list(itertools.islice(objects, COLUMN_SAMPLE))
    if head:
        check_columns(config, key, file, dict.fromkeys(name for item in head for name in item.fields))
    for item in itertools.chain(head, objects):
        text = item.fields.get(config.text)
        if text is not None and not isinstance(text, str):
            raise CorpusError(
                f"{key}.text: {file}, {item.place}: {config.text!r} is a {_kind(text)}, not a string; "
                "choose a column of text"
            )
        yield Row(text, item.fields.get(config.id) if config.id is not None else None)


def jsonl_objects(file: Path, key: str) -> Iterator[_Object]:
    """The objects of a file of json lines."""
    with reading(file, key) as handle:
        for number, line in enumerate(_lines(handle), start=1):
            if line and not line.isspace():
                yield _as_object(_parse(line, file, key, number), file, key, f"line {number}")


def json_objects(file: Path, key: str) -> Iterator[_Object]:
    """A .json file holds json lines, or one array of objects, which is held in memory while read."""
    with reading(file, key) as handle:
        start = handle.peek(64).removeprefix(b"\xef\xbb\xbf").lstrip()  # type: ignore[attr-defined]
        if not start.startswith(b"["):
            yield from jsonl_objects(file, key)
            return
        array = _parse(handle.read().decode("utf-8-sig", "surrogateescape"), file, key, 1)
    for row, value in enumerate(array):
        yield _as_object(value, file, key, f"row {row}")


def _parse(text: str, file: Path, key: str, first_line: int) -> Any:  # noqa: ANN401 - any json value
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        line = first_line + error.lineno - 1
        reason = f"{error.msg}, column {error.colno}"
    except RecursionError:
        line, reason = first_line, "nested too deeply"
    except ValueError as error:  # an integer of thousands of digits
        line, reason = first_line, str(error)
    raise CorpusError(
        f"{key}.path: {file}, line {line}: is not valid json ({reason}); correct or remove the line"
    )


def _as_object(value: object, file: Path, key: str, place: str) -> _Object:
    if not isinstance(value, dict):
        raise CorpusError(
            f"{key}.path: {file}, {place}: holds a {_kind(value)}, not an object; each row must be an "
            'object such as {"text": "..."}'
        )
    return _Object(value, place)


def _kind(value: object) -> str:
    names: dict[type, str] = {dict: "json object", list: "list", bool: "boolean", str: "string"}
    return "null" if value is None else names.get(type(value), "number")


def csv_objects(file: Path, config: CorpusConfig, key: str) -> Iterator[_Object]:
    """The records of a csv, by column."""
    csv.field_size_limit(sys.maxsize)  # the module's default, 128 KiB, is less than a long document
    with reading(file, key) as handle:
        lines = io.TextIOWrapper(handle, encoding="utf-8-sig", errors="surrogateescape", newline="")
        records = csv.reader(lines, strict=True)
        header = next(_csv_records(records, file, key), [])
        _check_header(header, file, config, key)
        for record in _csv_records(records, file, key):
            place = f"line {records.line_num}"
            if len(record) != len(header):
                raise CorpusError(
                    f"{key}.path: {file}, {place}: has {len(record)} fields, but the header has "
                    f"{len(header)}; quote fields that hold commas or line breaks"
                )
            yield _Object(dict(zip(header, record, strict=True)), place)


def _check_header(header: list[str], file: Path, config: CorpusConfig, key: str) -> None:
    """Check the columns before any record: where the separator is another, each record would seem broken."""
    if not header:
        return
    separator = next((sign for sign in _SEPARATORS if sign in header[0]), None)
    if separator and len(header) == 1 and config.text not in header:
        raise CorpusError(
            f"{key}.path: {file}, line 1: its columns are separated by {_SEPARATORS[separator]}, and a csv "
            "is read with commas; save it with commas, or as jsonl"
        )
    check_columns(config, key, file, header)
    if header.count(config.text) > 1:
        raise CorpusError(
            f"{key}.text: {file}, line 1: has several columns {config.text!r}; rename all but the one that "
            "holds the text"
        )


def _csv_records(records: Iterable[list[str]], file: Path, key: str) -> Iterator[list[str]]:
    """Records but for blank lines, which csv.reader gives as empty lists."""
    try:
        yield from filter(None, records)
    except csv.Error as error:
        line = getattr(records, "line_num", 0)
        raise CorpusError(
            f"{key}.path: {file}, line {line}: is not valid csv ({error}); correct or remove the line"
        ) from error
