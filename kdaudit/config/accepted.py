"""accepted.yaml: leaks that are known and tolerated, each with a reason and a last day; read and added to.

    - example: 1f0c9a3e-5be1...      # as `kdaudit accept` writes it
      reason: the MIT licence, which stands in thousands of repositories
      until: 2027-06-30
    - example: {document: LICENSE-2.0, offset: 0}
      reason: ...
      until: 2027-06-30

What is added goes through ruamel.yaml's round trip, which keeps comments, quotes and order; the new text is
read back and compared before it takes the old one's place.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from datetime import date, datetime
from io import StringIO
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, NonNegativeInt, ValidationError
from ruamel.yaml import YAML

from kdaudit.config.section import Section
from kdaudit.config.yaml.document import YamlDocument, dotted, parse_document, read_document
from kdaudit.config.yaml.messages import problems
from kdaudit.config.yaml.misfit import MisfitError
from kdaudit.config.yaml.schema import shape_of
from kdaudit.errors import ConfigError

MOST_BYTES = 4 << 20
"""Some 25,000 entries."""
_MOST_NODES = 250_000
_HASH = re.compile(r"[0-9a-f]{8}-[0-9a-f]{64}")
_LONGEST_REASON = 500


class DocumentPlace(Section):
    """A leak by the place where it stands, for a file that is written by hand."""

    document: Annotated[str, Field(min_length=1)]
    """The document's id, as the full report shows it."""
    offset: NonNegativeInt | None = None
    """The leak's first token in it; null accepts all leaks of the document, also later ones."""


def _hash_or_place(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    if isinstance(value, str) and not _HASH.fullmatch(value):
        raise MisfitError(
            "is not a hash as `kdaudit accept` writes it",
            fix="let `kdaudit accept RUN_DIR --leak N` write it, or give {document: ID, offset: N}",
        )
    return value


def checked_reason(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    """Refuse a reason that says nothing, or that does not look like a person's sentence."""
    if isinstance(value, str):
        if not value.strip():
            raise MisfitError("is empty text", fix="say why these leaks are tolerated")
        if len(value) > _LONGEST_REASON or not value.replace("\n", " ").isprintable():
            raise MisfitError(
                f"is over {_LONGEST_REASON} characters, or holds some that cannot be printed",
                fix="say it in a sentence or two",
            )
    return value


def day_of(value: Any) -> Any:  # noqa: ANN401 - raw YAML
    """A date that YAML or a person wrote as text."""
    if isinstance(value, str | datetime):
        try:
            return date.fromisoformat(str(value))
        except ValueError:
            raise MisfitError(f"{str(value)[:40]!r} is not a date", fix="write it as 2027-06-30") from None
    return value


class AcceptedLeak(Section):
    """An entry: one leak, or those of one document."""

    example: Annotated[
        Annotated[str, Field(pattern=f"^{_HASH.pattern}$")] | DocumentPlace, BeforeValidator(_hash_or_place)
    ]
    """The keyed hash of prefix and suffix, or a place."""
    reason: Annotated[str, BeforeValidator(checked_reason)]
    """Why it is tolerated. Do not quote the leak: this file is often shared with the code."""
    until: Annotated[date, BeforeValidator(day_of)]
    """The last day on which it is."""


class _File(Section):
    entries: Annotated[tuple[AcceptedLeak, ...], Field(strict=False)]


def read_accepted(path: Path) -> list[AcceptedLeak]:
    """The entries of a file, in its order; none of an empty one.

    Raises:
        ConfigError: it cannot be read, or an entry is wrong; it names the line.

    """
    return _entries(read_document(path, MOST_BYTES, _MOST_NODES))


def _entries(document: YamlDocument) -> list[AcceptedLeak]:
    data = {"entries": [] if document.data is None else document.data}
    if not isinstance(data["entries"], list):
        raise ConfigError(
            "holds keys or a single value instead of a list",
            fix="begin each entry with `- example:`",
            where=document.label,
        )
    try:
        return [*_File.model_validate(data).entries]
    except ValidationError as error:
        raise _together(error, data, document) from None


def _together(error: ValidationError, data: dict[str, Any], document: YamlDocument) -> ConfigError:
    """One error of all problems; keys begin with the entry's row, from 1, as results name it."""
    found = problems(error, data, shape_of(_File), lambda key: document.written(key[1:]))
    wrong = []
    for problem in found:
        row, *rest = problem.key[1:]
        line = document.line(problem.key[1:])
        wrong.append(
            ConfigError(
                problem.what,
                fix=problem.fix,
                key=dotted((f"entry {int(row) + 1}", *rest)),
                where=f"{document.label}:{line}",
            )
        )
    first, *more = wrong
    first.more = tuple(more)
    return first


def with_entries(path: Path, added: Sequence[AcceptedLeak]) -> str:
    """The text of a file, which may not be there yet, with entries added at its end.

    An entry of an example that the file has already takes that one's place: a new reason and last day.

    Raises:
        ConfigError: the file cannot be read, or ruamel.yaml would change what else stands in it.

    """
    there = os.path.lexists(path)
    before = read_accepted(path) if there else []
    text = path.read_text("utf-8-sig") if there else ""
    after = _merged(before, added)
    written = _written(text, before, added)
    if _entries(parse_document(written, str(path), _MOST_NODES)) != after:
        raise ConfigError(
            f"{path}: entries cannot be added without changing others",
            fix="write it as a plain list, or give --out another file",
        )
    return written


def _merged(before: Sequence[AcceptedLeak], added: Sequence[AcceptedLeak]) -> list[AcceptedLeak]:
    renewed = {entry.example: entry for entry in added if isinstance(entry.example, str)}
    kept = [renewed.pop(one.example, one) if isinstance(one.example, str) else one for one in before]
    return [*kept, *renewed.values()]


def _written(text: str, before: Sequence[AcceptedLeak], added: Sequence[AcceptedLeak]) -> str:
    """The text with the entries added, comments and order kept."""
    root = parse_document(text, "", _MOST_NODES).root
    yaml = YAML(pure=True)
    yaml.preserve_quotes = True
    yaml.width = 1 << 20  # never fold a long text
    offset = 0 if root is None else root.start_mark.column
    yaml.indent(mapping=2, sequence=offset + 2, offset=offset)
    entries = None if root is None else yaml.load(text)
    places = {one.example: row for row, one in enumerate(before) if isinstance(one.example, str)}
    new = []
    for entry in added:
        values = entry.model_dump()
        values["until"] = date.fromordinal(entry.until.toordinal())  # one shared date would become an alias
        if entries is not None and entry.example in places:
            entries[places[entry.example]].update(values)
        else:
            new.append(values)
    out = StringIO()
    if entries is None:  # nothing but comments, which a round trip would drop
        lead = text if not text or text.endswith("\n") else f"{text}\n"
        yaml.dump(new, out)
        return lead + out.getvalue()
    entries.extend(new)
    yaml.dump(entries, out)
    return out.getvalue()
