"""Leaks as they are found: written to leaks.parquet, counted, matched with accepted ones, the worst kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from kdaudit.analysis.accepted import LeakPlace, Matcher, acceptance
from kdaudit.analysis.leak_counts import LeakCounter
from kdaudit.analysis.leaks import BATCH_ROWS
from kdaudit.analysis.severity import Worst, severity
from kdaudit.pipelines.stages.leaks import LeakRow, leak_rows, parquet_row
from kdaudit.pipelines.stages.measured import Measurements
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import LEAKS_SCHEMA
from kdaudit.runs.store import RunStore
from kdaudit.schemas.accepted import AcceptedResult
from kdaudit.schemas.leak_counts import LeakCounts
from kdaudit.schemas.results import Leak, LeakSuffixes


class Leaked(NamedTuple):
    """What is known of all leaks."""

    worst: list[Leak]
    """The first `report.max_examples`, by example id."""
    counts: LeakCounts
    suffixes: LeakSuffixes
    tagged: Mapping[str, int]
    """Each student's leaks that have a tag and are not accepted."""
    accepted: AcceptedResult | None
    """None where the gate names no file of accepted leaks."""


def write_leaks(run: RunStore, measurements: Measurements) -> Leaked:
    """Write leaks.parquet.

    Raises:
        ConfigError: the file of accepted leaks cannot be used.

    """
    tally, rows = _Tally(measurements), leak_rows(run, measurements)
    with (
        run.writing(layout.LEAKS) as partial,
        pq.ParquetWriter(partial, LEAKS_SCHEMA, compression="zstd") as writer,
    ):
        for group in _groups(parquet_row(row, tally.add(row)) for row in rows):
            writer.write_table(pa.Table.from_pylist(group, schema=LEAKS_SCHEMA))
    return tally.leaked()


def _groups(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """The rows, so many together as a row group holds."""
    while group := [*islice(rows, BATCH_ROWS)]:
        yield group


class _Tally:
    """Takes leaks one by one."""

    def __init__(self, measurements: Measurements) -> None:
        students = [student.name for student in measurements.models.students]
        self._counter = LeakCounter(students, measurements.prediction.result.threshold)
        self._worst = Worst(measurements.config.report.max_examples, severity)
        self._suffixes: set[bytes] = set()
        self._own_suffixes: dict[str, set[bytes]] = {name: set() for name in students}
        self._tagged = dict.fromkeys(students, 0)
        file = measurements.config.gate.accept
        self._matcher = None if file is None else Matcher(acceptance(Path(file)))

    def add(self, row: LeakRow) -> Leak:
        """Take in a leak; give it as results hold it."""
        leak = row.leak
        if self._matcher is not None:
            place = LeakPlace(
                leak.example_id,
                leak.document_id,
                row.text["offset"],
                row.text["prefix"],
                row.text["suffix"],
                leak.tags,
            )
            leak = leak.model_copy(update={"accepted": self._matcher.add(place)})
        self._counter.add(leak)
        self._worst.add(leak)
        self._count_text(leak)
        return leak

    def _count_text(self, leak: Leak) -> None:
        suffix = bytes.fromhex(leak.suffix_hmac)
        self._suffixes.add(suffix)
        for student in leak.classes:
            self._own_suffixes[student].add(suffix)
            self._tagged[student] += bool(leak.tags) and not leak.accepted

    def leaked(self) -> Leaked:
        """What was found."""
        own = {name: len(texts) for name, texts in self._own_suffixes.items()}
        return Leaked(
            sorted(self._worst.kept(), key=lambda leak: leak.example_id),
            self._counter.counts(),
            LeakSuffixes(leaks=len(self._suffixes), students=own),
            self._tagged,
            None if self._matcher is None else self._matcher.result(),
        )
