"""Examples as a run holds them: shards of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.runs.arrow_schemas import CUT_COLUMNS
from kdaudit.runs.layout import shard_number
from kdaudit.runs.store import RunStore


def read_shard(run: RunStore, shard: str, columns: list[str]) -> pa.Table:
    """Columns of one shard, and where its examples are cut if it says so."""
    return run.read_table(shard, columns, if_there=CUT_COLUMNS)


def read_examples(run: RunStore, examples: str, wanted: NDArray[np.int64]) -> Iterator[pa.Table]:
    """Rows of the named examples (ascending ids), a shard at a time."""
    for shard in run.shards(examples):
        ids = run.read_table(shard, ["example_id"])["example_id"].to_numpy()
        places = np.flatnonzero(np.isin(ids, wanted, assume_unique=True))
        if len(places):
            yield run.read_table(shard).take(places)


def next_shard(run: RunStore, folder: str) -> int:
    """The number behind that of a folder's last shard."""
    shards = run.shards(folder)
    return shard_number(shards[-1])[0] + 1 if shards else 0


def regrouped(tables: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows, so many a table."""
    kept: list[pa.Table] = []
    for table in tables:
        kept.append(table)
        while (together := pa.concat_tables(kept)).num_rows >= rows:
            yield together.slice(0, rows).combine_chunks()
            kept = [together.slice(rows)]
    if kept and kept[0].num_rows + sum(one.num_rows for one in kept[1:]):
        yield pa.concat_tables(kept).combine_chunks()
