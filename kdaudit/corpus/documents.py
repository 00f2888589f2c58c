"""Rows of any source -> documents, with counts of what was skipped and why."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import NamedTuple

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus.conversations import Conversation, Flaw, Why
from kdaudit.corpus.readers.encodings import likely_encoding, wide_encoding
from kdaudit.corpus.readers.tables import hub_rows, table_rows
from kdaudit.corpus.readers.text_files import text_rows
from kdaudit.corpus.rows import Place, Row
from kdaudit.corpus.sources import HubDataset, LocalFiles, Source, find_source
from kdaudit.errors import CorpusError

_MANY = 0.01
"""Share of rows that are not UTF-8 from which on a file is taken for one in another encoding."""
_SOME = 3
"""Fewer such rows may be damage."""
_CHECKED_EVERY = 1000
_SAMPLE_ROWS = 64
_SAMPLE_BYTES = 256
"""Of each row in the sample by which an encoding is told."""


class Answer(NamedTuple):
    """Where an answer stands in a conversation's text, in characters."""

    turn: int
    """Its place among the conversation's messages, from 0."""
    start: int
    """Where the assistant begins to answer: all before it is the prompt."""
    end: int
    """Behind what ends its message."""


class LeftOut(NamedTuple):
    """Rows that give no example, for one reason."""

    rows: int
    first: int
    """Number of the first of them, from 0."""
    what: str
    """What is wrong with that one, for people."""


class Document(NamedTuple):
    """One row with usable text."""

    id: str
    """The id column's value as a string; the row number where there is no such column or it is null."""
    text: str
    row: int
    """Number of the row in the corpus, from 0; skipped rows count too."""
    conversation: Conversation | None = None
    """Of a row that asks and answers."""
    answers: tuple[Answer, ...] = ()
    """Where the answers stand in the text, once the conversation was rendered."""


class Part(NamedTuple):
    """Rows that come from one place: a file, or a dataset on the hub."""

    place: str
    """As messages name it."""
    rows: Iterator[Row]


class Documents(Iterator[Document]):
    """Documents in corpus order; the counts grow as they are taken.

    Raises:
        CorpusError: so much of a part, or of all, is not UTF-8 that it must be text in another encoding;
            while documents are taken.
    """

    def __init__(self, parts: Iterator[Part], config: CorpusConfig, key: str) -> None:
        self._every = _Tally(Place(f"{key}.path", config.path))
        self._tally = self._every
        self._key = key
        self._rows = self._of_parts(parts)
        self._first = next(self._rows, None)
        self.rows = 0
        """Rows read so far, skipped ones included."""
        self.empty = 0
        """Rows whose text is null, empty or only white space."""
        self.undecodable = 0
        """Rows whose text is not valid Unicode: lone surrogates, bytes that are not UTF-8."""
        self.left_out: dict[Why, LeftOut] = {}
        """Rows of prompts and answers that give no example, by the reason."""

    def leave_out(self, flaw: Flaw, row: int) -> None:
        """Count a row that gives no example."""
        before = self.left_out.get(flaw.why, LeftOut(0, row, flaw.what))
        self.left_out[flaw.why] = before._replace(rows=before.rows + 1)

    @property
    def begun(self) -> bool:
        """Whether there is a row."""
        return self._first is not None or self.rows > 0

    def _of_parts(self, parts: Iterator[Part]) -> Iterator[Row]:
        for part in parts:
            self._tally = _Tally(Place(f"{self._key}.path", part.place))
            yield from part.rows
            self._tally.check()
            self._every.add(self._tally)
        self._every.check(whole=True)

    def __next__(self) -> Document:
        while True:
            row, self._first = self._first or next(self._rows), None
            number = self.rows
            self.rows += 1
            if isinstance(row.conversation, Flaw):
                self.leave_out(row.conversation, number)
                continue
            text = decoded(row.text)
            self._tally.count(row.text, text)
            if text is None:
                self.undecodable += 1
            elif not text or text.isspace():
                self.empty += 1
            else:
                return Document(_id(row.id, number), text, number, row.conversation)


