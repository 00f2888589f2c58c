"""Rows of a run's examples/ as engines and attacks are given them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from kdaudit.inference import Batch, Lengths, Ragged, Split
from kdaudit.runs.arrow_schemas import CUT_COLUMNS


def windows_of(table: pa.Table) -> Ragged:
    """The column `token_ids`."""
    lists = table["token_ids"].combine_chunks()
    offsets = np.concatenate(
        [np.zeros(1, np.int64), np.cumsum(lists.value_lengths().to_numpy(), dtype=np.int64)]
    )
    return Ragged(lists.flatten().to_numpy(), offsets)


def examples_of(table: pa.Table, split: Split) -> Batch:
    """The columns `example_id` and `token_ids`, cut into prompts and targets.

    Args:
        table: rows of EXAMPLES_SCHEMA, where they say how many tokens are the prompt and the target.
        split: says so where they do not, as in runs of earlier versions.

    """
    return split.cut(table["example_id"].to_numpy(), windows_of(table), *cuts_of(table, split))


def cuts_of(table: pa.Table, split: Split) -> tuple[Lengths, Lengths]:
    """Tokens of each example's prompt, without a BOS token, and of its target: int64 (examples,) each."""
    prefixes, suffixes = (
        table[name].to_numpy().astype(np.int64)
        if name in table.column_names
        else np.full(len(table), usual, np.int64)
        for name, usual in zip(CUT_COLUMNS, (split.prefix_tokens, split.suffix_tokens), strict=True)
    )
    return prefixes, suffixes
