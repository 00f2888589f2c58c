"""Prefix-suffix extraction: matched tokens of every example, shard by shard.

Invariant: shard n of an extraction holds the examples of shard n of the corpus, in the same order. Each
shard is one batch of work, so an interrupted extraction continues as an undisturbed one would have.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.attacks.examples import examples_of
from kdaudit.errors import RunStateError
from kdaudit.inference import EngineInfo, Ragged, RemoteEngine, Split
from kdaudit.runs import Progress
from kdaudit.runs.examples import read_examples
from kdaudit.runs.store import RunStore

EXTRACTION_SCHEMA = pa.schema(
    [("example_id", pa.int64()), ("matched_tokens", pa.int16()), ("memorized", pa.bool_())]
)


class Extraction(NamedTuple):
    """What one model reproduces of a corpus."""

    matched: NDArray[np.int16]
    """Matched tokens: int16 (examples,), by example id."""
    seconds: float
    """Time inside the engine's process, over all calls."""
    engine: EngineInfo


def pending(run: RunStore, examples: str, out: str) -> list[str]:
    """Shards of `examples` whose extraction to folder `out` is not written yet."""
    return [shard for shard in run.shards(examples) if not run.has(_beside(shard, out))]


def extract(
    run: RunStore, engine: RemoteEngine, split: Split, examples: str, out: str, progress: Progress
) -> None:
    """Extract every pending shard; reading and writing overlap the engine's work."""
    todo = pending(run, examples, out)
    if todo and run.shards(out):
        _refuse_another_engine(read_extraction(run, out).engine, engine.info)
    total = len(run.shards(examples))
    progress(out, len(run.shards(out)), total)
    begun: list[tuple[str, pa.Array]] = []
    for shard in todo:
        table = run.read_table(shard, ["example_id", "token_ids"])
        examples_read = examples_of(table, split)
        engine.begin_match(examples_read.prompts, examples_read.targets)
        begun.append((shard, table["example_id"]))
        if len(begun) > 1:
            _finish(run, engine, split, out, *begun.pop(0))
            progress(out, len(run.shards(out)), total)
    for shard, ids in begun:
        _finish(run, engine, split, out, shard, ids)
        progress(out, len(run.shards(out)), total)


def _refuse_another_engine(before: EngineInfo, now: EngineInfo) -> None:
    """One model's shards must come from one engine, or near ties between tokens may fall either way."""
    if before != now:
        raise RunStateError(
            f"begun with {' '.join(before)}, now {' '.join(now)}",
            fix="continue with the first, or start again with --fresh",
            key="extraction",
        )


def read_extraction(run: RunStore, out: str) -> Extraction:
    """Read a finished extraction back."""
    tables = [run.read_table(shard, ["matched_tokens"]) for shard in run.shards(out)]
    notes = [table.schema.metadata for table in tables]
    return Extraction(
        matched=np.concatenate([table["matched_tokens"].to_numpy() for table in tables]),
        seconds=sum(float(note[b"seconds"]) for note in notes),
        engine=EngineInfo(*(notes[0][name.encode()].decode() for name in EngineInfo._fields)),
    )


def leaked(students: Sequence[Extraction], split: Split) -> NDArray[np.int64]:
    """Ids of the examples that at least one student memorizes, ascending."""
    flags = [student.matched == split.suffix_tokens for student in students]
    return np.flatnonzero(np.logical_or.reduce(flags)).astype(np.int64)


def continuations_file(model: str) -> str:
    """Where a model's continuations of the leaks lie."""
    return f"continuations/{model}.parquet"


def continue_leaks(
    run: RunStore, engine: RemoteEngine, split: Split, examples: str, leaks: NDArray[np.int64], out: str
) -> None:
    """Write the greedy continuation of each leak's prefix to the file `out`.

    Args:
        run: the run.
        engine: the model.
        split: where examples are cut.
        examples: folder of the examples' shards.
        leaks: ascending example ids, int64 (leaks,).
        out: parquet file: example_id, token_ids (suffix tokens of each).

    """
    parts = [examples_of(rows, split) for rows in read_examples(run, examples, leaks)]
    prompts = Ragged.of(prompt for part in parts for prompt in part.prompts)
    lengths = np.concatenate([np.empty(0, np.int64), *(part.targets.lengths for part in parts)])
    tokens = engine.generate(prompts, lengths) if len(leaks) else prompts
    table = pa.table(
        {"example_id": pa.array(leaks, pa.int64()), "token_ids": pa.array(list(tokens), pa.list_(pa.int32()))}
    )
    run.write_table(out, table, private=True)


def _finish(
    run: RunStore, engine: RemoteEngine, split: Split, out: str, shard: str, ids: pa.ChunkedArray
) -> None:
    found = engine.finish_match()
    memorized = found.tokens == split.suffix_tokens
    notes = {**engine.info._asdict(), "seconds": repr(found.seconds)}
    table = pa.table(
        {
            "example_id": ids,
            "matched_tokens": pa.array(found.tokens, pa.int16()),
            "memorized": pa.array(memorized),
        },
        schema=EXTRACTION_SCHEMA.with_metadata(notes),
    )
    run.write_table(_beside(shard, out), table, private=False)


def _beside(shard: str, out: str) -> str:
    return str(PurePosixPath(out) / PurePosixPath(shard).name)
