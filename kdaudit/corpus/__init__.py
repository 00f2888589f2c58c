"""The corpus: what the configuration names -> documents -> distinct windows of token ids.

    sources.py      what `corpus.path` means: local files, a saved dataset, or a dataset on the hub
    text_files.py   rows of jsonl, json, csv and txt files, line by line
    tables.py       rows of parquet files, saved datasets and hub datasets
    rows.py         what those readers give and check alike
    documents.py    rows -> documents, with counts of what was skipped
    fingerprint.py  what the text was, as one string
    windows.py      documents -> windows of token ids
    distinct.py     which windows are the same, how often each stands, which a sample keeps
    spool.py        windows on disk between the pass and the examples
    token_file.py   every document's tokens on disk, for a second pass over them
    examples.py     all of it: `build_examples`

Everything is streamed: memory holds a batch of documents and 16 bytes a window, or with `limit` at most
twice as many as the sample has. Errors are `CorpusError`s that name the key, the file and the row.
"""

from __future__ import annotations

from kdaudit.corpus.documents import Document, Documents, open_documents
from kdaudit.corpus.examples import Counts, Examples, build_examples
from kdaudit.corpus.fingerprint import PinnedSource, check_unchanged, pin_source, source_fingerprint
from kdaudit.corpus.spool import EXAMPLES_SCHEMA

__all__ = [
    "EXAMPLES_SCHEMA",
    "Counts",
    "Document",
    "Documents",
    "Examples",
    "PinnedSource",
    "build_examples",
    "check_unchanged",
    "open_documents",
    "pin_source",
    "source_fingerprint",
]
