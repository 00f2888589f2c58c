"""Rows of parquet and Arrow files and of hub datasets, streamed.

Local tables are read with pyarrow itself: `datasets` (5.2) holds a row group in memory, which by default is a
million rows. A saved dataset is the Arrow files that it lists. Hub datasets come through the `datasets`
library; no code of a dataset is run, since it has neither loading scripts nor pickle since version 4.

Only the text and id columns are read. Text stays bytes until `documents` decodes it, since Arrow does not
check that a string column is valid UTF-8.
"""

from __future__ import annotations

import logging
import mmap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus.folders import Format
from kdaudit.corpus.readers.streams import MAX_DOCUMENT, MAX_DOCUMENT_BYTES, refuse_pointer
from kdaudit.corpus.rows import Place, Row, check_columns, row_of, wanted_columns
from kdaudit.corpus.sources import HubDataset
from kdaudit.corpus.splits import check_split
from kdaudit.errors import CorpusError, RunError, reason
from kdaudit.models.hub import LISTING_SECONDS, within
from kdaudit.runs.files import open_regular

ROWS_AT_ONCE = 256
"""Rows decoded together: few, since a row may be a whole book."""
BUFFER_BYTES = 1 << 20
"""A parquet column is read in pieces of this size."""


class Table(NamedTuple):
    """An open table file."""

    columns: list[str]
    batches: Callable[[Sequence[str] | None], Iterator[pa.RecordBatch]]
    """Gives batches of at most `ROWS_AT_ONCE` rows with these columns, or with all."""


def table_rows(file: Path, form: Format, config: CorpusConfig, key: str) -> Iterator[Row]:
    """Rows of one parquet or Arrow file.

    Raises:
        CorpusError: the file cannot be read, a column is missing, or the text column is not of strings.
    """
    with open_table(file, form, key) as table:
        check_columns(config, key, file, table.columns)
        batches = table.batches(wanted_columns(config, table.columns))
        yield from _rows((pa.Table.from_batches([batch]) for batch in batches), config, key, file)


def hub_rows(source: HubDataset, config: CorpusConfig, key: str) -> Iterator[Row]:
    """Rows of a hub dataset, as they come over the network.

    Raises:
        CorpusError: as `table_rows`; also no such dataset, configuration or split, no access, no network.
    """
    with reaching_hub(source, key):
        builder = hub_builder(source, key)
        streams = builder.as_streaming_dataset()
        split = check_split(key, source.repository, source.split, streams)
        names = streams[split].column_names or list(next(iter(streams[split]), {}))
        check_columns(config, key, source.repository, names)
        if hasattr(builder.config, "columns"):  # parquet on the hub: fetch no other column
            streams = hub_builder(source, key, columns=wanted_columns(config, names)).as_streaming_dataset()
        stream = streams[split].select_columns(wanted_columns(config, names))
        yield from _rows(arrow_tables(stream), config, key, source.repository)


def hub_builder(source: HubDataset, key: str, **columns: list[str]) -> Any:  # noqa: ANN401 - `datasets` is untyped
    """The dataset's builder of `datasets`, with its files listed.

    Raises:
        CorpusError: `datasets` takes its name for a format, and would read the working directory.
        RunError: the hub said nothing for `LISTING_SECONDS`.
    """
    import datasets
    from datasets.packaged_modules import _PACKAGED_DATASETS_MODULES

    if source.repository in _PACKAGED_DATASETS_MODULES:
        raise CorpusError(
            f"{source.repository} is the name of a format, not of a dataset on the Hugging Face hub",
            fix="name a file or folder (./train.jsonl), or OWNER/NAME",
            key=f"{key}.path",
        )
    return within(
        LISTING_SECONDS,
        lambda: datasets.load_dataset_builder(
            # With its scheme, else a folder of that name in the working directory would be read in its place.
            f"hf://datasets/{source.repository}",
            name=source.name,
            revision=source.revision,
            **columns,
        ),
        f"{key}.path: {source.repository}",
    )


