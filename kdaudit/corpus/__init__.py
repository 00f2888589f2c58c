"""The corpus: what the configuration names -> documents -> windows of token ids -> distinct examples.

    sources.py      what a corpus section names: files of one format, or a dataset on the hub
    folders.py      the data files below a folder, saved datasets among them
    splits.py       which split a file belongs to, by its name
    dataset_card.py which files belong to which split, by a cloned repository's README.md
    readers/        files -> rows, one module a family of formats
    rows.py         what those readers give and check alike
    records.py      rows with all their columns, to write a corpus again
    conversations.py rows that ask and answer -> messages, of whatever layout
    documents.py    rows -> documents, with counts of what was skipped
    rendering.py    messages -> the text that training on a chat template sees, and where answers stand in it
    answers.py      rendered conversations -> windows of token ids, one an answer
    reading.py      a corpus on its way to windows, of either kind
    fingerprint.py  what the text was, as one string
    windows.py      documents -> windows of token ids
    joint.py        where windows are cut that models with different tokenizers read
    distinct.py     which windows are one example, how often each occurs, which a sample keeps
    spool.py        windows on disk between the pass and the examples
    token_file.py   every document's tokens on disk, for a second pass over them
    examples.py     all of it: `build_examples`, and what an `Example` is
    canaries.py     texts that are planted in training data, and their controls: canaries.jsonl
    canary_texts.py how these are drawn
    invented.py     words, names and numbers that belong to nobody

Everything is streamed: memory holds a batch of documents and 16 bytes a window, or with `limit` at most
twice as many as the sample has. Errors are `CorpusError`s that name the key, the file and the row.
"""

from __future__ import annotations

from kdaudit.corpus.answers import begins_with_bos
from kdaudit.corpus.documents import Document, Documents, first_texts, open_documents
from kdaudit.corpus.examples import Counts, Example, Examples, build_examples, nothing_left, read_rows
from kdaudit.corpus.fingerprint import (
    PinnedSource,
    check_unchanged,
    pin_source,
    refuse_equal_sources,
    source_fingerprint,
)
from kdaudit.corpus.joint import JointCutter, Longest
from kdaudit.corpus.reading import Reading
from kdaudit.corpus.rendering import ChatFormat, template_of
from kdaudit.corpus.windows import ExampleTokens

__all__ = [
    "ChatFormat",
    "Counts",
    "Document",
    "Documents",
    "Example",
    "ExampleTokens",
    "Examples",
    "JointCutter",
    "Longest",
    "PinnedSource",
    "Reading",
    "begins_with_bos",
    "build_examples",
    "check_unchanged",
    "first_texts",
    "nothing_left",
    "open_documents",
    "pin_source",
    "read_rows",
    "refuse_equal_sources",
    "source_fingerprint",
    "template_of",
]
