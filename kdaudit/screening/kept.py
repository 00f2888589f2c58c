"""The corpus once more, without what is flagged: kept/, in the corpus's own columns.

The corpus is only read. Each occurrence of a flagged example goes, in whichever document: the documents are
cut again as the examples were, and every window is looked up among the flagged. In plain text so does its
suffix where it stands at another offset.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus import ChatFormat
from kdaudit.corpus.conversations import Conversation, Flaw
from kdaudit.corpus.documents import Document, open_documents
from kdaudit.corpus.fingerprint import PinnedSource
from kdaudit.corpus.readers.tables import ROWS_AT_ONCE
from kdaudit.corpus.records import Records, first_records, read_records
from kdaudit.corpus.windows import ExampleTokens, batched
from kdaudit.errors import CorpusError, UsageError, reason
from kdaudit.inference import Split
from kdaudit.runs.examples import read_examples
from kdaudit.runs.store import RunStore
from kdaudit.schemas.screening import Drop, Format, KeptCounts
from kdaudit.screening.chats import messages_left, messages_of_column, said
from kdaudit.screening.recurrences import recurrences_of
from kdaudit.screening.schemas import arrow_schema
from kdaudit.screening.spans import AnswerMarker, Flags, Marker, Marks, stretches
from kdaudit.screening.window_hashes import KeySet, identities_of
from kdaudit.screening.writers import (
    JsonlSink,
    KeptRow,
    ParquetSink,
    Sink,
    arrow_rows,
    discard_kept,
    json_lines,
)


class Keeping(NamedTuple):
    """How the corpus was cut, and what to leave out of it."""

    tokens: ExampleTokens
    """Of prefix and suffix, which a window has at least."""
    drop: Drop
    format: Format
    examples: str = "examples"
    """Folder of the examples' shards."""
    chat: ChatFormat | None = None
    """How conversations became token ids, of a corpus of prompts and answers."""
    max_flagged: float = 1.0
    """Share of the examples, and of the documents that are left out, above which nothing is written."""


class Levels(NamedTuple):
    """At which of several thresholds, from high to low, each example is flagged."""

    of_example: NDArray[np.int8]
    """The first threshold that flags it, from 0; `thresholds` if none does: (examples,)."""
    thresholds: int
    """How many there are."""


def check_first_rows(config: CorpusConfig, form: Format, key: str = "corpus") -> None:
    """As `check_writable`, but for the corpus's first rows alone, which takes no time.

    Raises:
        UsageError: they do not fit the format.
        CorpusError: columns beside the text cannot be read.

    """
    schema = arrow_schema(config, key, most=ROWS_AT_ONCE) if form == "parquet" else None
    for records in itertools.islice(first_records(config, key), 1):
        if schema is None:  # else the types of these rows fit, and later ones decide what they become
            _try(records, form, None, config)


def check_writable(config: CorpusConfig, form: Format, key: str = "corpus") -> None:
    """Read the first rows of each file with all their columns, and convert them to what kept/ will hold.

    What no copy can hold is told before models score the text, not after. A corpus of json, csv or txt that
    is to be written as parquet is read whole, since any row may have values of another type.

    Raises:
        UsageError: rows do not fit the format.
        CorpusError: columns beside the text cannot be read.

    """
    open_documents(config, key)  # says what is wrong with the text's own column
    schema = arrow_schema(config, key) if form == "parquet" else None
    for records in first_records(config, key):
        _try(records, form, schema, config)


def _try(records: Records, form: Format, schema: pa.Schema | None, config: CorpusConfig) -> None:
    texts = [(row, text) for row, text in enumerate(records.texts) if text is not None]
    kept = [KeptRow(row, None if config.has_answers else text or None) for row, text in texts]
    if form == "jsonl":
        json_lines(records.rows, kept, config, {})
        return
    table = arrow_rows(records.rows, kept, schema, config)
    for place, name in enumerate(table.column_names):
        try:
            pq.write_table(table.select([place]), pa.BufferOutputStream())
        except pa.ArrowException as error:
            raise UsageError(
                f"the column {name!r} of {config.path} cannot be written as parquet ({reason(error)})",
                fix="set format to jsonl",
                key="format",
            ) from error