def arrow_tables(stream: Any) -> Iterator[pa.Table]:  # noqa: ANN401 - `datasets` is untyped
    """Tables of a streamed dataset's rows, `ROWS_AT_ONCE` each."""
    return stream.with_format("arrow").iter(batch_size=ROWS_AT_ONCE)  # type: ignore[no-any-return]


@contextmanager
def open_table(file: Path, form: Format, key: str) -> Iterator[Table]:
    """Open a parquet or Arrow file.

    Raises:
        CorpusError: it is not a regular file or cannot be read; also later, while it is read.
    """
    place = Place(f"{key}.path", file)
    with reading(place), ExitStack() as stack:
        handle = stack.enter_context(open_regular(file))
        refuse_pointer(handle.peek(), place)
        if form == "arrow":
            yield _arrow(handle)
        else:
            yield _parquet(
                stack.enter_context(pq.ParquetFile(handle, buffer_size=BUFFER_BYTES, pre_buffer=False))
            )


def _parquet(stored: Any) -> Table:  # noqa: ANN401 - pyarrow is untyped

    def batches(columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        # A row group at a time: pyarrow (26) reads no batch of nested columns that reaches over several.
        for number in range(stored.num_row_groups):
            group, found = stored.metadata.row_group(number), 0
            for batch in stored.iter_batches(_rows_at_once(group), row_groups=[number], columns=columns):
                found += len(batch)
                yield batch
            if found != group.num_rows:  # pyarrow skips what a damaged page no longer counts
                raise pa.ArrowInvalid(f"{found} of the {group.num_rows} rows of row group {number} are there")

    return Table(stored.schema_arrow.names, batches)


def _rows_at_once(group: Any) -> int:  # noqa: ANN401 - pyarrow is untyped
    """Rows of a row group that are decoded together: about as many bytes as one document may have."""
    return int(
        max(1, min(ROWS_AT_ONCE, MAX_DOCUMENT_BYTES * group.num_rows // max(group.total_byte_size, 1)))
    )


def _arrow(handle: IO[bytes]) -> Table:
    """An Arrow file, or the stream of batches that `datasets` saves; mapped, so that a batch may be large."""
    mapped = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)  # closes itself with the last table of it
    buffer = pa.py_buffer(mapped)
    is_file = mapped[:6] == b"ARROW1"
    stored = pa.ipc.open_file(buffer) if is_file else pa.ipc.open_stream(buffer)
    found = (stored.get_batch(number) for number in range(stored.num_record_batches)) if is_file else stored

    def batches(columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
        for batch in found:
            kept = batch if columns is None else batch.select(columns)
            _validate(kept)
            for start in range(0, len(kept), ROWS_AT_ONCE):
                yield kept.slice(start, ROWS_AT_ONCE)

    return Table(stored.schema.names, batches)


def _validate(batch: pa.RecordBatch) -> None:
    """Raise an ArrowInvalid if lengths and offsets do not fit: Arrow would read outside of a damaged file."""
    for column in batch.columns:
        _bytes_of(column).validate(full=True)  # whether strings are UTF-8 is for `documents` to say


_TO_BYTES = {
    pa.string(): pa.binary(),
    pa.large_string(): pa.large_binary(),
    pa.string_view(): pa.binary_view(),
}


def _rows(tables: Iterable[pa.Table], config: CorpusConfig, key: str, where: object) -> Iterator[Row]:
    first = 0
    if config.has_answers:
        for table in tables:
            for row, fields in enumerate(fields_of(table), start=first):
                yield (Row(b"\xff") if fields is None else row_of(fields, config, key, f"{where}, row {row}"))
            first += len(table)
        return
    for table in tables:
        texts = as_bytes(table[config.text], config, key, where)
        ids = table[config.id].to_pylist() if config.id is not None else [None] * len(texts)
        for row, text in enumerate(texts, start=first):
            if text is not None and len(text) > MAX_DOCUMENT_BYTES:
                raise CorpusError(
                    f"{where}, row {row}: its text is longer than {MAX_DOCUMENT}, the most that a "
                    "document may hold",
                    fix="split it",
                    key=f"{key}.path",
                )
        first += len(texts)
        yield from map(Row, texts, ids)


def fields_of(table: pa.Table) -> list[dict[str, Any] | None]:
    """The rows by column; None for one that holds text which is not UTF-8."""
    try:
        return table.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        return [_fields_of(table.slice(row, 1)) for row in range(len(table))]


def _fields_of(row: pa.Table) -> dict[str, Any] | None:
    try:
        return row.to_pylist()[0]  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        return None


def as_bytes(column: pa.ChunkedArray, config: CorpusConfig, key: str, where: object) -> list[bytes | None]:
    """A text column's values as UTF-8 that nobody has checked; a CorpusError where it holds no text."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_null(kind):
        return [None] * len(column)
    if kind in _TO_BYTES or kind in _TO_BYTES.values():
        return [value for chunk in column.chunks for value in _values(chunk)]
    raise CorpusError(
        f"{where}, row 0: {config.text!r} is of type {column.type}, not a string, as in every row",
        fix="choose a column of text",
        key=f"{key}.text",
    )


def _bytes_of(array: pa.Array) -> pa.Array:
    """The same values, strings as their bytes."""
    if pa.types.is_dictionary(array.type):
        return pa.DictionaryArray.from_arrays(array.indices, _bytes_of(array.dictionary), safe=False)
    plain = _TO_BYTES.get(array.type)
    return array if plain is None else array.view(plain)


def _values(chunk: pa.Array) -> list[bytes | None]:
    found = _bytes_of(chunk)
    if not pa.types.is_dictionary(found.type):
        return found.to_pylist()  # type: ignore[no-any-return]
    words = found.dictionary  # not decoded as a whole: it may be that of many more rows
    return [None if place is None else words[place].as_py() for place in found.indices.to_pylist()]


@contextmanager
def reading(place: Place) -> Iterator[None]:
    """Turn whatever a damaged file provokes into a CorpusError about `place`."""
    _quiet_readers()
    try:
        yield
    except CorpusError:
        raise
    except Exception as error:  # `datasets` and pyarrow raise many kinds for a damaged file
        raise place.error(f"cannot be read ({_reason(error)})", fix="check or replace it") from error


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or reason(error)


@contextmanager
def reaching_hub(source: HubDataset, key: str) -> Iterator[None]:
    """Turn whatever the hub and its client raise into a CorpusError that names the dataset."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import GatedRepoError

    _quiet_readers()
    name = source.repository
    try:
        yield
    except (CorpusError, RunError):
        raise
    except DatasetNotFoundError as error:
        raise _not_found(name, key, isinstance(error.__cause__, GatedRepoError)) from error
    except ConnectionError as error:
        raise CorpusError(
            f"{name}: is not a local file, and the Hugging Face hub cannot be reached ({reason(error)})",
            fix="correct the path, or check the network",
            key=f"{key}.path",
        ) from error
    except Exception as error:
        raise CorpusError(
            f"{name}: cannot be read from the Hugging Face hub ({reason(error)})",
            fix=f"check {key}.name, {key}.revision and the network",
            key=f"{key}.path",
        ) from error


def _not_found(name: str, key: str, is_gated: bool) -> CorpusError:
    if is_gated:
        return CorpusError(
            f"{name}: is gated on the Hugging Face hub",
            fix="ask for access on its page there, then log in with `hf auth login`",
            key=f"{key}.path",
        )
    return CorpusError(
        f"{name}: there is no such file here and no such dataset that you have access to on the "
        "Hugging Face hub",
        fix="correct the path, or log in with `hf auth login` if it is private",
        key=f"{key}.path",
    )


def _quiet_readers() -> None:
    """Keep `datasets` from logging each failure: it reaches the user once, as a CorpusError."""
    logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)
