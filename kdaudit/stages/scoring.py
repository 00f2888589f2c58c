"""Features of every example under teacher and baseline, shard by shard.

Both models are in one worker process and meet each window once. Shard n holds the features of the examples
of shard n, in their order.
"""

from __future__ import annotations

from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.engines import EngineInfo
from kdaudit.features import PairScores, PairWorker, zlib_entropy
from kdaudit.retreat import retreating
from kdaudit.stages.examples import SUFFIX_COPIES
from kdaudit.stages.likelihoods import windows_of
from kdaudit.stages.work import EXAMPLES, Work

FEATURES = "features"
"""The stage, and its folder in the run."""

FEATURES_SCHEMA = pa.schema(
    [
        ("example_id", pa.int64()),
        ("zlib_entropy", pa.float64()),
        ("teacher_perplexity", pa.float64()),
        ("baseline_perplexity", pa.float64()),
        ("kl_divergence", pa.float64()),
        ("suffix_copies", pa.int64()),
        ("copies", pa.int32()),
        ("tokens", pa.int32()),
        ("teacher_entropy", pa.float64()),
        ("baseline_entropy", pa.float64()),
        ("teacher_matched", pa.int16()),
        ("baseline_matched", pa.int16()),
    ]
)
"""Columns of features/part-*.parquet. The last two are matched tokens under teacher forcing: what an
extraction finds, but for near ties between two tokens."""


def write_features(work: Work) -> None:
    """Score every example, going on where an earlier call stopped."""
    run = work.run
    if run.done(FEATURES):
        return
    with run.stage(FEATURES):
        retreating("features", lambda retreat: _write_shards(work, retreat), work.warn)


def _write_shards(work: Work, retreat: int) -> None:
    run, split = work.run, work.split
    shards = run.shards(EXAMPLES)
    pending = [shard for shard in shards if not run.has(_beside(shard))]
    if not pending:
        return
    suffix_copies = run.read_table(SUFFIX_COPIES)["suffix_copies"].to_numpy()
    teacher, baseline = work.roster.members[0], work.roster.baselines[0]
    work.progress("features: loading teacher and baseline", 1, 0)
    with PairWorker(
        work.files(teacher),
        work.files(baseline),
        vocabulary=work.vocabulary,
        bos=split.bos,
        prefix_tokens=split.prefix_tokens,
        suffix_tokens=split.suffix_tokens,
        retreat=retreat,
    ) as worker:
        for shard in pending:
            examples = run.read_table(shard, ["example_id", "text", "token_ids", "copies"])
            before = worker.seconds
            scores = worker.scores(windows_of(examples["token_ids"]))
            notes = {**worker.info._asdict(), "seconds": repr(worker.seconds - before)}
            table = _table(examples, scores, suffix_copies).replace_schema_metadata(notes)
            run.write_table(_beside(shard), table, private=False)
            work.progress("features", len(run.shards(FEATURES)), len(shards))


def _table(examples: pa.Table, scores: PairScores, suffix_copies: NDArray[np.int64]) -> pa.Table:
    ids = examples["example_id"].to_numpy()
    columns = {
        "example_id": ids,
        "zlib_entropy": [zlib_entropy(text) for text in examples["text"].to_pylist()],
        "teacher_perplexity": np.exp(scores.teacher_nll),
        "baseline_perplexity": np.exp(scores.baseline_nll),
        "kl_divergence": scores.kl_divergence,
        "suffix_copies": suffix_copies[ids],
        "copies": examples["copies"],
        "tokens": examples["token_ids"].combine_chunks().value_lengths(),
        "teacher_entropy": scores.teacher_entropy,
        "baseline_entropy": scores.baseline_entropy,
        "teacher_matched": scores.teacher_matched,
        "baseline_matched": scores.baseline_matched,
    }
    return pa.table(columns, schema=FEATURES_SCHEMA)


def read_features(work: Work, names: tuple[str, ...]) -> NDArray[np.float64]:
    """Columns of the features: float64 (examples, names)."""
    tables = [work.run.read_table(shard, list(names)) for shard in work.run.shards(FEATURES)]
    columns = [np.concatenate([table[name].to_numpy() for table in tables]) for name in names]
    return np.stack(columns, axis=1).astype(np.float64)


def read_scoring(work: Work) -> EngineInfo:
    """What the teacher's forward passes ran on."""
    notes = work.run.read_table(work.run.shards(FEATURES)[0], ["example_id"]).schema.metadata
    return EngineInfo(*(notes[name.encode()].decode() for name in EngineInfo._fields))


def _beside(shard: str) -> str:
    return str(PurePosixPath(FEATURES) / PurePosixPath(shard).name)