def write_kept(
    run: RunStore,
    source: PinnedSource,
    tokenizer: Any,  # noqa: ANN401 - `tokenizers` is untyped
    flagged: NDArray[np.bool_],
    how: Keeping,
    *,
    levels: Levels | None = None,
    key: str = "corpus",
    progress: Callable[[int], None] | None = None,
) -> KeptCounts:
    """Write kept/part-NNNNN, in place of earlier ones; none where more is flagged than `how` allows.

    Args:
        run: the run, its examples written.
        source: the corpus that they come from.
        tokenizer: the one that cut it.
        flagged: which examples are flagged, bool (examples,).
        how: what to leave out, and how to write the rest.
        levels: thresholds at which documents are to be counted, beside the one that flagged.
        key: where the corpus stands in the configuration, for messages.
        progress: called after each batch with the number of rows read so far.

    Raises:
        UsageError: the rows do not fit parquet.
        CorpusError: the corpus cannot be read, or has changed since it was cut.
        StorageError: a part could not be written.

    """
    discard_kept(run)
    sink = None if flagged.mean() > how.max_flagged else _sink(run, source, how, key)
    marker = _marker(run, source, tokenizer, flagged, how, levels)
    tally: Counter[str] = Counter()
    for records in read_records(source.config, key):
        kept = list(_kept_rows(records, marker, how, tally))
        if sink is not None:
            sink.put(records.rows, kept)
        if progress is not None:
            progress(tally["documents_read"])
    if sink is not None:
        sink.close()
    _refuse_a_changed_corpus(run, source, flagged, how, key, tally["windows_flagged"])
    counts = {name: tally[name] for name, field in KeptCounts.model_fields.items() if field.is_required()}
    withheld = sink is None or tally["documents_dropped"] > how.max_flagged * tally["documents_read"]
    if withheld:
        discard_kept(run)
        counts["rows_written"] = 0
    replaced = () if sink is None else tuple(sink.replaced)
    by_recall = np.cumsum([tally[_at(level)] for level in range(levels.thresholds if levels else 0)]).tolist()
    return KeptCounts(
        **counts,
        withheld=withheld,
        rows_unread=tally["rows_unread"],
        recurrences=tally["recurrences"],
        columns_replaced=replaced,
        documents_by_recall=tuple(map(int, by_recall)),
    )


def _sink(run: RunStore, source: PinnedSource, how: Keeping, key: str) -> Sink:
    if how.format == "jsonl":
        return JsonlSink(run, source.config)
    return ParquetSink(run, source.config, arrow_schema(source.config, key))


def _marker(
    run: RunStore,
    source: PinnedSource,
    tokenizer: Any,  # noqa: ANN401
    flagged: NDArray[np.bool_],
    how: Keeping,
    levels: Levels | None,
) -> Marker | AnswerMarker:
    def keys(rows: NDArray[np.bool_], of_example: NDArray[np.int8] | None = None) -> KeySet:
        usual = Split(how.tokens.prefix, how.tokens.suffix, None)
        examples = identities_of(run, how.examples, np.flatnonzero(rows), usual)
        return KeySet(examples, None if of_example is None else of_example[rows])

    flags = Flags(
        keys(flagged),
        None if source.config.limit is None else keys(np.ones_like(flagged)),
        None if levels is None else keys(levels.of_example < levels.thresholds, levels.of_example),
    )
    if how.chat is not None:
        return AnswerMarker(tokenizer, source.config, how.chat, how.tokens, flags)
    of_level = None
    if levels is not None:
        of_level = np.where(levels.of_example < levels.thresholds, levels.of_example, np.int8(-1))
    usual = Split(how.tokens.prefix, how.tokens.suffix, None)
    recurrences = recurrences_of(run, how.examples, flagged, of_level, usual)
    return Marker(tokenizer, source.config, how.tokens.least, flags, recurrences)


