"""The corpus once more, without what is flagged: kept/, in the corpus's own columns.

The corpus is only read. Each place where a flagged window stands goes, in whichever document: the documents
are cut again as the examples were, and every window is looked up among the flagged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.corpus.documents import Document
from kdaudit.corpus.fingerprint import PinnedSource
from kdaudit.corpus.records import Records, read_records
from kdaudit.corpus.windows import batched
from kdaudit.errors import CorpusError
from kdaudit.extraction import read_examples
from kdaudit.screen.keys import KeySet, windows_of_examples
from kdaudit.screen.marks import Marker, Marks, stretches
from kdaudit.screen.record import Drop, Format, KeptCounts
from kdaudit.screen.schemas import arrow_schema
from kdaudit.screen.sinks import JsonlSink, KeptRow, ParquetSink, Sink
from kdaudit.store import RunStore


class Keeping(NamedTuple):
    """How the corpus was cut, and what to leave out of it."""

    minimum_tokens: int
    """Of a window: prefix + suffix."""
    drop: Drop
    format: Format
    examples: str = "examples"
    """Folder of the examples' shards."""


def write_kept(
    run: RunStore,
    source: PinnedSource,
    tokenizer: Any,  # noqa: ANN401 - `tokenizers` is untyped
    flagged: NDArray[np.bool_],
    how: Keeping,
    *,
    key: str = "corpus",
    progress: Callable[[int], None] | None = None,
) -> KeptCounts:
    """Write kept/part-NNNNN, anew if there were some.

    Args:
        run: the run, its examples written.
        source: the corpus that they come from.
        tokenizer: the one that cut it.
        flagged: which examples are flagged, bool (examples,).
        how: what to leave out, and how to write the rest.
        key: where the corpus stands in the configuration, for messages.
        progress: called after each batch with the number of rows read so far.

    Raises:
        UsageError: the rows do not fit parquet.
        CorpusError: the corpus cannot be read, or has changed since it was cut.
        StorageError: a part could not be written.

    """
    sink = _sink(run, source, how, key)
    marker = _marker(run, source, tokenizer, flagged, how)
    tally: Counter[str] = Counter()
    for records in read_records(source.config, key):
        kept = list(_kept_rows(records, marker, how.drop, tally))
        sink.put(records.rows, kept)
        if progress is not None:
            progress(tally["documents_read"])
    sink.close()
    _refuse_a_changed_corpus(run, source, flagged, how, key, tally["windows_flagged"])
    return KeptCounts(**{name: tally[name] for name in KeptCounts.model_fields})


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
) -> Marker:
    ids = np.arange(len(flagged), dtype=np.int64)
    sampled = source.config.limit is not None
    return Marker(
        tokenizer,
        source.config,
        how.minimum_tokens,
        KeySet(windows_of_examples(run, how.examples, ids[flagged])),
        KeySet(windows_of_examples(run, how.examples, ids)) if sampled else None,
    )


def _kept_rows(records: Records, marker: Marker, drop: Drop, tally: Counter[str]) -> Iterator[KeptRow]:
    """What stays of each row, in order; counts all of it."""
    found = _marked(records, marker)
    for row, text in enumerate(records.texts):
        tally["documents_read"] += 1
        if text is None:
            tally["undecodable"] += 1
            continue
        marks = found.get(row)
        tally["empty"] += marks is None
        left = _left(text, marks, drop)
        _count(tally, text, marks, left)
        yield from (KeptRow(row, one) for one in left)


def _marked(records: Records, marker: Marker) -> dict[int, Marks]:
    """The marks of each row that has text."""
    documents = [
        Document(str(row), text, row) for row, text in enumerate(records.texts) if text and not text.isspace()
    ]
    found = {}
    for batch in batched(documents):
        marks = marker.mark(batch)
        found.update({document.row: one for document, one in zip(batch, marks, strict=True)})
    return found


def _left(text: str, marks: Marks | None, drop: Drop) -> list[str | None]:
    """What stays of a document; None for all of it."""
    if marks is None or not marks.flagged:
        return [None]
    return [] if drop == "document" else list(stretches(text, marks.flagged))


def _count(tally: Counter[str], text: str, marks: Marks | None, left: list[str | None]) -> None:
    """Add one document that is valid text; it stays whole where `left` holds None."""
    tally["characters_before"] += len(text)
    tally["characters_after"] += sum(len(text if one is None else one) for one in left)
    tally["rows_written"] += len(left)
    tally["documents_kept" if left else "documents_dropped"] += 1
    if marks is not None:
        tally["documents_flagged"] += bool(marks.flagged)
        tally["windows_flagged"] += len(marks.flagged)
        tally["windows_unscored"] += marks.unscored if left else 0
        tally["too_short"] += marks.too_short if left else 0


def _refuse_a_changed_corpus(
    run: RunStore, source: PinnedSource, flagged: NDArray[np.bool_], how: Keeping, key: str, found: int
) -> None:
    """Every place of a flagged window must have been met again: what was missed would be in kept/."""
    ids = np.flatnonzero(flagged).astype(np.int64)
    copies = sum(int(np.sum(table["copies"].to_numpy())) for table in read_examples(run, how.examples, ids))
    if found != copies:
        raise CorpusError(
            f"{key}.path: {source.config.path}: has changed since its examples were cut ({found:,} of "
            f"{copies:,} flagged places were found again); start anew with --fresh"
        )
