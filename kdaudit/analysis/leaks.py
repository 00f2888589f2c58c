"""leaks.parquet: the text of each leak, and every audited model's continuation.

Only this file and the full report hold leaked text. results.json names the first leaks by id and counts all;
where there are more, they are read from here. Whatever is read, memory holds some rows of it at a time.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from kdaudit.analysis.leak_counts import leak_counts_of
from kdaudit.errors import RunStateError, reason
from kdaudit.runs import layout
from kdaudit.runs.files import open_regular
from kdaudit.schemas.results import AuditResults, Leak

BATCH_ROWS = 1024
"""Leaks of a row group, and leaks read together: some megabytes."""
PLACES = ("example_id", "document_id", "offset", "prefix", "suffix", "tags")
"""Columns that accepted leaks are matched by."""
_CLASSES = TypeAdapter(dict[str, list[dict[str, str]]])
"""Of the column of that name, by which errors are told."""


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


def leak_batches(run_dir: Path, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """Columns of leaks.parquet, at most BATCH_ROWS rows at a time.

    Raises:
        RunStateError: it is missing or damaged, or lacks a column.
    """
    path = run_dir / layout.LEAKS
    try:
        with open_regular(path) as file, pq.ParquetFile(file) as stored:
            if missing := [name for name in columns if name not in stored.schema_arrow.names]:
                raise _unread(path, f"it has no column {missing[0]}")
            yield from stored.iter_batches(BATCH_ROWS, columns=[*columns], use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise _unread(path, reason(error)) from error


def read_leaks(run_dir: Path, results: AuditResults) -> Iterator[Leak]:
    """All leaks of a run by example id: those that results.json lists, or the file's where it lists some.

    Raises:
        RunStateError: leaks.parquet is missing or damaged, or does not hold as many as results.json counts.
    """
    total, found = leak_counts_of(results).leaks, 0
    if total == len(results.leaks):
        yield from sorted(results.leaks, key=lambda leak: leak.example_id)
        return
    for batch in leak_batches(run_dir, [*Leak.model_fields]):
        found += len(batch)
        yield from (_leak(run_dir, row) for row in batch.to_pylist())
    if found != total:
        raise RunStateError(
            f"{run_dir / layout.LEAKS}: holds {found:,} leaks, and results.json counts {total:,}",
            fix="run `kdaudit verify` to see which file was changed",
        )


def _leak(run_dir: Path, row: dict[str, object]) -> Leak:
    try:
        listed = _CLASSES.validate_python({"classes": row["classes"]})["classes"]
        return Leak.model_validate(row | {"classes": {one["student"]: one["class"] for one in listed}})
    except (KeyError, ValidationError) as error:
        raise _unread(run_dir / layout.LEAKS, _reason(error)) from error


def read_leak_texts(run_dir: Path, example_ids: Iterable[int]) -> dict[int, LeakText]:
    """The texts of the named leaks and what each model said, by example id.

    Raises:
        RunStateError: leaks.parquet is missing, damaged, or lacks one of the examples.
    """
    wanted = list(example_ids)
    texts = {row.example_id: row for row in _rows(run_dir, LeakText, wanted)} if wanted else {}
    _refuse_missing(run_dir, wanted, texts)
    return texts


def _rows(run_dir: Path, kind: type[_Row], wanted: Collection[int] | None) -> Iterator[_Row]:
    """Rows of the file as `kind`: those of the wanted examples, or all."""
    path, adapter = run_dir / layout.LEAKS, TypeAdapter(kind)
    for batch in leak_batches(run_dir, kind._fields):
        try:
            some = batch if wanted is None else batch.filter(pc.is_in(batch["example_id"], pa.array(wanted)))
            rows = [adapter.validate_python(row) for row in some.to_pylist()]
        except (ValueError, pa.ArrowException) as error:
            raise _unread(path, _reason(error)) from error
        yield from rows


class LeakWithSpan(NamedTuple):
    """A leak, and its text."""

    leak: Leak
    span: LeakSpan


def read_leaks_with_spans(run_dir: Path, results: AuditResults) -> Iterator[LeakWithSpan]:
    """All leaks of a run with their texts, in the file's order.

    Raises:
        RunStateError: leaks.parquet is missing, damaged, or does not fit results.json.
    """
    spans = _rows(run_dir, LeakSpan, None)
    if leak_counts_of(results).leaks != len(results.leaks):
        yield from map(LeakWithSpan, read_leaks(run_dir, results), spans)
        return
    by_id = {leak.example_id: leak for leak in results.leaks}
    for span in spans:
        if (leak := by_id.pop(span.example_id, None)) is not None:
            yield LeakWithSpan(leak, span)
    _refuse_missing(run_dir, by_id, ())


def _refuse_missing(run_dir: Path, wanted: Iterable[int], there: Container[int]) -> None:
    missing = [example_id for example_id in wanted if example_id not in there]
    if missing:
        raise RunStateError(
            f"{run_dir / layout.LEAKS}: example {missing[0]} of results.json is not in it",
            fix="run `kdaudit verify` to see which file was changed",
        )


def _unread(path: Path, why: str) -> RunStateError:
    return RunStateError(
        f"{path}: cannot be read ({why})", fix="run `kdaudit run` again to finish or fix the audit"
    )


def _reason(error: Exception) -> str:
    """What is wrong, without values of the file."""
    if not isinstance(error, ValidationError):
        return reason(error)
    first = error.errors(include_input=False, include_url=False)[0]
    return f"column {first['loc'][0]}: {first['msg']}"
