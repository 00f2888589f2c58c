"""leaks.parquet: the text of each leak, and every audited model's continuation.

Only this file and the full report hold leaked text; results.json names the same leaks by id.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from kdaudit.errors import RunStateError, reason
from kdaudit.runs import layout
from kdaudit.runs.files import open_regular


class Continuation(NamedTuple):
    """One model's continuation of a leak's prefix."""

    name: str
    """The model's."""
    matched_tokens: int
    """Suffix tokens reproduced before the first difference."""
    continuation: str
    """Greedy."""
    expected_queries: float | None = None
    """Samples until one is the suffix, on average; infinite where none can be, None where it is not known."""


class LeakText(NamedTuple):
    """The columns of leaks.parquet that the reports use."""

    example_id: int
    offset: int
    """Where the window starts in its document, in tokens."""
    prefix: str
    suffix: str
    models: list[Continuation]


class LeakSpan(NamedTuple):
    """The text of a leak alone."""

    example_id: int
    prefix: str
    suffix: str


_Row = TypeVar("_Row", LeakText, LeakSpan)


def read_leak_table(run_dir: Path) -> pa.Table:
    """What leaks are matched by, of all leaks: ids, places, texts and tags.

    Raises:
        RunStateError: it is missing or damaged.
    """
    path = run_dir / layout.LEAKS
    try:
        with open_regular(path) as file:
            return pq.read_table(
                file, columns=["example_id", "document_id", "offset", "prefix", "suffix", "tags"]
            )
    except (OSError, pa.ArrowException) as error:
        raise RunStateError(
            f"{path}: cannot be read ({reason(error)})",
            fix="run `kdaudit run` again to finish or fix the audit",
        ) from error


def read_leak_texts(run_dir: Path, example_ids: Iterable[int]) -> dict[int, LeakText]:
    """The texts of the named leaks and what each model said, by example id.

    Raises:
        RunStateError: leaks.parquet is missing, damaged, or lacks one of the examples.
    """
    return _read(run_dir, example_ids, LeakText)


def read_leak_spans(run_dir: Path, example_ids: Iterable[int]) -> dict[int, LeakSpan]:
    """The texts of the named leaks, by example id; errors as for `read_leak_texts`."""
    return _read(run_dir, example_ids, LeakSpan)


def _read(run_dir: Path, example_ids: Iterable[int], kind: type[_Row]) -> dict[int, _Row]:
    wanted = list(example_ids)
    path = run_dir / layout.LEAKS
    if not wanted:
        return {}
    columns = list(kind._fields)
    try:
        with open_regular(path) as file:
            table = pq.read_table(file, columns=columns, filters=[("example_id", "in", wanted)])
        texts = {row.example_id: row for row in map(TypeAdapter(kind).validate_python, table.to_pylist())}
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise RunStateError(
            f"{path}: cannot be read ({_reason(error)})",
            fix="run `kdaudit run` again to finish or fix the audit",
        ) from error
    missing = [example_id for example_id in wanted if example_id not in texts]
    if missing:
        raise RunStateError(
            f"{path}: example {missing[0]} of results.json is not in it",
            fix="run `kdaudit verify` to see which file was changed",
        )
    return texts


def _reason(error: Exception) -> str:
    """What is wrong, without values of the file."""
    if not isinstance(error, ValidationError):
        return reason(error)
    first = error.errors(include_input=False, include_url=False)[0]
    return f"column {first['loc'][0]}: {first['msg']}"
