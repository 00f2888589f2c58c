"""Rows of a corpus -> kept/part-NNNNN.parquet or .jsonl, in the corpus's own columns.

A part is written whole when it has grown to `PART_BYTES`: memory holds one. Parts hold training text and are
readable by their owner only.
"""

from __future__ import annotations

import base64
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from kdaudit.config.audit import CorpusConfig
from kdaudit.corpus.records import Fields
from kdaudit.screen.schemas import ARROW_ERRORS, no_schema
from kdaudit.store import RunStore

KEPT = "kept"
"""Folder of the kept corpus."""
PART_BYTES = 64 << 20
"""A part of this size is written: of Arrow data, or of characters of json."""


class KeptRow(NamedTuple):
    """A row to write."""

    row: int
    """Its place among those given with it."""
    text: str | None
    """What takes the place of its text; None leaves the row as it is."""


class Sink(ABC):
    """Takes rows in order; `close` writes what waits.

    Args:
        run: the run whose kept corpus this is; one that an earlier call left there is removed.
        config: the corpus section: names the text column.

    Raises:
        StorageError: a part could not be written; so do all methods.

    """

    ending: str

    def __init__(self, run: RunStore, config: CorpusConfig) -> None:
        self._run = run
        self._config = config
        self._part = 0
        run.discard(*run.shards(KEPT))
        for leftover in (run.folder / KEPT).glob("part-*"):
            leftover.unlink()

    @abstractmethod
    def put(self, rows: pa.Table | list[Fields], kept: Sequence[KeptRow]) -> None:
        """Take some of the rows."""

    @abstractmethod
    def close(self) -> None:
        """Write what waits; an empty part where nothing was kept."""

    def _next(self) -> str:
        name = f"{KEPT}/part-{self._part:05d}.{self.ending}"
        self._part += 1
        return name


class ParquetSink(Sink):
    """Writes the types that the rows came with; a part ends where they change.

    Args:
        run: the run.
        config: the corpus section.
        schema: of rows that come as dicts.

    """

    ending = "parquet"

    def __init__(self, run: RunStore, config: CorpusConfig, schema: pa.Schema | None) -> None:
        super().__init__(run, config)
        self._schema = schema
        self._waiting: list[pa.Table] = []
        self._bytes = 0

    def put(self, rows: pa.Table | list[Fields], kept: Sequence[KeptRow]) -> None:
        """Take some of the rows.

        Raises:
            UsageError: dicts hold values that the schema does not.

        """
        if isinstance(rows, pa.Table):
            if self._waiting and not rows.schema.equals(self._schema):
                self._flush()
            self._schema = rows.schema
        if not kept:
            return
        table = self._table(rows, kept)
        self._waiting.append(table)
        self._bytes += table.nbytes
        if self._bytes >= PART_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what waits; a part without rows where nothing was kept."""
        if self._waiting or not self._part:
            self._flush()

    def _flush(self) -> None:
        table = pa.concat_tables(self._waiting or [pa.Table.from_batches([], schema=self._schema)])
        self._run.write_table(self._next(), table, private=True)
        self._waiting, self._bytes = [], 0

    def _table(self, rows: pa.Table | list[Fields], kept: Sequence[KeptRow]) -> pa.Table:
        text = self._config.text
        if not isinstance(rows, pa.Table):
            try:
                return pa.Table.from_pylist(
                    [_with_text(rows, one, text) for one in kept], schema=self._schema
                )
            except ARROW_ERRORS as error:
                raise no_schema(self._config, error) from error
        taken = _taken(rows, kept)
        place = taken.schema.get_field_index(text)
        column = _with_texts(taken.column(place), [one.text for one in kept])
        return taken.set_column(place, taken.schema.field(place), column)


class JsonlSink(Sink):
    """Writes json objects: those of a json corpus with their keys as they stand there.

    Of Arrow values that json lacks, times are written as in ISO 8601, binary as base64, NaN and infinity as
    null, all others as their text.
    """

    ending = "jsonl"

    def __init__(self, run: RunStore, config: CorpusConfig) -> None:
        super().__init__(run, config)
        self._waiting: list[str] = []
        self._characters = 0

    def put(self, rows: pa.Table | list[Fields], kept: Sequence[KeptRow]) -> None:
        """Take some of the rows."""
        if not kept:
            return
        if isinstance(rows, pa.Table):
            objects = [self._plain_row(row) for row in _taken(rows, kept).to_pylist()]
            kept = [one._replace(row=place) for place, one in enumerate(kept)]
        else:
            objects = rows
        for one in kept:
            line = _line(_with_text(objects, one, self._config.text))
            self._waiting.append(line)
            self._characters += len(line)
        if self._characters >= PART_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what waits; an empty part where nothing was kept."""
        if self._waiting or not self._part:
            self._flush()

    def _flush(self) -> None:
        self._run.write_text(self._next(), "".join(self._waiting), private=True)
        self._waiting, self._characters = [], 0

    def _plain_row(self, row: Fields) -> Fields:
        text = row.get(self._config.text)
        plain = {name: _plain(value) for name, value in row.items()}
        return plain | ({self._config.text: text.decode()} if isinstance(text, bytes) else {})


def _taken(rows: pa.Table, kept: Sequence[KeptRow]) -> pa.Table:
    """The rows to write, as they stand."""
    places = [one.row for one in kept]
    try:
        return rows.take(places)
    except pa.ArrowNotImplementedError:  # pyarrow (26) takes no rows of some types, such as string_view
        return pa.concat_tables([rows.slice(place, 1) for place in places])


def _with_text(rows: Sequence[Fields], kept: KeptRow, text: str) -> Fields:
    row = rows[kept.row]
    return row if kept.text is None else row | {text: kept.text}


def _with_texts(column: pa.ChunkedArray, texts: Sequence[str | None]) -> pa.ChunkedArray:
    """A text column with some of its values replaced, of the same type."""
    if all(text is None for text in texts):
        return column
    kind, old = column.type, column.to_pylist()
    values = [was if text is None else text for was, text in zip(old, texts, strict=True)]
    if pa.types.is_dictionary(kind):
        return pa.chunked_array([pa.array(values, kind.value_type).dictionary_encode().cast(kind)])
    return pa.chunked_array([pa.array(values, kind)])


def _line(row: Fields) -> str:
    line = json.dumps(row, ensure_ascii=False) + "\n"
    try:
        line.encode()
    except UnicodeEncodeError:  # lone surrogates in another column: json can write them escaped
        return json.dumps(row) + "\n"
    return line


def _plain(value: Any) -> Any:  # noqa: ANN401 - any value that pyarrow gives
    """A value as json can hold it."""
    if isinstance(value, dict):
        return {str(name): _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
