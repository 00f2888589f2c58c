"""Examples as a run holds them: shards of rows, and their token ids as arrays."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.runs.store import RunStore


def read_examples(run: RunStore, examples: str, wanted: NDArray[np.int64]) -> Iterator[pa.Table]:
    """Rows of the named examples (ascending ids), a shard at a time."""
    for shard in run.shards(examples):
        ids = run.read_table(shard, ["example_id"])["example_id"].to_numpy()
        places = np.flatnonzero(np.isin(ids, wanted, assume_unique=True))
        if len(places):
            yield run.read_table(shard).take(places)


def windows_of(token_ids: pa.ChunkedArray) -> list[NDArray[np.int32]]:
    """A column of token id lists as arrays, int32 (tokens,) each."""
    lists = token_ids.combine_chunks()
    return np.split(lists.flatten().to_numpy(), np.cumsum(lists.value_lengths().to_numpy())[:-1])
