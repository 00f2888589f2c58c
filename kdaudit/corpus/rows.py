"""What every reader gives: rows, and the checks and messages that all readers share."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NamedTuple

from kdaudit.config.audit import CorpusConfig
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


def check_columns(config: CorpusConfig, key: str, where: object, columns: Iterable[str]) -> None:
    """Check that the configured text and id columns are among `columns`, once each.

    Raises:
        CorpusError: names the missing column, those that there are, and the nearest; or the repeated one.
    """
    names = list(columns)
    for field, wanted in (("text", config.text), ("id", config.id)):
        if wanted is None or names.count(wanted) == 1:
            continue
        if wanted in names:
            raise CorpusError(
                f"{where} has several columns {wanted!r}",
                fix="rename all but the one to read",
                key=f"{key}.{field}",
            )
        near = difflib.get_close_matches(wanted, names, n=1)
        there = ", ".join(map(repr, names)) or "none"
        raise CorpusError(
            f"{where} has no column {wanted!r} but {there}",
            fix=f"did you mean {near[0]!r}?" if near else f"set {key}.{field} to one of them",
            key=f"{key}.{field}",
        )


def wanted_columns(config: CorpusConfig) -> list[str]:
    """The columns that are read: text, and id where one is named."""
    return list(dict.fromkeys([config.text, *([config.id] if config.id is not None else [])]))
