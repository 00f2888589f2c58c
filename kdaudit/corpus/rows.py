"""What every reader gives: rows, and the checks and messages that all readers share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus.conversations import (
    TOOLS,
    Conversation,
    Flaw,
    Misplaced,
    columns_of,
    conversation_of,
    layouts_in,
)
from kdaudit.errors import CorpusError


class Place(NamedTuple):
    """A file, or a dataset on the hub, and the key of the configuration that names it."""

    key: str
    name: object

    def error(self, what: str, *, fix: str, line: int | None = None) -> CorpusError:
        """An error about it, or about one of its lines, from 1."""
        where = f"{self.name}" if line is None else f"{self.name}, line {line}"
        return CorpusError(f"{where}: {what}", fix=fix, key=self.key)


class Row(NamedTuple):
    """One row of a source, before it is known to hold usable text."""

    text: str | bytes | None
    """Bytes are UTF-8 that nobody has checked yet; a string may hold lone surrogates."""
    id: object = None
    """The id column's value; None where there is no such column or no value."""
    conversation: Conversation | Flaw | None = None
    """What the row asks and answers, or why it does not, where that is read in place of a text: then `text`
    is what was said in it."""


def check_columns(config: CorpusConfig, key: str, where: object, columns: Iterable[str]) -> None:
    """Check that the configured columns are among `columns`, once each.

    Raises:
        CorpusError: names the missing column, those that there are, and the nearest; or the repeated one.
    """
    names = list(columns)
    if not names:
        raise CorpusError(
            f"{where}: its rows have no columns",
            fix='each row must be an object such as {"text": "..."}',
            key=f"{key}.path",
        )
    wanted_by_field = [(field, name) for field, held in columns_of(config).items() for name in held]
    for field, wanted in [*wanted_by_field, ("id", config.id)]:
        if wanted is None or names.count(wanted) == 1:
            continue
        if wanted in names:
            raise CorpusError(
                f"{where} has several columns {wanted!r}",
                fix="rename all but the one to read",
                key=f"{key}.{field}",
            )
        if field == "text" and "text" not in config.model_fields_set:
            _name_layouts(key, where, names)
        near = difflib.get_close_matches(wanted, names, n=1)
        there = ", ".join(map(repr, names)) or "none"
        raise CorpusError(
            f"{where} has no column {wanted!r} but {there}",
            fix=f"did you mean {near[0]!r}?" if near else f"set {key}.{field} to one of them",
            key=f"{key}.{field}",
        )


def _name_layouts(key: str, where: object, names: list[str]) -> None:
    """Raise a CorpusError that says what to write, where columns look like prompts and answers."""
    layouts = layouts_in(names)
    if not layouts:
        return
    there = ", ".join(map(repr, names))
    if len(layouts) == 1:
        raise CorpusError(
            f"{where} has no column 'text' but {there}, which look like prompts and answers",
            fix=f"write {layouts[0]} under {key} in place of text",
            key=f"{key}.text",
        )
    raise CorpusError(
        f"{where} has no column 'text' but {there}, which could be prompts and answers in "
        f"{len(layouts)} ways",
        fix=f"write one of them under {key} in place of text: {', or '.join(layouts)}",
        key=f"{key}.text",
    )


def wanted_columns(config: CorpusConfig, there: Iterable[str] = ()) -> list[str]:
    """The columns that are read: text, or prompts and answers; id where one is named; tools, if there."""
    named = [name for held in columns_of(config).values() for name in held]
    tools = [TOOLS] if config.has_answers and TOOLS in there else []
    return list(dict.fromkeys([*named, *([config.id] if config.id is not None else []), *tools]))


def row_of(fields: Mapping[str, Any], config: CorpusConfig, key: str, where: str) -> Row:
    """A row of prompts and answers.

    Args:
        fields: its values by column.
        config: the corpus section.
        key: where the section stands in the configuration.
        where: file and line, or row, for messages.

    Raises:
        CorpusError: a value is of another type than its column should hold.

    """
    found = conversation_of(fields, config, Misplaced(key, where))
    text = found.text if isinstance(found, Conversation) else None
    return Row(text, fields.get(config.id) if config.id is not None else None, found)
