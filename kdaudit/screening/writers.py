"""Rows of a corpus -> kept/part-NNNNN.parquet or .jsonl, in the corpus's own columns.

A part is written whole when it has grown to `PART_BYTES`: memory holds one. Parts hold training text and are
readable by their owner only.
"""

from __future__ import annotations

import base64
import json
import math
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus.records import Fields
from kdaudit.errors import RunStateError, UsageError
from kdaudit.runs import layout
from kdaudit.runs.store import RunStore
from kdaudit.screening.schemas import ARROW_ERRORS, no_schema

PART_BYTES = 64 << 20
"""A part of this size is written: of Arrow data, or of characters of json."""


class KeptRow(NamedTuple):
    """A row to write."""

    row: int
    """Its place among those given with it."""
    text: str | None = None
    """What takes the place of its text; None leaves it as it is."""
    messages: int | None = None
    """How many of its messages stay, of a chat; None for all."""

    @property
    def is_cut(self) -> bool:
        """Whether only a part of it stays."""
        return self.text is not None or self.messages is not None


def discard_kept(run: RunStore) -> None:
    """Remove the kept corpus that an earlier call wrote, or began.

    Raises:
        RunStateError: something else lies in its folder, and would be taken for a part of it.

    """
    run.discard(*run.shards(layout.KEPT))
    folder = run.folder / layout.KEPT
    if os.path.lexists(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise RunStateError(
            f"{folder}: holds something that this screening did not write", fix="move it away, then run again"
        )


class Sink(ABC):
    """Takes rows in order; `close` writes what waits.

    Args:
        run: the run whose kept corpus this is, without one of an earlier call.
        config: the corpus section: names the text column.

    Raises:
        StorageError: a part could not be written; so do all methods.

    """

    ending: str

    def __init__(self, run: RunStore, config: CorpusConfig) -> None:
        self._run = run
        self._config = config
        self._part = 0

    @abstractmethod
    def put(self, rows: pa.Table | list[Fields], kept: Sequence[KeptRow]) -> None:
        """Take some of the rows."""

    @abstractmethod
    def close(self) -> None:
        """Write what waits; an empty part where nothing was kept."""

    @property
    def replaced(self) -> list[str]:
        """Columns of which values were written otherwise, since the format cannot hold them."""
        return []

    def _next(self) -> str:
        name = layout.shard(layout.KEPT, self._part, self.ending)
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
        table = arrow_rows(rows, kept, self._schema, self._config)
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
        self._run.write_table(self._next(), table)
        self._waiting, self._bytes = [], 0


class JsonlSink(Sink):
    """Writes json objects that any JSON reader takes, with the keys of the corpus as they stand there."""

    ending = "jsonl"

    def __init__(self, run: RunStore, config: CorpusConfig) -> None:
        super().__init__(run, config)
        self._waiting: list[str] = []
        self._characters = 0
        self._replaced: dict[str, None] = {}

    @property
    def replaced(self) -> list[str]:
        """Columns with values that JSON lacks or that its readers refuse; see `json_lines`."""
        return list(self._replaced)

    def put(self, rows: pa.Table | list[Fields], kept: Sequence[KeptRow]) -> None:
        """Take some of the rows."""
        if not kept:
            return
        for line in json_lines(rows, kept, self._config, self._replaced):
            self._waiting.append(line)
            self._characters += len(line)
        if self._characters >= PART_BYTES:
            self._flush()

    def close(self) -> None:
        """Write what waits; an empty part where nothing was kept."""
        if self._waiting or not self._part:
            self._flush()

    def _flush(self) -> None:
        self._run.write_text(self._next(), "".join(self._waiting))
        self._waiting, self._characters = [], 0


def arrow_rows(
    rows: pa.Table | list[Fields], kept: Sequence[KeptRow], schema: pa.Schema | None, config: CorpusConfig
) -> pa.Table:
    """Rows to keep as Arrow.

    Args:
        rows: rows of the corpus.
        kept: which of them to take, and their texts.
        schema: of rows that come as dicts.
        config: the corpus section.

    Raises:
        UsageError: dicts hold values that the schema does not.

    """
    if not isinstance(rows, pa.Table):
        try:
            return pa.Table.from_pylist([_changed(rows, one, config) for one in kept], schema=schema)
        except ARROW_ERRORS as error:
            raise no_schema(config, error) from error
    taken = _taken(rows, kept)
    place = taken.schema.get_field_index(_column_to_cut(config))
    column = _with_texts(taken.column(place), kept)
    return taken.set_column(place, taken.schema.field(place), column)


def _column_to_cut(config: CorpusConfig) -> str:
    """The column of which a part is left out where not the whole row is."""
    return config.messages or config.response or config.text


def json_lines(
    rows: pa.Table | list[Fields], kept: Sequence[KeptRow], config: CorpusConfig, replaced: dict[str, None]
) -> list[str]:
    """Rows to keep as lines of JSON.

    Of values that JSON lacks, times are written as in ISO 8601, binary as base64, NaN and infinity as null,
    all others as their text; of values that its readers refuse, half of a surrogate pair as U+FFFD and
    integers beyond 64 bits as the nearest double.

    Args:
        rows: rows of the corpus.
        kept: which of them to take, and their texts.
        config: the corpus section.
        replaced: takes the names of columns in which a value was lost or rounded.

    Raises:
        UsageError: rows of Arrow have several columns of one name.

    """
    if isinstance(rows, pa.Table):
        names = rows.column_names
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise UsageError(
                f"{config.path} has several columns {repeated!r}, and a JSON object holds one of a name",
                fix="rename all but one, or set format to parquet",
                key="format",
            )
        objects = _taken(rows, kept).to_pylist()
        kept = [one._replace(row=place) for place, one in enumerate(kept)]
    else:
        objects = rows
    return [
        json.dumps(_plain_row(_changed(objects, one, config), config, replaced), ensure_ascii=False) + "\n"
        for one in kept
    ]


def _plain_row(row: Fields, config: CorpusConfig, replaced: dict[str, None]) -> Fields:
    """A row as JSON can hold it."""
    plain = {}
    for name, value in row.items():
        if name == config.text and isinstance(value, bytes) and not config.has_answers:
            plain[name] = value.decode()
            continue
        lossy: list[object] = []
        plain[_valid(name, lossy)] = _plain(value, lossy)
        if lossy:
            replaced.setdefault(_valid(name, lossy))
    return plain


def _taken(rows: pa.Table, kept: Sequence[KeptRow]) -> pa.Table:
    """The rows to write, as they stand."""
    places = [one.row for one in kept]
    try:
        return rows.take(places)
    except pa.ArrowNotImplementedError:  # pyarrow (26) takes no rows of some types, such as string_view
        return pa.concat_tables([rows.slice(place, 1) for place in places])


def _changed(rows: Sequence[Fields], kept: KeptRow, config: CorpusConfig) -> Fields:
    row, name = rows[kept.row], _column_to_cut(config)
    return row | {name: _cut(row[name], kept)} if kept.is_cut else row


def _cut(value: Any, kept: KeptRow) -> Any:  # noqa: ANN401 - a text, or a list of messages
    if kept.messages is not None:
        return value[: kept.messages]
    return value if kept.text is None else kept.text


def _with_texts(column: pa.ChunkedArray, kept: Sequence[KeptRow]) -> pa.ChunkedArray:
    """A column with some of its values replaced, of the same type."""
    if not any(one.is_cut for one in kept):
        return column
    kind, old = column.type, column.to_pylist()
    values = [_cut(was, one) for was, one in zip(old, kept, strict=True)]
    if pa.types.is_dictionary(kind):
        return pa.chunked_array([pa.array(values, kind.value_type).dictionary_encode().cast(kind)])
    return pa.chunked_array([pa.array(values, kind)])


def _number(value: float | None) -> float | None:
    """A number as every JSON reader takes it: an integer beyond 64 bits as the nearest double."""
    if isinstance(value, int) and not -(2**63) <= value < 2**64:
        try:
            return float(value)
        except OverflowError:
            return None
    return None if isinstance(value, float) and not math.isfinite(value) else value


_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def _valid(text: str, lossy: list[object]) -> str:
    """The text with U+FFFD for what no Unicode encoding can hold: readers refuse it escaped, too."""
    try:
        text.encode()
    except UnicodeEncodeError:
        lossy.append(text)
        return _LONE_SURROGATE.sub("\N{REPLACEMENT CHARACTER}", text)
    return text


def _plain(value: Any, lossy: list[object]) -> Any:  # noqa: ANN401 - any value that pyarrow or json gives
    """A value as JSON can hold it; what that loses is added to `lossy`."""
    if isinstance(value, str):
        return _valid(value, lossy)
    if isinstance(value, dict):
        return {_valid(str(name), lossy): _plain(part, lossy) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part, lossy) for part in value]
    if value is None or isinstance(value, bool | int | float):
        plain = _number(value)
        lossy.extend([] if plain is value else [value])
        return plain
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
