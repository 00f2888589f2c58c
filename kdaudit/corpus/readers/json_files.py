"""Objects of json files: one a line, or the elements of one array, read piece by piece.

Python's own `json` reads them: the json readers of `datasets` and pyarrow turn dates into timestamps, fail a
whole file for one lone surrogate, and name a row within a block instead of the line.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from kdaudit.corpus.readers.json_shapes import HEAD_BYTES, explain, hint, kind_of
from kdaudit.corpus.readers.streams import MAX_DOCUMENT, MAX_DOCUMENT_BYTES, lines, reading, without_mark
from kdaudit.corpus.rows import Place
from kdaudit.errors import CorpusError

_SPACE = re.compile(r"[ \t\r\n\ufeff]*")
_CHUNK = 1 << 20


class Object(NamedTuple):
    """A json object or csv record, and where it stands."""

    fields: dict[str, Any]
    place: str


def jsonl_objects(file: Path, key: str) -> Iterator[Object]:
    """The objects of a file of json lines.

    Raises:
        CorpusError: the file cannot be read, or a line does not hold one object.
    """
    with reading(file, key) as handle:
        for number, text in _texts(handle, Place(f"{key}.path", file)):
            yield _as_object(_of_line(text, file, key, number), file, key, number)


def _texts(handle: io.BufferedReader, place: Place) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers."""
    for number, line in enumerate(lines(handle, place), start=1):
        text = without_mark(line).decode("utf-8", "surrogateescape")
        if not text.isspace() and text:
            yield number, text


def json_objects(file: Path, key: str) -> Iterator[Object]:
    """The objects of a .json file, which holds json lines or one array of objects.

    Raises:
        CorpusError: as `jsonl_objects`.
    """
    with reading(file, key) as handle:
        array = _Array(handle, file, key)
        if not array.begins:
            yield from jsonl_objects(file, key)
            return
        for row, value in enumerate(array):
            yield _as_row(value, file, key, f"row {row}")


def _of_line(text: str, file: Path, key: str, number: int) -> Any:  # noqa: ANN401 - any json value
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        _explain_the_file(file, key)
        cut = not text.endswith(("\n", "\r"))  # only the last line of a file has no end
        why = hint(text, error, last=cut) or f"{error.msg}, column {error.colno}"
    except RecursionError:
        why = "nested too deeply"
    except ValueError as error:  # an integer of thousands of digits
        why = str(error)
    raise Place(f"{key}.path", file).error(
        f"is not valid json ({why})", fix="correct or remove the line", line=number
    )


def _as_object(value: object, file: Path, key: str, number: int) -> Object:
    if not isinstance(value, dict):
        _explain_the_file(file, key)
    return _as_row(value, file, key, f"line {number}")


def _explain_the_file(file: Path, key: str) -> None:
    """Raise a CorpusError that says what the file is, if it is not a file of json lines."""
    with reading(file, key) as handle:
        head = handle.read(HEAD_BYTES)
        whole = not handle.read(1)
    found = explain(head.decode("utf-8", "surrogateescape"), whole=whole)
    if found is not None:
        raise Place(f"{key}.path", file).error(found.what, fix=found.fix)


def _as_row(value: object, file: Path, key: str, place: str) -> Object:
    if not isinstance(value, dict):
        raise CorpusError(
            f"{file}, {place}: holds a {kind_of(value)}, not an object",
            fix='each row must be an object such as {"text": "..."}',
            key=f"{key}.path",
        )
    return Object(value, place)


class _Array:
    """The elements of an array; a window over the file is held, of twice an element's size at most.

    Raises:
        CorpusError: it is broken, or an element is larger than `MAX_DOCUMENT`; while it is read.
    """

    def __init__(self, handle: io.BufferedReader, file: Path, key: str) -> None:
        self._handle = handle
        self._place = Place(f"{key}.path", file)
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._parser = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._line = 1
        """Of the first character of `_text`."""
        self._ended = False
        self.begins = self._next() == "["
        """Whether the file holds an array."""

    def __iter__(self) -> Iterator[Any]:
        self._at += 1
        rows = 0
        while (sign := self._next()) != "]":
            if rows and sign != ",":
                raise self._broken(
                    f"row {rows - 1} is followed by {sign!r}, not by a comma"
                    if sign
                    else "the array is not closed"
                )
            if rows:
                self._at += 1
                if self._next() == "]":
                    raise self._broken("a comma stands before the closing ]")
            yield self._element()
            rows += 1
        self._at += 1
        behind = self._next()
        if behind == "[":
            raise self._place.error(
                "another json array begins",
                fix="join the arrays, as in `jq -c '.[]' FILE > NEW.jsonl`",
                line=self._here(),
            )
        if behind.strip("\0"):
            raise self._broken("text stands behind the array")

    def _next(self) -> str:
        """The next character that is not white space, which is not taken; '' at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or not self._more():
                return self._text[self._at : self._at + 1]

    def _element(self) -> Any:  # noqa: ANN401 - any json value
        while True:
            try:
                value, end = self._parser.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                self._refuse_large(len(self._text))
                if not self._more():
                    why = hint(self._text, error, last=True) or f"{error.msg}, column {error.colno}"
                    raise self._broken(why, error.pos) from error
            except RecursionError:
                raise self._broken("nested too deeply") from None
            except ValueError as error:  # an integer of thousands of digits
                raise self._broken(str(error)) from error
            else:
                self._refuse_large(end)
                self._at = end
                return value

    def _refuse_large(self, end: int) -> None:
        if end - self._at > MAX_DOCUMENT_BYTES:
            raise self._place.error(
                f"a row is larger than {MAX_DOCUMENT}, the most that one may hold, or is broken",
                fix="split it, or correct it",
                line=self._here(),
            )

    def _more(self) -> bool:
        """Take in as much again as is held; False at the end of the file."""
        if self._ended:
            return False
        chunk = self._handle.read(max(_CHUNK, len(self._text) - self._at))
        self._ended = not chunk
        self._line += self._text.count("\n", 0, self._at)
        self._text = self._text[self._at :] + self._decoder.decode(chunk, final=self._ended)
        self._at = 0
        return True

    def _here(self, at: int | None = None) -> int:
        return self._line + self._text.count("\n", 0, self._at if at is None else at)

    def _broken(self, why: str, at: int | None = None) -> CorpusError:
        return self._place.error(
            f"is not valid json ({why})",
            fix="correct or remove the line",
            line=self._here(at),
        )
