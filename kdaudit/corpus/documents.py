"""Rows of any source -> documents, with counts of what was skipped and why."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from kdaudit.config.audit import CorpusConfig
from kdaudit.corpus.rows import Row
from kdaudit.corpus.sources import HubDataset, LocalFiles, SavedDataset, Source, find_source
from kdaudit.corpus.tables import hub_rows, parquet_rows, saved_rows
from kdaudit.corpus.text_files import text_rows
from kdaudit.errors import CorpusError


class Document(NamedTuple):
    """One row with usable text."""

    id: str
    """The id column's value as a string; the row number where there is no such column or it is null."""
    text: str
    row: int
    """Number of the row in the corpus, from 0; skipped rows count too."""


class Documents(Iterator[Document]):
    """Documents in corpus order; the counts grow as they are taken."""

    def __init__(self, rows: Iterator[Row]) -> None:
        self._rows = rows
        self.rows = 0
        """Rows read so far, skipped ones included."""
        self.empty = 0
        """Rows whose text is null, empty or only white space."""
        self.undecodable = 0
        """Rows whose text is not valid Unicode: lone surrogates, bytes that are not UTF-8."""

    def __next__(self) -> Document:
        for row in self._rows:
            number = self.rows
            self.rows += 1
            text = decoded(row.text)
            if text is None:
                self.undecodable += 1
            elif not text or text.isspace():
                self.empty += 1
            else:
                return Document(_id(row.id, number), text, number)
        raise StopIteration


def open_documents(config: CorpusConfig, key: str = "corpus") -> Documents:
    """Open the corpus and read its first row, so that a wrong path, split or column shows at once.

    Args:
        config: the corpus section.
        key: where the section stands in the configuration, for messages.

    Raises:
        CorpusError: the source cannot be found or read, or has no rows; also later, while documents
            are taken, for a row or shard further on.
    """
    source = find_source(config, key)
    rows = _rows(source, config, key)
    first = next(rows, None)
    if first is None:
        raise CorpusError(f"{key}.path: {config.path}: holds no rows; name a corpus that holds text")
    return Documents(itertools.chain([first], rows))


def _rows(source: Source, config: CorpusConfig, key: str) -> Iterator[Row]:
    match source:
        case LocalFiles(files, "parquet"):
            return itertools.chain.from_iterable(parquet_rows(file, config, key) for file in files)
        case LocalFiles(files, form):
            return itertools.chain.from_iterable(text_rows(file, form, config, key) for file in files)
        case SavedDataset():
            return saved_rows(source, config, key)
        case HubDataset():
            return hub_rows(source, config, key)


def decoded(text: str | bytes | None) -> str | None:
    """The text, '' for null, or None where it is not valid Unicode."""
    try:
        if isinstance(text, bytes):
            return text.decode("utf-8")
        if text is not None:
            text.encode("utf-8")  # refuses lone surrogates
    except UnicodeError:
        return None
    return text or ""


def _id(value: object, row: int) -> str:
    if value is None:
        return str(row)
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
