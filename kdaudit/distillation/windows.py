"""The windows of a training corpus, on disk: every model of a family reads them, in one order.

Invariant: row i is the i-th window of the corpus, duplicates included, for every reader; memory holds one
number and one name per window. One file holds all token ids in order; a parquet file beside it says where
each window ends and which document it comes from.

All windows are trained on, also those that an audit counts as occurrences of one example. With `limit` the
corpus is every occurrence of the examples that an audit with that limit samples. Canaries follow the corpus;
training draws the order of all rows from its seed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kdaudit.config.corpus import CorpusConfig
from kdaudit.corpus import ChatFormat, ExampleTokens, Reading, nothing_left
from kdaudit.corpus.distinct import Ledger
from kdaudit.corpus.windows import Window
from kdaudit.distillation.planting import planted
from kdaudit.inference.base import Tokens
from kdaudit.models.tokenizer import ReadingCheck
from kdaudit.runs.files import replacing
from kdaudit.schemas.canaries import Canary

SAMPLE_SEED = 0
"""Seed of the sample that `limit` takes; the audit.yaml names it."""
_CUTS = ("prompt_tokens", "measured_tokens")
"""Columns of a corpus of prompts and answers: see `WindowFile`."""
_FINGERPRINT = b"kdaudit.fingerprint"


class WindowFile(Sequence[Tokens]):
    """Windows of token ids, read from disk on access: int32 (tokens,) each."""

    def __init__(
        self,
        path: Path,
        ends: Sequence[int],
        document_ids: Sequence[str],
        fingerprint: str,
        prompts: NDArray[np.int64] | None = None,
        measured: NDArray[np.int64] | None = None,
    ) -> None:
        self._flat = np.memmap(path, dtype="<i4", mode="r")
        self._ends = np.concatenate([[0], np.asarray(ends, dtype=np.int64)])
        self.document_ids = document_ids
        """Which document each window comes from."""
        self.prompts = np.zeros(len(self), np.int64) if prompts is None else prompts
        """Tokens of each window that stand before an answer, of which nothing is learned; 0 of plain text."""
        self.measured = measured
        """Prefix + suffix of each window, by which it is an occurrence of its example; None where all have as
        many."""
        self.fingerprint = fingerprint
        """`sha256:` over all token ids and where windows end."""

    def __len__(self) -> int:
        return len(self._ends) - 1

    @property
    def tokens(self) -> int:
        """Tokens of all windows."""
        return int(self._ends[-1])

    @property
    def longest(self) -> int:
        """Tokens of the longest window."""
        return int(np.diff(self._ends).max())

    @overload
    def __getitem__(self, index: int) -> Tokens: ...
    @overload
    def __getitem__(self, index: slice) -> list[Tokens]: ...
    def __getitem__(self, index: int | slice) -> Tokens | list[Tokens]:
        if isinstance(index, slice):
            return [self[row] for row in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        row = index % len(self)
        return np.array(self._flat[self._ends[row] : self._ends[row + 1]], dtype=np.int32)

    def __iter__(self) -> Iterator[Tokens]:
        return (self[row] for row in range(len(self)))


def cut_windows(
    config: CorpusConfig,
    tokenizer: Any,  # noqa: ANN401 - `tokenizers` is untyped
    path: Path,
    *,
    tokens: ExampleTokens,
    key: str,
    progress: Callable[[int], None],
    chat: ChatFormat | None = None,
    reading_check: ReadingCheck | None = None,
    canaries: Sequence[Canary] = (),
) -> WindowFile:
    """Cut a corpus into the windows that an audit of it would find, duplicates included, and write them.

    Args:
        config: the corpus section.
        tokenizer: of the family.
        path: the file to write, for `open_windows`.
        tokens: of prefix and suffix, which a window has at least.
        key: of the section in the configuration, for messages.
        progress: called with the rows read; with a limit the corpus is read twice.
        chat: how conversations become token ids, of a corpus of prompts and answers.
        reading_check: checks that models with other tokenizers read the texts as the same tokens.
        canaries: mixed in; see `kdaudit.distillation.planting`.

    Raises:
        CorpusError: the corpus cannot be read, or no window is left.
        ModelError: a model reads some text as other tokens.
        StorageError: the file could not be written.

    """
    sample = _sample(Reading(config, tokenizer, chat, key), config.limit, tokens, progress)
    reading = Reading(config, tokenizer, chat, key)
    ends: list[int] = []
    names: list[str] = []
    cuts: list[tuple[int, int]] = []
    digest = hashlib.sha256()
    with replacing(path, private=True) as partial, partial.open("wb") as out:
        own = (
            window
            for window in _cut(reading, tokens, progress, reading_check)
            if sample is None or sample.add(window.identity(tokens.prefix))
        )
        for window in chain(own, planted(canaries, tokenizer, config.window, tokens, reading_check)):
            data = window.token_ids.astype("<i4").tobytes()
            digest.update(len(window.token_ids).to_bytes(8, "little") + data)
            if chat is not None:
                cuts.append((window.prefix_tokens - tokens.prefix, len(window.measured)))
                digest.update(cuts[-1][0].to_bytes(8, "little"))
            out.write(data)
            ends.append((ends[-1] if ends else 0) + len(window.token_ids))
            names.append(window.document_id)
        if reading_check is not None:
            reading_check.finish()
        if not ends:
            raise nothing_left(config, key, reading.documents, reading.too_short, tokens.least)
    fingerprint = f"sha256:{digest.hexdigest()}"
    columns = {"end": pa.array(ends, pa.int64()), "document_id": pa.array(names, pa.string())}
    if chat is not None:
        for place, name in enumerate(_CUTS):
            columns[name] = pa.array([cut[place] for cut in cuts], pa.int64())
    table = pa.table(columns)
    with replacing(_table_of(path), private=True) as partial:
        pq.write_table(table.replace_schema_metadata({_FINGERPRINT: fingerprint}), partial)
    return open_windows(path)


def open_windows(path: Path) -> WindowFile:
    """The windows that `cut_windows` wrote to `path`."""
    table = pq.read_table(_table_of(path))
    fingerprint = table.schema.metadata[_FINGERPRINT].decode()
    cuts = [table[name].to_numpy() for name in _CUTS if name in table.column_names]
    return WindowFile(path, table["end"].to_numpy(), table["document_id"].to_pylist(), fingerprint, *cuts)


def _table_of(path: Path) -> Path:
    return path.with_suffix(".parquet")


def _sample(
    reading: Reading, limit: int | None, tokens: ExampleTokens, progress: Callable[[int], None]
) -> Ledger | None:
    """A ledger that accepts only the sample's windows; None without a limit."""
    if limit is None:
        return None
    ledger = Ledger(seed=SAMPLE_SEED, limit=limit)
    for window in _cut(reading, tokens, progress):
        ledger.add(window.identity(tokens.prefix))
        if ledger.crowded:
            ledger.settle()
    ledger.settle()
    return ledger


def _cut(
    reading: Reading,
    tokens: ExampleTokens,
    progress: Callable[[int], None],
    reading_check: ReadingCheck | None = None,
) -> Iterator[Window]:
    cutter = reading.cutter(tokens)
    for batch in reading.batches():
        if reading_check is not None:
            reading_check.look(batch)
        yield from cutter.cut(batch)
        progress(reading.documents.rows)
