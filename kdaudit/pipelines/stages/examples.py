"""From a corpus to its distinct examples, their occurrences, and where else their suffixes stand."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.attacks.examples import cuts_of, examples_of
from kdaudit.corpus import (
    Examples,
    ExampleTokens,
    PinnedSource,
    Reading,
    build_examples,
    check_unchanged,
)
from kdaudit.inference import Lengths
from kdaudit.pipelines.stages.answers import count_answers
from kdaudit.pipelines.stages.fit import check_longest, joint_cutter
from kdaudit.pipelines.stages.work import CANARY_EXAMPLES, GENERATED_EXAMPLES, HOLDOUT_EXAMPLES, Work
from kdaudit.risk.suffix_copies import SuffixCounter
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import SUFFIX_COPIES_SCHEMA
from kdaudit.runs.examples import read_shard
from kdaudit.schemas.corpus import CorpusResult


def write_examples(work: Work, source: PinnedSource, key: str, out: str) -> CorpusResult:
    """Cut a corpus into its distinct examples; for the corpus itself, count their suffixes too.

    Args:
        work: the run.
        source: the text.
        key: where it stands in the configuration.
        out: folder of the examples.

    Raises:
        CorpusError: the text cannot be read, or changed while it was.
        ModelError: a model with another tokenizer reads some text as other tokens than the first.

    """
    run, summary = work.run, layout.summary(out)
    if not run.done(key):
        joint = joint_cutter(work.models, ExampleTokens.of(work.extraction))
        reading_check = work.models.reading_check(key, work.models.differences())
        with run.stage(key), run.scratch() as scratch:
            work.progress(f"{key}: reading documents", 0, 0)
            run.discard(*run.shards(out))  # an earlier call may have read a corpus that changed meanwhile
            examples = build_examples(
                source.config,
                work.models.tokenizer,
                tokens=ExampleTokens.of(work.extraction),
                seed=work.seed,
                scratch=scratch,
                key=key,
                chat=work.chats.get(key),
                keep_tokens=out == layout.EXAMPLES,
                joint=joint,
                look=reading_check.look,
                encode=work.executor.encoding(work.models.tokenizer),
                progress=lambda rows: work.progress(f"{key}: reading documents", rows, 0),
            )
            reading_check.finish()
            if joint is not None:
                check_longest(work.extraction, work.models, joint.longest, key)
                run.write_text(layout.longest(out), json.dumps(joint.longest) + "\n")
            work.progress(f"{key}: writing {examples.counts.examples:,} examples", 0, 0)
            for number, table in enumerate(examples.tables(run.shard_rows)):
                run.write_table(layout.shard(out, number), table)
            if out == layout.EXAMPLES:
                _count_suffixes(work, examples)
            work.progress(f"{key}: reading it again, to see whether it changed meanwhile", 0, 0)
            check_unchanged(source, key)
            result = CorpusResult(
                path=source.config.path,
                fingerprint=source.fingerprint,
                **examples.counts._asdict(),
                answers=count_answers(work, examples.answers, key, out),
            )
            run.write_text(summary, result.model_dump_json(indent=1) + "\n")
        for name in work.models.differences():
            _mark_read(work, key, name)
    _check_readings(work, source, key)
    return run.read_json(summary, CorpusResult)


def _check_readings(work: Work, source: PinnedSource, key: str) -> None:
    """Read the text again for models that were not there when it was cut, if they may read it otherwise."""
    unread = [name for name in work.models.differences() if not _is_read(work, key, name)]
    if unread:
        reading_check = work.models.reading_check(key, unread)
        work.progress(f"{key}: reading documents with the tokenizers of {', '.join(unread)}", 0, 0)
        reading = Reading(source.config, work.models.tokenizer, work.chats.get(key), key)
        for batch in reading.batches():
            reading_check.look(batch)
        reading_check.finish()
        check_unchanged(source, key)
    for name in unread:
        _mark_read(work, key, name)


def _is_read(work: Work, key: str, name: str) -> bool:
    return work.run.done(f"{key}/{name}", _reading(work, name))


def _mark_read(work: Work, key: str, name: str) -> None:
    with work.run.stage(f"{key}/{name}", _reading(work, name)):
        pass


def _reading(work: Work, name: str) -> list[Any]:
    """What the check of a model's reading depends on."""
    fingerprints = work.fingerprints(work.models.cutter.name, name)
    return [[reading for _, reading in fingerprints.values()], work.models.differences()[name]]


def _count_suffixes(work: Work, examples: Examples) -> None:
    """Write how often each example's suffix stands in the corpus, at any offset of any document."""
    run = work.run
    work.progress("corpus: counting suffixes", 0, examples.counts.documents)
    counter = SuffixCounter(
        examples_of(read_shard(run, shard, ["example_id", "token_ids"]), work.split).targets
        for shard in run.shards(layout.EXAMPLES)
    )
    for read, tokens in enumerate(examples.documents()):
        counter.feed(tokens)
        if read and read % 1024 == 0:
            work.progress("corpus: counting suffixes", read, examples.counts.documents)
    counts = counter.counts
    ids = pa.array(np.arange(len(counts), dtype=np.int64))
    table = pa.table([ids, pa.array(counts)], schema=SUFFIX_COPIES_SCHEMA)
    run.write_table(layout.SUFFIX_COPIES, table)


def read_copies(work: Work) -> NDArray[np.int32]:
    """Places of each example: int32 (examples,)."""
    shards = work.run.shards(layout.EXAMPLES)
    return np.concatenate([work.run.read_table(shard, ["copies"])["copies"].to_numpy() for shard in shards])


def read_cuts(work: Work, examples: str = layout.EXAMPLES) -> tuple[Lengths, Lengths]:
    """Tokens of each example's prompt, without a BOS token, and of its target: int64 (examples,) each."""
    shards = [read_shard(work.run, shard, ["example_id"]) for shard in work.run.shards(examples)]
    prefixes, suffixes = zip(*(cuts_of(table, work.split) for table in shards), strict=True)
    return np.concatenate(prefixes), np.concatenate(suffixes)


def longest_sequence(work: Work) -> int:
    """Tokens of the longest prompt and target of all texts, without a BOS token."""
    folders = [
        examples
        for examples in (layout.EXAMPLES, HOLDOUT_EXAMPLES, GENERATED_EXAMPLES, CANARY_EXAMPLES)
        if work.run.shards(examples)
    ]
    return max(int(np.add(*read_cuts(work, examples)).max()) for examples in folders)


def read_documents(work: Work) -> NDArray[np.int64]:
    """A number for the document of each example's first place: int64 (examples,)."""
    shards = work.run.shards(layout.EXAMPLES)
    names = pa.chunked_array(
        [
            chunk
            for shard in shards
            for chunk in work.run.read_table(shard, ["document_id"])["document_id"].chunks
        ],
        type=pa.string(),
    )
    numbers: NDArray[np.int64] = (
        names.combine_chunks().dictionary_encode().indices.to_numpy().astype(np.int64)
    )
    return numbers
