"""Rows of jsonl, json, csv and txt files, read line by line.

These formats are read with the standard library, not through `datasets`, whose readers (5.2) change
text or give up where an audit may not: dates become timestamps, `NA` in a csv becomes null, one invalid
byte or lone surrogate fails the whole file, and json errors name a row within a block, not the line.

Text is UTF-8; byte order marks at the start of a line are dropped. Invalid bytes become lone surrogates
(`surrogateescape`), by which `documents` knows such a row and counts it.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator
from pathlib import Path

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus.folders import Format
from kdaudit.corpus.readers.json_files import Object, json_objects, jsonl_objects
from kdaudit.corpus.readers.json_shapes import kind_of, one_object
from kdaudit.corpus.readers.streams import (
    MAX_DOCUMENT,
    MAX_DOCUMENT_BYTES,
    lines,
    reading,
    whole,
    without_mark,
)
from kdaudit.corpus.rows import Place, Row, check_columns, row_of, wanted_columns
from kdaudit.errors import CorpusError

COLUMN_SAMPLE = 1000
"""Objects looked at to see whether a column exists; a json object may leave out a null."""


_SEPARATORS = {";": "';'", "\t": "tabs", "|": "'|'"}
"""What other programs put between the columns of a file that they name .csv."""


def text_rows(file: Path, form: Format, config: CorpusConfig, key: str) -> Iterator[Row]:
    """Rows of one file.

    Raises:
        CorpusError: the file cannot be read, a line is broken, a column is missing, text is not a string.
    """
    if form == "txt":
        if config.has_answers:
            raise CorpusError(
                f"{file}: a txt file has no columns, and prompts and answers take some",
                fix="save it as jsonl, or remove the keys of prompts and answers",
                key=f"{key}.path",
            )
        return _txt_rows(file, config, key)
    return _object_rows(file_objects(file, form, config, key), file, config, key)


def file_objects(file: Path, form: Format, config: CorpusConfig, key: str) -> Iterator[Object]:
    """The objects or records of one jsonl, json or csv file.

    Raises:
        CorpusError: as `text_rows`, but for columns of json, which are not looked at.
    """
    if form == "csv":
        return _csv_objects(file, config, key)
    return (jsonl_objects if form == "jsonl" else json_objects)(file, key)


def _txt_rows(file: Path, config: CorpusConfig, key: str) -> Iterator[Row]:
    if config.id is not None:
        raise CorpusError(f"{file}: a txt file has no columns", fix=f"remove {key}.id", key=f"{key}.id")
    place = Place(f"{key}.path", file)
    with reading(file, key) as handle:
        if config.documents == "file":
            yield Row(whole(handle, place))
            return
        for line in lines(handle, place):
            text = without_mark(line).removesuffix(b"\n").removesuffix(b"\r")
            yield Row(text.decode("utf-8", "surrogateescape"))


def _object_rows(objects: Iterator[Object], file: Path, config: CorpusConfig, key: str) -> Iterator[Row]:
    head, names = _head(objects, set(wanted_columns(config)))
    if config.has_answers:
        yield from _answer_rows(itertools.chain(head, objects), names, file, config, key)
        return
    if len(head) == 1 and not isinstance(head[0].fields.get(config.text), str):
        head += itertools.islice(objects, 1)
        found = one_object(head[0].fields) if len(head) == 1 else None
        if found is not None:
            raise Place(f"{key}.path", file).error(found.what, fix=found.fix)
    if head:
        check_columns(config, key, file, names)
    for item in itertools.chain(head, objects):
        text = item.fields.get(config.text)
        if text is not None and not isinstance(text, str):
            raise CorpusError(
                f"{file}, {item.place}: {config.text!r} is a {kind_of(text)}, not a string",
                fix="choose a column of text; where a text is missing, write null",
                key=f"{key}.text",
            )
        yield Row(text, item.fields.get(config.id) if config.id is not None else None)


def _answer_rows(
    objects: Iterator[Object], names: list[str], file: Path, config: CorpusConfig, key: str
) -> Iterator[Row]:
    """Rows of prompts and answers; `names` are the first objects' columns."""
    for number, item in enumerate(objects):
        if number == 0:
            check_columns(config, key, file, names)
        yield row_of(item.fields, config, key, f"{file}, {item.place}")


def _head(objects: Iterator[Object], wanted: set[str]) -> tuple[list[Object], list[str]]:
    """The first objects, at most so many that the wanted columns were all met, and the columns in them."""
    head: list[Object] = []
    names: dict[str, None] = {}
    for item in itertools.islice(objects, COLUMN_SAMPLE):
        head.append(item)
        names.update(dict.fromkeys(item.fields))
        if wanted <= names.keys():
            break
    return head, list(names)


class _Lines(Iterator[str]):
    """Lines for `csv.reader`, which asks for as many as a record takes."""

    def __init__(self, handle: io.BufferedReader, place: Place) -> None:
        self._lines = lines(handle, place)
        self.starts = True
        """Whether the next line starts a record: a byte order mark there is none of its text."""

    def __next__(self) -> str:
        line = next(self._lines)
        line, self.starts = without_mark(line) if self.starts else line, False
        return line.decode("utf-8", "surrogateescape")


def _csv_objects(file: Path, config: CorpusConfig, key: str) -> Iterator[Object]:
    """The records of a csv, by column."""
    csv.field_size_limit(MAX_DOCUMENT_BYTES)  # the module's default, 128 KiB, is less than a long document
    place = Place(f"{key}.path", file)
    with reading(file, key) as handle:
        records = _csv_records(_Lines(handle, place), place)
        _, header = next(records, (0, []))
        _check_header(header, file, config, key)
        for line, record in records:
            if len(record) != len(header):
                raise place.error(
                    f"has {len(record)} fields, but the header has {len(header)}",
                    fix="quote fields that hold commas or line breaks",
                    line=line,
                )
            yield Object(dict(zip(header, record, strict=True)), f"line {line}")


def _check_header(header: list[str], file: Path, config: CorpusConfig, key: str) -> None:
    """Check the columns before any record: where the separator is another, each record would seem broken."""
    if not header:
        return
    separator = next((sign for sign in _SEPARATORS if sign in header[0]), None)
    if separator and len(header) == 1 and header[0] not in wanted_columns(config):
        raise Place(f"{key}.path", file).error(
            f"its columns are separated by {_SEPARATORS[separator]}, and a csv is read with commas",
            fix="save it with commas, or as jsonl",
            line=1,
        )
    check_columns(config, key, file, header)


def csv_header(file: Path, key: str) -> list[str]:
    """The column names of a csv; none of an empty file."""
    place = Place(f"{key}.path", file)
    with reading(file, key) as handle:
        return next(_csv_records(_Lines(handle, place), place), (0, []))[1]


def _csv_records(source: _Lines, place: Place) -> Iterator[tuple[int, list[str]]]:
    """Records and the lines on which they end, but for blank lines, which csv.reader gives as empty lists."""
    records = csv.reader(source, strict=True)
    while True:
        source.starts, start = True, records.line_num + 1
        try:
            record = next(records, None)
        except csv.Error as error:
            if "field larger" in str(error):
                raise place.error(
                    f"begins a field of more than {MAX_DOCUMENT}, the most that one may hold",
                    fix="close its quote, or split it",
                    line=start,
                ) from error
            raise place.error(
                f"is not valid csv ({error})",
                fix="correct or remove the line",
                line=records.line_num,
            ) from error
        if record is None:
            return
        if record:
            yield records.line_num, record
