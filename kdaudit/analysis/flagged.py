"""flagged.parquet: the flagged examples with their text, and why each is flagged.

In a screening only this file, kept/ and the full report hold training text; screen.json holds none. The file
is private: `kdaudit.pipelines.stages.flagging` writes it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kdaudit.errors import RunStateError, reason
from kdaudit.runs import layout
from kdaudit.runs.files import open_regular

_OPEN = ("example_id", "copies", "risk", "memorized_by", "reason")
_PRIVATE = ("document_id", "offset", "text")


class FlaggedPlace(NamedTuple):
    """A flagged example's text and its first place."""

    document_id: str
    offset: int
    """Of its first token, in tokens from the document's start."""
    text: str


class FlaggedExample(NamedTuple):
    """A flagged example."""

    example_id: int
    copies: int
    risk: float | None
    memorized_by: list[str]
    reason: str
    place: FlaggedPlace | None
    """None if it was not asked for."""


def read_worst(folder: Path, most: int, *, private: bool) -> list[FlaggedExample]:
    """Flagged examples by descending risk (unknown last), then by descending copies.

    Args:
        folder: the screening's output.
        most: how many.
        private: whether to read text and document ids at all.

    Raises:
        RunStateError: flagged.parquet is missing or damaged.

    """
    path = folder / layout.FLAGGED
    try:
        with open_regular(path) as file:
            order = pq.read_table(file, columns=["example_id", "risk", "copies"])
            worst = _worst(order, most)
            columns = [*_OPEN, *(_PRIVATE if private else ())]
            rows = (
                pq.read_table(file, columns=columns, filters=[("example_id", "in", worst)]) if worst else None
            )
    except (OSError, KeyError, pa.ArrowException) as error:
        raise RunStateError(
            f"{path}: cannot be read ({reason(error)})", fix="run `kdaudit screen` again to finish or fix it"
        ) from error
    found = {} if rows is None else {row["example_id"]: row for row in rows.to_pylist()}
    return [_example(found[one]) for one in worst]


def _worst(order: pa.Table, most: int) -> list[int]:
    ids, copies = order["example_id"].to_numpy(), order["copies"].to_numpy()
    risk = order["risk"].fill_null(-1.0).to_numpy()
    worst: list[int] = ids[np.lexsort((ids, -copies.astype(np.int64), -risk))][:most].tolist()
    return worst


def _example(row: dict[str, Any]) -> FlaggedExample:
    place = FlaggedPlace(**{name: row[name] for name in _PRIVATE}) if "text" in row else None
    return FlaggedExample(**{name: row[name] for name in _OPEN}, place=place)
