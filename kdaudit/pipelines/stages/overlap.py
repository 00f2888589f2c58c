"""Examples of the holdout that the corpus holds too: models were trained on them, and need not guess.

A holdout that was drawn from one collection with the corpus often shares boilerplate, quotations or whole
documents with it. An example of the holdout counts as text of the corpus if its last `_SPAN` tokens of prefix
and suffix (all, where it has fewer) stand in a window that was audited, at any offset. Such examples are left
out of what stands for unseen text: the floor, and the non-members of membership inference.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from kdaudit.analysis.intervals import Flags
from kdaudit.attacks.examples import cuts_of, windows_of
from kdaudit.inference import Ragged, Tokens
from kdaudit.pipelines.stages.work import HOLDOUT_EXAMPLES, Work
from kdaudit.risk.suffix_copies import SuffixCounter
from kdaudit.runs import layout
from kdaudit.runs.examples import read_shard
from kdaudit.schemas.notes import Note
from kdaudit.schemas.results import HoldoutOverlap

_SPAN = 50
"""Tokens: as many as a suffix has by default. Fewer recur without having been copied."""


def find_overlap(work: Work) -> Flags | None:
    """Which examples of the holdout stand in the corpus: bool (holdout examples,); None without a holdout."""
    if not work.run.shards(HOLDOUT_EXAMPLES):
        return None
    work.progress("holdout: looking for its text in the corpus", 0, 0)
    counter = SuffixCounter(_ends(work))
    for tokens in _stretches(work):
        counter.feed(tokens)
    flags: Flags = counter.counts > 0
    return flags


def _ends(work: Work) -> Iterator[Ragged]:
    """The last tokens of prefix and suffix of the holdout's examples."""
    for shard in work.run.shards(HOLDOUT_EXAMPLES):
        table = read_shard(work.run, shard, ["example_id", "token_ids"])
        prefixes, suffixes = cuts_of(table, work.split)
        measured = windows_of(table).head(prefixes + suffixes)
        yield measured.tail(np.maximum(measured.lengths - _SPAN, 0))


def _stretches(work: Work) -> Iterator[Tokens]:
    """The corpus's windows, joined where one follows another in its document: int32 (tokens,) each."""
    for shard in work.run.shards(layout.EXAMPLES):
        table = work.run.read_table(shard, ["document_id", "offset", "token_ids"])
        windows, starts = windows_of(table), table["offset"].to_numpy().astype(np.int64)
        documents = table["document_id"].combine_chunks().dictionary_encode().indices.to_numpy()
        follows = (documents[1:] == documents[:-1]) & (starts[1:] == starts[:-1] + windows.lengths[:-1])
        breaks = [0, *(np.flatnonzero(~follows) + 1).tolist(), len(windows)]
        for first, behind in pairwise(breaks):
            yield windows.values[windows.offsets[first] : windows.offsets[behind]]


def overlap_result(found: Flags | None) -> HoldoutOverlap | None:
    """What results.json says; None without a holdout."""
    if found is None:
        return None
    return HoldoutOverlap(examples=len(found), in_corpus=int(np.count_nonzero(found)))


def overlap_notes(found: Flags | None, *, sampled: bool) -> list[Note]:
    """What readers should know where the holdout holds text of the corpus.

    Args:
        found: see `find_overlap`.
        sampled: whether a sample of the corpus was audited.

    """
    if found is None or not found.any():
        return []
    least = "at least " if sampled else ""
    text = (
        f"Of the {len(found):,} examples of the holdout {least}{np.count_nonzero(found):,} stand in the "
        "corpus too, so models were trained on them. The holdout floor and membership leave these out; the "
        "perplexity does not. Name a holdout without text of the corpus."
    )
    return [Note(code="holdout_in_corpus", subject="holdout", text=text)]
