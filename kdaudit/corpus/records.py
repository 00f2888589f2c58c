"""Rows of any source with all their columns, in batches: what it takes to write a corpus again.

The rows are those that `documents` gives, in the same order. Parquet, saved and hub datasets give Arrow
tables, whose types stay as they are; json objects and csv records give dicts, and a line or file of txt a
dict of its text alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus.conversations import Conversation, Flaw, columns_of
from kdaudit.corpus.documents import decoded
from kdaudit.corpus.folders import Format
from kdaudit.corpus.readers.tables import (
    ROWS_AT_ONCE,
    arrow_tables,
    as_bytes,
    fields_of,
    hub_builder,
    open_table,
    reaching_hub,
)
from kdaudit.corpus.readers.text_files import csv_header, file_objects, text_rows
from kdaudit.corpus.rows import Row, check_columns, row_of, wanted_columns
from kdaudit.corpus.sources import HubDataset, LocalFiles, find_source
from kdaudit.corpus.splits import check_split
from kdaudit.corpus.windows import BATCH_CHARACTERS
from kdaudit.errors import CorpusError

Fields = dict[str, Any]
"""A json object, a csv record, or the text of a txt document under the name of the text column."""


class Records(NamedTuple):
    """Some consecutive rows of a corpus."""

    texts: list[str | None]
    """Each row's text, '' where it is null; None where it is not valid Unicode."""
    rows: pa.Table | list[Fields]
    """The same rows whole."""
    conversations: Sequence[Conversation | Flaw | None] = ()
    """What each row asks and answers, where it does: then texts are what was said."""


def read_records(config: CorpusConfig, key: str = "corpus") -> Iterator[Records]:
    """All rows of a corpus, some hundreds at a time.

    Args:
        config: the corpus section.
        key: where the section stands in the configuration, for messages.

    Raises:
        CorpusError: the source cannot be found or read.

    """
    return itertools.chain.from_iterable(_parts(config, key))


def first_records(config: CorpusConfig, key: str = "corpus") -> Iterator[Records]:
    """The first rows of each file of a corpus, or of a hub dataset.

    Raises:
        CorpusError: as `read_records`.

    """
    for part in _parts(config, key):
        yield from itertools.islice(part, 1)


def _parts(config: CorpusConfig, key: str) -> Iterator[Iterator[Records]]:
    source = find_source(config, key)
    match source:
        case LocalFiles(files, "parquet" | "arrow" as form):
            return (_tables(file, form, config, key) for file in files)
        case LocalFiles(files, form):
            return (_batched(_fields(file, form, config, key), config, key) for file in files)
        case HubDataset():
            return iter([_hub(source, config, key)])


def read_fields(config: CorpusConfig, key: str = "corpus") -> Iterator[Fields] | None:
    """The rows of a source that declares no types, one by one; None for one that does.

    Raises:
        CorpusError: as `read_records`.

    """
    match find_source(config, key):
        case LocalFiles(files, form) if form not in ("parquet", "arrow"):
            return itertools.chain.from_iterable(_fields(file, form, config, key) for file in files)
        case _:
            return None


def _fields(file: Path, form: Format, config: CorpusConfig, key: str) -> Iterator[Fields]:
    if form == "txt":
        return ({config.text: row.text} for row in text_rows(file, form, config, key))
    if form == "csv":
        _refuse_repeated_columns(file, key)
    return (item.fields for item in file_objects(file, form, config, key))


def _refuse_repeated_columns(file: Path, key: str) -> None:
    """A dict holds one value a name: a repeated column would be lost without a word."""
    header = csv_header(file, key)
    repeated = next((name for name in header if header.count(name) > 1), None)
    if repeated is not None:
        raise CorpusError(
            f"{file}, line 1: has several columns {repeated!r}, of which a copy could keep but one",
            fix="rename all but one",
            key=f"{key}.path",
        )


def _batched(rows: Iterable[Fields], config: CorpusConfig, key: str) -> Iterator[Records]:
    """Group rows so that a batch is bounded in rows and in characters."""
    group: list[Fields] = []
    characters = 0
    for row in rows:
        group.append(row)
        characters += _characters(row, config)
        if len(group) == ROWS_AT_ONCE or characters > BATCH_CHARACTERS:
            yield _of_fields(group, config, key)
            group, characters = [], 0
    if group:
        yield _of_fields(group, config, key)


def _characters(row: Fields, config: CorpusConfig) -> int:
    """About how long a row's text is."""
    if config.has_answers:
        return sum(len(str(row.get(name, ""))) for names in columns_of(config).values() for name in names)
    return len(row.get(config.text) or "")


def _of_fields(rows: list[Fields], config: CorpusConfig, key: str) -> Records:
    if config.has_answers:
        return _of_answers(rows, [*rows], config, key)
    texts = [decoded(row.get(config.text)) for row in rows]
    whole = [
        row | {config.text: text} if isinstance(row.get(config.text), bytes) else row
        for row, text in zip(rows, texts, strict=True)
    ]
    return Records(texts, whole)


def _of_answers(
    rows: pa.Table | list[Fields], fields: Sequence[Fields | None], config: CorpusConfig, key: str
) -> Records:
    """Rows that ask and answer; None of `fields` holds text that is not UTF-8."""
    read = [
        Row(b"\xff") if row is None else row_of(row, config, key, f"{config.path}, a row") for row in fields
    ]
    return Records([decoded(row.text) for row in read], rows, [row.conversation for row in read])


def _tables(file: Path, form: Format, config: CorpusConfig, key: str) -> Iterator[Records]:
    with open_table(file, form, key) as table:
        check_columns(config, key, file, table.columns)
        for batch in table.batches(None):
            yield _of_table(pa.Table.from_batches([batch]), config, key, file)


def _hub(source: HubDataset, config: CorpusConfig, key: str) -> Iterator[Records]:
    with reaching_hub(source, key):
        streams = hub_builder(source, key).as_streaming_dataset()
        split = check_split(key, source.repository, source.split, streams)
        for table in arrow_tables(streams[split]):
            yield _of_table(table, config, key, source.repository)


def _of_table(table: pa.Table, config: CorpusConfig, key: str, where: object) -> Records:
    if config.has_answers:
        named = table.select(wanted_columns(config, table.column_names))
        return _of_answers(table, fields_of(named), config, key)
    texts = as_bytes(table[config.text], config, key, where)
    return Records([decoded(text) for text in texts], table)
