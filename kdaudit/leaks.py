"""leaks.parquet: the text of each leak, and what every audited model said there.

This file and the full report are where leaked text lies; results.json names the same leaks by id
and holds no text. It is private: write it with `kdaudit.files.replacing(path, private=True)`.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from kdaudit.errors import RunStateError
from kdaudit.files import open_regular

LEAKS_FILE = "leaks.parquet"

LEAKS_SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),
        ("document_id", pa.string()),
        ("offset", pa.int32()),
        ("copies", pa.int32()),
        ("text", pa.string()),
        ("prefix", pa.string()),
        ("suffix", pa.string()),
        (
            "models",
            pa.list_(
                pa.struct(
                    [("name", pa.string()), ("matched_tokens", pa.int16()), ("continuation", pa.string())]
                )
            ),
        ),
        ("classes", pa.list_(pa.struct([("student", pa.string()), ("class", pa.string())]))),
        ("risk", pa.float64()),
        ("tags", pa.list_(pa.string())),
    ]
)
"""One row an example that a student memorized; `models` holds every audited model, memorizing or not."""

_COLUMNS = ["example_id", "offset", "prefix", "suffix", "models"]


class Continuation(NamedTuple):
    """What one model says after a leak's prefix."""

    model: str
    matched_tokens: int
    """Suffix tokens reproduced before the first difference."""
    text: str
    """Its greedy continuation."""


class LeakText(NamedTuple):
    """A leak's text."""

    offset: int
    """Where the window starts in its document, in tokens."""
    prefix: str
    suffix: str
    continuations: list[Continuation]


def read_leak_texts(run_dir: Path, example_ids: Iterable[int]) -> dict[int, LeakText]:
    """The texts of the named leaks, by example id.

    Raises:
        RunStateError: leaks.parquet is missing, damaged, or lacks one of the examples.
    """
    wanted = list(example_ids)
    path = run_dir / LEAKS_FILE
    if not wanted:
        return {}
    try:
        with open_regular(path) as file:
            table = pq.read_table(file, columns=_COLUMNS, filters=[("example_id", "in", wanted)])
    except (OSError, KeyError, pa.ArrowException) as error:
        reason = str(error).partition("\n")[0]
        raise RunStateError(
            f"{path}: cannot be read ({reason}); run `kdaudit run` again to finish or mend the audit"
        ) from error
    texts = {row["example_id"]: _leak_text(row) for row in table.to_pylist()}
    missing = [example_id for example_id in wanted if example_id not in texts]
    if missing:
        raise RunStateError(
            f"{path}: example {missing[0]} of results.json is not in it; run `kdaudit verify` to see which "
            "file was changed"
        )
    return texts


def _leak_text(row: dict[str, Any]) -> LeakText:
    said = [Continuation(one["name"], one["matched_tokens"], one["continuation"]) for one in row["models"]]
    return LeakText(row["offset"], row["prefix"], row["suffix"], said)