class _Tally:
    """How much of some rows is not UTF-8, and what it may be instead.

    Args:
        place: where the rows come from, for messages.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._ascii = 0
        self._utf8 = 0
        """Rows of valid text that is not ASCII."""
        self._broken = 0
        """Rows of bytes that are not UTF-8; lone surrogates of json are no bytes, and count as ASCII."""
        self._sample: list[bytes] = []

    def count(self, raw: str | bytes | None, text: str | None) -> None:
        """Take in one row: as it came, and its text if it is valid."""
        if text is not None:
            self._ascii += text.isascii() and bool(text)
            self._utf8 += not text.isascii()
            return
        data = raw if isinstance(raw, bytes) else _bytes_behind(raw or "")
        if data is None:
            self._ascii += 1
            return
        self._broken += 1
        if len(self._sample) < _SAMPLE_ROWS:
            self._sample.append(data[:_SAMPLE_BYTES])
        if self._broken % _CHECKED_EVERY == 0:
            self.check()

    def add(self, other: _Tally) -> None:
        """Take in what another tally counted."""
        self._ascii += other._ascii
        self._utf8 += other._utf8
        self._broken += other._broken
        self._sample = (self._sample + other._sample)[:_SAMPLE_ROWS]

    def check(self, *, whole: bool = False) -> None:
        """Raise a CorpusError if this is text in another encoding; of a `whole` corpus if none is UTF-8."""
        rows = self._ascii + self._utf8 + self._broken
        many = self._broken >= max(_SOME, _MANY * rows) and self._broken > self._utf8
        if not many and not (whole and self._broken == rows > 0):
            return
        encoding = likely_encoding(self._sample)
        looks = f"it looks like {encoding}" if encoding else "its encoding could not be told"
        raise self._place.error(
            f"{self._broken:,} of {rows:,} rows with text are not UTF-8; {looks}",
            fix="save it as UTF-8, as in `iconv -f ENCODING -t UTF-8 FILE > NEW`, or remove those rows",
        )


def _bytes_behind(text: str) -> bytes | None:
    """The bytes that text was decoded from; None if it holds other surrogates than those of bytes."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return None


def open_documents(config: CorpusConfig, key: str = "corpus") -> Documents:
    """Open the corpus and read its first row, so that a wrong path, split or column shows at once.

    Args:
        config: the corpus section.
        key: where the section stands in the configuration, for messages.

    Raises:
        CorpusError: the source cannot be found or read, or has no rows; also later, while documents
            are taken, for a row or shard further on.
    """
    documents = Documents(_parts(find_source(config, key), config, key), config, key)
    if not documents.begun:
        raise CorpusError(
            f"{config.path}: holds no rows", fix="name a corpus that holds text", key=f"{key}.path"
        )
    return documents


def first_texts(config: CorpusConfig, key: str = "corpus", count: int = 32) -> list[str]:
    """Texts of the corpus's first documents.

    Raises:
        CorpusError: as `open_documents`.
    """
    return [document.text for document in itertools.islice(open_documents(config, key), count)]


def _parts(source: Source, config: CorpusConfig, key: str) -> Iterator[Part]:
    match source:
        case LocalFiles(files, "parquet" | "arrow" as form):
            return (Part(str(file), table_rows(file, form, config, key)) for file in files)
        case LocalFiles(files, form):
            return (Part(str(file), text_rows(file, form, config, key)) for file in files)
        case HubDataset():
            return iter([Part(source.repository, hub_rows(source, config, key))])


def decoded(text: str | bytes | None) -> str | None:
    """The text, '' for null, or None where it is not valid Unicode, or is UTF-16 in a table's bytes."""
    try:
        if isinstance(text, bytes):
            return None if b"\0" in text and wide_encoding(text) else text.decode("utf-8")
        if text is not None:
            text.encode("utf-8")  # refuses lone surrogates
    except UnicodeError:
        return None
    return text or ""


def _id(value: object, row: int) -> str:
    if value is None:
        return str(row)
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
