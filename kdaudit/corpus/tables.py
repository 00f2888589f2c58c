"""Rows of parquet files, saved datasets and hub datasets, streamed.

Saved and hub datasets come through the `datasets` library. Local parquet is read with pyarrow itself:
`datasets` (5.2) holds a row group in memory, which by default is a million rows.

Only the text and id columns are read. No code of a dataset is run: `datasets` has neither loading
scripts nor pickle since version 4. Text stays bytes until `documents` decodes it, since Arrow does not
check that a string column is valid UTF-8.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kdaudit.config.audit import CorpusConfig
from kdaudit.corpus.rows import Row, check_columns, wanted_columns
from kdaudit.corpus.sources import HubDataset, SavedDataset, check_split
from kdaudit.errors import CorpusError
from kdaudit.reasons import reason

ROWS_AT_ONCE = 256
"""Rows decoded together: few, since a row may be a whole book."""
BUFFER_BYTES = 1 << 20
"""A parquet column is read in pieces of this size."""


def parquet_rows(file: Path, config: CorpusConfig, key: str) -> Iterator[Row]:
    """Rows of one parquet file.

    Raises:
        CorpusError: the file cannot be read, a column is missing, or the text column is not of strings.
    """
    with (
        reading(f"{key}.path: {file}"),
        pq.ParquetFile(file, buffer_size=BUFFER_BYTES, pre_buffer=False) as stored,
    ):
        check_columns(config, key, file, stored.schema_arrow.names)
        batches = stored.iter_batches(ROWS_AT_ONCE, columns=wanted_columns(config))
        yield from _rows(map(pa.Table.from_batches, ([batch] for batch in batches)), config, key, file)


def saved_rows(source: SavedDataset, config: CorpusConfig, key: str) -> Iterator[Row]:
    """Rows of a saved dataset.

    Raises:
        CorpusError: as `parquet_rows`.
    """
    import datasets

    if not source.files:  # `datasets` cannot load a dataset that it saved without rows
        return
    with reading(f"{key}.path: {source.folder}"):
        saved = datasets.load_from_disk(str(source.folder))
        check_columns(config, key, source.folder, saved.column_names)
        stream = saved.select_columns(wanted_columns(config)).to_iterable_dataset()
        yield from _rows(arrow_tables(stream), config, key, source.folder)


def hub_rows(source: HubDataset, config: CorpusConfig, key: str) -> Iterator[Row]:
    """Rows of a hub dataset, as they come over the network.

    Raises:
        CorpusError: as `parquet_rows`; also no such dataset, configuration or split, no access, no network.
    """
    import datasets

    def load(**columns: list[str]) -> Any:  # noqa: ANN401 - `datasets` is untyped
        return datasets.load_dataset_builder(
            source.repository, name=source.name, revision=source.revision, **columns
        )

    with reaching_hub(source, key):
        builder = load()
        streams = builder.as_streaming_dataset()
        check_split(key, source.repository, source.split, streams)
        names = streams[source.split].column_names or list(next(iter(streams[source.split]), {}))
        check_columns(config, key, source.repository, names)
        if hasattr(builder.config, "columns"):  # parquet on the hub: fetch no other column
            streams = load(columns=wanted_columns(config)).as_streaming_dataset()
        stream = streams[source.split].select_columns(wanted_columns(config))
        yield from _rows(arrow_tables(stream), config, key, source.repository)


def arrow_tables(stream: Any) -> Iterator[pa.Table]:  # noqa: ANN401 - `datasets` is untyped
    """Tables of a streamed dataset's rows, `ROWS_AT_ONCE` each."""
    return stream.with_format("arrow").iter(batch_size=ROWS_AT_ONCE)  # type: ignore[no-any-return]


def _rows(tables: Iterable[pa.Table], config: CorpusConfig, key: str, where: object) -> Iterator[Row]:
    for table in tables:
        texts = as_bytes(table[config.text], config, key, where)
        ids = table[config.id].to_pylist() if config.id is not None else [None] * len(texts)
        yield from map(Row, texts, ids)


def as_bytes(column: pa.ChunkedArray, config: CorpusConfig, key: str, where: object) -> list[bytes | None]:
    """A text column's values as UTF-8 that nobody has checked; a CorpusError where it holds no text."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    kind = column.type
    if pa.types.is_null(kind):
        return [None] * len(column)
    for is_text in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view):
        if is_text(kind):
            return column.cast(pa.large_binary()).to_pylist()  # type: ignore[no-any-return]
    for is_bytes in (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view):
        if is_bytes(kind):
            return column.to_pylist()  # type: ignore[no-any-return]
    raise CorpusError(
        f"{key}.text: {where}, row 0: {config.text!r} is of type {kind}, not a string, as in every row; "
        "choose a column of text"
    )


@contextmanager
def reading(place: str) -> Iterator[None]:
    """Turn whatever a damaged file provokes into a CorpusError that begins with `place`."""
    _quiet_readers()
    try:
        yield
    except CorpusError:
        raise
    except Exception as error:  # `datasets` and pyarrow raise many kinds for a damaged file
        raise CorpusError(f"{place}: cannot be read ({reason(error)}); check or replace it") from error


@contextmanager
def reaching_hub(source: HubDataset, key: str) -> Iterator[None]:
    """Turn whatever the hub and its client raise into a CorpusError that names the dataset."""
    from datasets.exceptions import DatasetNotFoundError

    _quiet_readers()
    name = source.repository
    try:
        yield
    except CorpusError:
        raise
    except DatasetNotFoundError as error:
        raise CorpusError(_not_found(name, key, reason(error))) from error
    except ConnectionError as error:
        raise CorpusError(
            f"{key}.path: {name}: is no local file, and the Hugging Face hub cannot be reached "
            f"({reason(error)}); correct the path, or check the network"
        ) from error
    except Exception as error:
        raise CorpusError(
            f"{key}.path: {name}: cannot be read from the Hugging Face hub ({reason(error)}); check "
            f"{key}.name, {key}.revision and the network"
        ) from error


def _not_found(name: str, key: str, told: str) -> str:
    if "gated" in told.lower():
        return (
            f"{key}.path: {name}: is gated on the Hugging Face hub; ask for access on its page there, then "
            "log in with `hf auth login`"
        )
    return (
        f"{key}.path: {name}: there is no such file here and no such dataset that you may read on the "
        f"Hugging Face hub; correct the path, or log in with `hf auth login` if it is private"
    )


def _quiet_readers() -> None:
    """Keep `datasets` from logging each failure: it reaches the user once, as a CorpusError."""
    logging.getLogger("datasets.packaged_modules").setLevel(logging.CRITICAL)
