"""Rows of a run's examples/ as engines and attacks are given them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from kdaudit.inference import Batch, Ragged, Split


def windows_of(table: pa.Table) -> Ragged:
    """The column `token_ids`."""
    lists = table["token_ids"].combine_chunks()
    offsets = np.concatenate(
        [np.zeros(1, np.int64), np.cumsum(lists.value_lengths().to_numpy(), dtype=np.int64)]
    )
    return Ragged(lists.flatten().to_numpy(), offsets)


def examples_of(table: pa.Table, split: Split) -> Batch:
    """The columns `example_id` and `token_ids`, cut into prompts and targets."""
    return split.cut(table["example_id"].to_numpy(), windows_of(table))
