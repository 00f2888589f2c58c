"""What the teacher writes for hard students, kept so that an audit can say what came from where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kdaudit.distillation.folders import fingerprint
from kdaudit.distillation.hard import hard_windows
from kdaudit.distillation.training import Progress
from kdaudit.distillation.windows import WindowFile
from kdaudit.errors import reason
from kdaudit.inference import EngineOptions, Lengths, Ragged, RemoteEngine, start
from kdaudit.inference.agreement import WINDOWS
from kdaudit.inference.base import Tokens
from kdaudit.inference.checking import NO_REFERENCE, Asking, Model, Said, ask_reference, check_engine
from kdaudit.models.tokenizer import ModelTokenizer
from kdaudit.runs import layout
from kdaudit.runs.files import replacing

_APART = 1_000_003
"""Between the generators of two seeds' first rows: row r draws from a generator of its own, r further on."""
_ROWS = 4096
"""Windows that the teacher continues together."""
_CHECKED = 50
"""Tokens of a continuation that an engine check compares at most."""
_FINGERPRINT = b"kdaudit.fingerprint"


class Writing(NamedTuple):
    """How the teacher writes."""

    prefix_tokens: int
    temperature: float
    """0 is greedy decoding."""
    seed: int
    bos: int | None
    """Begin token before each prefix, or None."""


class Author(NamedTuple):
    """The teacher, and how it is run."""

    engine: EngineOptions
    fingerprint: str
    """Of the teacher's weights."""
    parameters: int

    @property
    def model(self) -> Model:
        """The teacher as an engine check knows it."""
        engine = self.engine
        return Model("teacher", Path(engine.path), engine.dtype, engine.trust_remote_code, self.parameters)


def write_hard_corpus(
    path: Path,
    windows: WindowFile,
    author: Author,
    writing: Writing,
    tokenizer: ModelTokenizer,
    progress: Progress,
    warn: Callable[[str], None],
) -> None:
    """Continue each window's prefix up to the window's own length, and write both to a parquet file.

    A finished file stays if the same teacher wrote it of the same windows in the same way. The engine is
    checked before it writes (see `kdaudit.inference.agreement`), on continuations of `_CHECKED` tokens.

    Raises:
        DisagreementError: the engine does not run the teacher as transformers reads it.
        EngineError: the teacher's engine failed.
        StorageError: the file could not be written.

    """
    wanted = _fingerprint(windows, author, writing)
    if _recorded(path) == wanted:
        return
    progress("the teacher writes", 0, len(windows))
    schema = layout.HARD_SCHEMA.with_metadata({_FINGERPRINT: wanted})
    sample = np.random.default_rng(0).permutation(len(windows))[:WINDOWS].astype(np.int64)
    said = _reference(windows, sample, author, writing, warn)
    with (
        start(author.engine) as teacher,
        replacing(path, private=layout.is_private(path.name)) as partial,
        pq.ParquetWriter(partial, schema) as out,
    ):
        if said is not None:
            check_engine(author.model, said, _asking(teacher), sample, 0)
        for first in range(0, len(windows), _ROWS):
            rows = range(first, min(first + _ROWS, len(windows)))
            out.write_table(_written(rows, windows, teacher, writing, tokenizer).cast(schema))
            progress("the teacher writes", rows.stop, len(windows))


def _reference(
    windows: WindowFile,
    rows: NDArray[np.int64],
    author: Author,
    writing: Writing,
    warn: Callable[[str], None],
) -> Said | None:
    """What the reference says after some prefixes; None, with a warning, where it cannot run."""
    given = Ragged.of(windows[int(row)] for row in rows)
    prompts = given.head(writing.prefix_tokens)
    tokens = np.minimum(_CHECKED, given.lengths - prompts.lengths)
    try:
        begun = prompts.after(writing.bos)
        return ask_reference(author.model, begun, tokens, masking=author.engine.masking)
    except NO_REFERENCE as error:
        warn(
            "teacher: what its engine writes is not checked against a plain forward pass in transformers: "
            f"{reason(error)}"
        )
        return None


def _asking(teacher: RemoteEngine) -> Asking:
    """Asks for what the engine writes: what it would match is not used here."""

    def match(prompts: Ragged, targets: Ragged) -> NDArray[np.int16]:
        written = teacher.generate(prompts, targets.lengths)
        pairs = zip(written, targets, strict=True)
        return np.array([np.cumprod(own == target).sum() for own, target in pairs], dtype=np.int16)

    return Asking(teacher.info, match, teacher.generate)


def _fingerprint(windows: WindowFile, author: Author, writing: Writing) -> str:
    """SHA-256 of what the text depends on."""
    engine = author.engine
    seed = 0 if writing.temperature == 0 else writing.seed  # greedy text depends on no seed
    return fingerprint(
        {
            "windows": windows.fingerprint,
            "teacher": author.fingerprint,
            "engine": [engine.engine, engine.dtype],
            "writing": writing._replace(seed=seed)._asdict(),
        },
        [],
    )


def _recorded(path: Path) -> str | None:
    """The fingerprint of a finished file, None where there is none that can be read."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    found = metadata.get(_FINGERPRINT)
    return None if found is None else str(found.decode())


class _Writer(NamedTuple):
    """The teacher's engine as `hard_windows` asks it."""

    teacher: RemoteEngine
    writing: Writing
    first: int
    """Row of the first prefix."""

    def generate(self, prompts: Ragged, tokens: Lengths) -> Ragged:
        """Continuation of each prompt, after a BOS token where there is one."""
        seed = self.writing.seed * _APART + self.first
        return self.teacher.generate(prompts.after(self.writing.bos), tokens, self.writing.temperature, seed)


def _written(
    rows: range,
    windows: WindowFile,
    teacher: RemoteEngine,
    writing: Writing,
    tokenizer: ModelTokenizer,
) -> pa.Table:
    whole = hard_windows(
        windows[rows.start : rows.stop], writing.prefix_tokens, _Writer(teacher, writing, rows.start)
    )
    prefixes = [row[: writing.prefix_tokens] for row in whole]
    own = [row[writing.prefix_tokens :] for row in whole]
    return pa.table(
        {
            "example_id": pa.array(rows, pa.int64()),
            "document_id": [windows.document_ids[row] for row in rows],
            "prefix": tokenizer.batch_decode(prefixes),
            "generated": tokenizer.batch_decode(own),
            "prefix_token_ids": pa.array(prefixes, pa.list_(pa.int32())),
            "generated_token_ids": pa.array(own, pa.list_(pa.int32())),
        },
        schema=layout.HARD_SCHEMA,
    )


def read_hard_windows(path: Path) -> list[Tokens]:
    """The rows of a hard corpus as training windows: row i comes from window i."""
    found: list[Tokens] = []
    for batch in pq.ParquetFile(path).iter_batches(columns=["prefix_token_ids", "generated_token_ids"]):
        for prefix, said in zip(batch.column(0), batch.column(1), strict=True):
            found.append(np.concatenate([prefix.values.to_numpy(), said.values.to_numpy()]).astype(np.int32))
    return found
