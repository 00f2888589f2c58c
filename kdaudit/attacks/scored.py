"""What the scoring pass keeps of each example, which attacks other than greedy decoding follow from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.inference import Batch, Lengths, Scores
from kdaudit.runs.arrow_schemas import SCORES_SCHEMA


def score_rows(scores: Scores, examples: Batch) -> pa.Table:
    """Rows of `SCORES_SCHEMA`, in the order of the examples.

    Args:
        scores: of the prompts followed by the targets.
        examples: with the BOS token before each prompt, where there is one.

    """
    suffixes = _Suffixes(scores.offsets, examples.targets.lengths)
    drawn = suffixes.sums(scores.sampled) if len(scores.sampled) else pa.nulls(len(examples.targets))
    columns = [
        examples.example_ids,
        *(suffixes.lists(values) for values in (scores.log_probability, scores.mean, scores.variance)),
        suffixes.lists(scores.hit),
        suffixes.sums_before(scores.log_probability),
        drawn,
    ]
    arrays = [pa.array(column).cast(field.type) for column, field in zip(columns, SCORES_SCHEMA, strict=True)]
    return pa.table(arrays, schema=SCORES_SCHEMA)


def of_sample(rows: pa.Table, sample: pa.Table) -> pa.Table:
    """Scores of a sample, by example id, with what each example stands for behind the id.

    Args:
        rows: columns of `SCORES_SCHEMA`, of the sample and maybe of others, in any order.
        sample: rows of `SCORE_SAMPLE_SCHEMA`, by example id.

    """
    ids = rows["example_id"].to_numpy()
    places = np.argsort(ids, kind="stable")
    found = rows.take(places[np.isin(ids[places], sample["example_id"].to_numpy())])
    return found.add_column(1, sample.schema.field("weight"), sample["weight"])


class _Suffixes:
    """Where the targets' tokens stand among all that have a score.

    Args:
        offsets: of the windows, see `Scores`.
        lengths: tokens of each target: int64 (windows,).

    """

    def __init__(self, offsets: Lengths, lengths: Lengths) -> None:
        self._lengths = lengths
        self._window = np.repeat(np.arange(len(lengths)), np.diff(offsets))
        self._inside = np.arange(offsets[-1]) >= (offsets[1:] - lengths)[self._window]

    def lists(self, values: NDArray[Any]) -> pa.ListArray:
        """Values of each target's tokens: lists (windows,)."""
        ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(self._lengths, dtype=np.int64)])
        return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), pa.array(values[self._inside]))

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum over each target's tokens: float64 (windows,)."""
        return self._sums(values, self._inside)

    def sums_before(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum over the tokens before each target: float64 (windows,)."""
        return self._sums(values, ~self._inside)

    def _sums(self, values: NDArray[np.float64], counted: NDArray[Any]) -> NDArray[np.float64]:
        sums = np.bincount(self._window[counted], values[counted], minlength=len(self._lengths))
        return sums.astype(np.float64)
