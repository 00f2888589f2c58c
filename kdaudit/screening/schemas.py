"""The Arrow types of a corpus that declares none: what it takes to write json, csv or txt as parquet."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from typing import Any

import pyarrow as pa

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus.records import Fields, read_fields
from kdaudit.errors import UsageError, reason

ARROW_ERRORS = (pa.ArrowException, OverflowError, UnicodeError)
"""What pyarrow raises for values that fit no type, or not the one asked for."""
_ROWS = 1024
"""Rows whose types are found together."""


def arrow_schema(config: CorpusConfig, key: str = "corpus", *, most: int | None = None) -> pa.Schema | None:
    """The schema that holds every row of a corpus of json, csv or txt; it takes a pass over the rows.

    Columns stand in order of first appearance. Numbers of which but some are whole become doubles; the values
    of a csv are strings, as they are written there.

    Args:
        config: the corpus section.
        key: where the section stands in the configuration, for messages.
        most: look at so many rows alone; columns of which these hold empty objects alone are let through.

    Returns:
        The schema, or None for a corpus that declares its types.

    Raises:
        UsageError: no schema holds every row.
        CorpusError: the source cannot be found or read.

    """
    rows = read_fields(config, key)
    if rows is None:
        return None
    rows = itertools.islice(rows, most)
    schema, first = pa.schema([]), 1
    while group := list(itertools.islice(rows, _ROWS)):
        try:
            schema = _unified(schema, group, config)
        except ARROW_ERRORS as error:
            row, why = _culprit(schema, group, config, error)
            raise no_schema(config, why, first + row) from error
        first += len(group)
    for field in schema:
        if most is None and _has_empty_struct(field.type):
            raise no_schema(config, ValueError(f"{field.name!r} holds empty objects alone"))
    return schema


def no_schema(config: CorpusConfig, error: Exception, row: int | None = None) -> UsageError:
    """What to say where rows fit no one schema; `row` is the first that does not fit, from 1."""
    where = "" if row is None else f"from row {row} on: "
    return UsageError(
        f"the rows of {config.path} do not fit the one type a column that parquet needs "
        f"({where}{reason(error)})",
        fix="set format to jsonl",
        key="format",
    )


def _unified(schema: pa.Schema, rows: list[Fields], config: CorpusConfig) -> pa.Schema:
    return pa.unify_schemas([schema, _schema(rows, config)], promote_options="permissive")


def _culprit(
    schema: pa.Schema, rows: list[Fields], config: CorpusConfig, error: Exception
) -> tuple[int, Exception]:
    """Index of the first row that does not fit those before it, and why; `error` says why all do not."""
    fit, all_fit = 0, len(rows)  # rows[:fit] fit and rows[:all_fit] do not
    while all_fit - fit > 1:
        half = (fit + all_fit) // 2
        try:
            _unified(schema, rows[:half], config)
            fit = half
        except ARROW_ERRORS as nearer:
            all_fit, error = half, nearer
    return fit, error


def _schema(rows: list[Fields], config: CorpusConfig) -> pa.Schema:
    columns = dict.fromkeys(name for row in rows for name in row)
    return pa.schema([(name, _type(name, rows, config)) for name in columns])


def _type(name: str, rows: Iterable[Fields], config: CorpusConfig) -> Any:  # noqa: ANN401 - a pyarrow type
    if name == config.text and not config.has_answers:
        return pa.string()
    try:
        return pa.array([row.get(name) for row in rows]).type
    except ARROW_ERRORS as error:
        raise pa.ArrowTypeError(f"{name!r}: {reason(error)}") from error


def _has_empty_struct(kind: Any) -> bool:  # noqa: ANN401 - a pyarrow type
    """Whether a type holds a struct without fields, which parquet cannot."""
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_has_empty_struct(field.type) for field in kind)
    return bool(pa.types.is_list(kind)) and _has_empty_struct(kind.value_type)