def _kept_rows(
    records: Records, marker: Marker | AnswerMarker, how: Keeping, tally: Counter[str]
) -> Iterator[KeptRow]:
    """What stays of each row, in order; counts all of it."""
    found = _marked(records, marker)
    for row, text in enumerate(records.texts):
        tally["documents_read"] += 1
        if text is None:
            tally["undecodable"] += 1
            continue
        marks = found.get(row)
        if how.chat is not None:
            yield from _kept_chat(row, records.conversations[row], text, marks, how.drop, tally)
            continue
        tally["empty"] += marks is None
        left = _left(text, marks, how.drop)
        _count(tally, text, marks, left)
        yield from (KeptRow(row, one) for one in left)


def _kept_chat(
    row: int,
    conversation: Conversation | Flaw | None,
    text: str,
    marks: Marks | None,
    drop: Drop,
    tally: Counter[str],
) -> Iterator[KeptRow]:
    """What stays of a row that asks and answers: all of it, nothing, or its messages up to an answer."""
    read = isinstance(conversation, Conversation) and marks is not None and marks.is_read
    tally["empty"] += conversation is None
    tally["rows_unread"] += conversation is not None and not read
    messages = None if marks is None else messages_left(conversation, marks, drop)
    left: list[str | None] = []
    if messages != 0:
        left = [None if messages is None else said(conversation, messages)]
    _count(tally, text, marks, left)
    if left:
        yield KeptRow(row, messages=messages_of_column(conversation, messages))


def _marked(records: Records, marker: Marker | AnswerMarker) -> dict[int, Marks]:
    """The marks of each row that has text, and is not left out."""
    talks = records.conversations or [None] * len(records.texts)
    documents = [
        Document(str(row), text, row, talk if isinstance(talk, Conversation) else None)
        for row, (text, talk) in enumerate(zip(records.texts, talks, strict=True))
        if text and not text.isspace()
    ]
    found = {}
    for batch in batched(documents):
        marks = marker.mark(batch)
        found.update({document.row: one for document, one in zip(batch, marks, strict=True)})
    return found


def _left(text: str, marks: Marks | None, drop: Drop) -> list[str | None]:
    """What stays of a document; None for all of it."""
    if marks is None or not (marks.flagged or marks.recurring):
        return [None]
    return [] if drop == "document" else list(stretches(text, sorted([*marks.flagged, *marks.recurring])))


def _count(tally: Counter[str], text: str, marks: Marks | None, left: list[str | None]) -> None:
    """Add one document that is valid text; it stays whole where `left` holds None."""
    tally["characters_before"] += len(text)
    tally["characters_after"] += sum(len(text if one is None else one) for one in left)
    tally["rows_written"] += len(left)
    tally["documents_kept" if left else "documents_dropped"] += 1
    if marks is not None:
        tally["documents_flagged"] += bool(marks.flagged)
        tally[_at(marks.level)] += 1
        tally["windows_flagged"] += len(marks.flagged)
        tally["recurrences"] += len(marks.recurring)
        tally["windows_unscored"] += marks.unscored if left else 0
        tally["too_short"] += marks.too_short if left else 0


def _at(level: int) -> str:
    """The tally of documents whose lowest level is this one."""
    return f"level {level}"


def _refuse_a_changed_corpus(
    run: RunStore, source: PinnedSource, flagged: NDArray[np.bool_], how: Keeping, key: str, found: int
) -> None:
    """Every place of a flagged window must have been met again: what was missed would be in kept/."""
    ids = np.flatnonzero(flagged).astype(np.int64)
    copies = sum(int(np.sum(table["copies"].to_numpy())) for table in read_examples(run, how.examples, ids))
    if found != copies:
        raise CorpusError(
            f"{source.config.path}: has changed since its examples were cut ({found:,} of "
            f"{copies:,} flagged places were found again)",
            fix="start again with --fresh",
            key=f"{key}.path",
        )
