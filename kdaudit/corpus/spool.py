"""Windows on disk between the pass over the corpus and the examples.

The spool is one parquet file in a scratch folder, readable by its owner only since it holds training
text. Its rows are in corpus order and correspond to the ledger's.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kdaudit.corpus.windows import Window
from kdaudit.errors import StorageError
from kdaudit.runs.arrow_schemas import EXAMPLES_SCHEMA

SPOOL_SCHEMA = pa.schema([field for field in EXAMPLES_SCHEMA if field.name not in ("example_id", "copies")])

GROUP_ROWS = 1024
GROUP_TOKENS = 250_000
"""A row group is written at either size: about 2.5 MB, of which memory holds a few copies."""


class Spool:
    """Grows by `add`, shrinks by `keep`, is read by `tables` once `close` was called."""

    def __init__(self, scratch: Path) -> None:
        """Start an empty spool in `scratch`, which is made if need be; the caller deletes it."""
        self._scratch = scratch
        self._number = 0
        with _storing(scratch):
            scratch.mkdir(mode=0o700, parents=True, exist_ok=True)
            for leftover in scratch.glob("spool-*.parquet"):
                leftover.unlink()
            self._writer = _writer(self._file)
        self._waiting: list[Window] = []
        self._tokens = 0

    @property
    def _file(self) -> Path:
        return self._scratch / f"spool-{self._number}.parquet"

    def add(self, window: Window) -> None:
        """Append one row.

        Raises:
            StorageError: it could not be written.
        """
        self._waiting.append(window)
        self._tokens += len(window.token_ids)
        if len(self._waiting) >= GROUP_ROWS or self._tokens >= GROUP_TOKENS:
            self._flush()

    def keep(self, rows: NDArray[np.int64]) -> None:
        """Reduce the spool to the rows numbered `rows`, which ascend.

        Raises:
            StorageError: it could not be written.
        """
        self.close()
        old = self._file
        self._number += 1
        with _storing(self._scratch):
            self._writer = _writer(self._file)
            for table in _selected(old, rows):
                self._writer.write_table(table)
            old.unlink()

    def close(self) -> None:
        """Write what waits and close the file.

        Raises:
            StorageError: it could not be written.
        """
        self._flush()
        with _storing(self._scratch):
            self._writer.close()

    def tables(self, rows: NDArray[np.int64]) -> Iterator[pa.Table]:
        """The rows numbered `rows`, which ascend, in tables of a row group at most."""
        with _storing(self._scratch):
            yield from _selected(self._file, rows)

    def _flush(self) -> None:
        if not self._waiting:
            return
        with _storing(self._scratch):
            self._writer.write_table(_table(self._waiting))
        self._waiting, self._tokens = [], 0


def _table(windows: list[Window]) -> pa.Table:
    ends = np.cumsum([0, *(len(window.token_ids) for window in windows)], dtype=np.int32)
    values = np.concatenate([window.token_ids for window in windows])
    columns = [
        pa.array([window.document_id for window in windows], pa.string()),
        pa.array([window.offset for window in windows], pa.int32()),
        pa.array([window.text for window in windows], pa.string()),
        pa.ListArray.from_arrays(pa.array(ends), pa.array(values), type=pa.list_(pa.int32())),
        pa.array([window.prefix_tokens for window in windows], pa.int32()),
        pa.array([window.suffix_tokens for window in windows], pa.int32()),
        pa.array([window.prompt_end for window in windows], pa.int32()),
        pa.array([window.target_end for window in windows], pa.int32()),
    ]
    return pa.Table.from_arrays(columns, schema=SPOOL_SCHEMA)


def _writer(file: Path) -> pq.ParquetWriter:
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.close(descriptor)
    return pq.ParquetWriter(
        file, SPOOL_SCHEMA, use_dictionary=False, compression="lz4", write_statistics=False
    )


def _selected(file: Path, rows: NDArray[np.int64]) -> Iterator[pa.Table]:
    with pq.ParquetFile(file) as stored:
        start = 0
        for group in range(stored.num_row_groups):
            end = start + stored.metadata.row_group(group).num_rows
            low, high = np.searchsorted(rows, [start, end])
            if low < high:
                # One thread: each that decodes keeps memory of its own, and a group is small.
                table = stored.read_row_group(group, use_threads=False)
                yield table.take(rows[low:high] - start)
            start = end


@contextmanager
def _storing(scratch: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise StorageError(
            f"{scratch}: windows could not be stored or read back ({reason}); free space or fix the folder's "
            "permissions, then run again"
        ) from error
