"""The text that the teacher generates for hard students, kept so that its origin can be looked up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from kdaudit.distillation.folders import fingerprint
from kdaudit.distillation.hard import HardWindow, hard_windows
from kdaudit.distillation.training import Progress
from kdaudit.distillation.windows import WindowFile
from kdaudit.errors import reason
from kdaudit.inference import EngineOptions, Lengths, Ragged, RemoteEngine, start
from kdaudit.inference.agreement import WINDOWS
from kdaudit.inference.checking import NO_REFERENCE, Asking, Expected, Model, ask_reference, check_engine
from kdaudit.models.tokenizer import ModelTokenizer
from kdaudit.runs import layout
from kdaudit.runs.arrow_schemas import HARD_SCHEMA
from kdaudit.runs.files import replacing

_APART = 1_000_003
"""Between the generators of two seeds' first rows: row r draws from a generator of its own, r further on."""
_ROWS = 4096
"""Windows that the teacher continues together."""
_CHECKED = 50
"""Tokens of a continuation that an engine check compares at most."""
_FINGERPRINT = b"kdaudit.fingerprint"


class DecodingSettings(NamedTuple):
    """How the teacher generates."""

    prefix_tokens: int | None
    """Of each window; None for its prompt, of which the teacher writes the answer."""
    temperature: float
    """0 is greedy decoding."""
    seed: int
    bos: int | None
    """BOS token before each prefix, or None."""
    ends: tuple[int, ...] = ()
    """Tokens that end an answer."""
    begun: int = 0
    """Tokens that the teacher is given of an answer with nothing before it, as in a chat that the assistant
    begins."""

    def prefixes(self, windows: WindowFile, rows: range | NDArray[np.int64]) -> Lengths:
        """Tokens that the teacher is given of some windows: int64 (rows,)."""
        if self.prefix_tokens is None:
            prompts = np.asarray(windows.prompts[np.asarray(rows)], np.int64)
            return np.where(prompts == 0, self.begun, prompts)
        return np.full(len(rows), self.prefix_tokens, np.int64)


class TeacherEngine(NamedTuple):
    """The teacher and the engine that runs it."""

    engine: EngineOptions
    fingerprint: str
    """Of the teacher's weights."""
    parameters: int

    @property
    def model(self) -> Model:
        """The teacher, for the engine check."""
        engine = self.engine
        return Model("teacher", Path(engine.path), engine.dtype, engine.trust_remote_code, self.parameters)


def write_hard_corpus(
    path: Path,
    windows: WindowFile,
    teacher: TeacherEngine,
    settings: DecodingSettings,
    tokenizer: ModelTokenizer,
    progress: Progress,
    warn: Callable[[str], None],
) -> None:
    """Continue each window's prefix up to the window's own length, and write both to a parquet file.

    A finished file is kept if the same teacher generated it from the same windows with the same settings. The
    engine is checked first (see `kdaudit.inference.agreement`), on continuations of `_CHECKED` tokens.

    Raises:
        DisagreementError: the engine does not run the teacher as transformers reads it.
        EngineError: the teacher's engine failed.
        StorageError: the file could not be written.

    """
    wanted = _fingerprint(windows, teacher, settings)
    if _recorded(path) == wanted:
        return
    progress("the teacher writes", 0, len(windows))
    schema = HARD_SCHEMA.with_metadata({_FINGERPRINT: wanted})
    sample = np.random.default_rng(0).permutation(len(windows))[:WINDOWS].astype(np.int64)
    expected = _reference(windows, sample, teacher, settings, warn)
    with (
        start(teacher.engine) as engine,
        replacing(path, private=layout.is_private(path.name)) as partial,
        pq.ParquetWriter(partial, schema) as out,
    ):
        if expected is not None:
            check_engine(teacher.model, expected, _asking(engine), sample, 0)
        for first in range(0, len(windows), _ROWS):
            rows = range(first, min(first + _ROWS, len(windows)))
            out.write_table(_written(rows, windows, engine, settings, tokenizer).cast(schema))
            progress("the teacher writes", rows.stop, len(windows))


def _reference(
    windows: WindowFile,
    rows: NDArray[np.int64],
    teacher: TeacherEngine,
    settings: DecodingSettings,
    warn: Callable[[str], None],
) -> Expected | None:
    """The reference's continuations of some prefixes; None, with a warning, if it cannot run."""
    given = Ragged.of(windows[int(row)] for row in rows)
    prompts = given.head(settings.prefixes(windows, rows))
    tokens = np.minimum(_CHECKED, given.lengths - prompts.lengths)
    try:
        begun = prompts.after(settings.bos)
        return ask_reference(teacher.model, begun, tokens, masking=teacher.engine.masking)
    except NO_REFERENCE as error:
        warn(
            "teacher: its engine is not checked against a plain forward pass in transformers: "
            f"{reason(error)}"
        )
        return None


def _asking(engine: RemoteEngine) -> Asking:
    """Questions to an engine whose own matching is not used here: it generates, and the text is compared."""

    def match(prompts: Ragged, targets: Ragged) -> NDArray[np.int16]:
        written = engine.generate(prompts, targets.lengths)
        pairs = zip(written, targets, strict=True)
        return np.array([np.cumprod(own == target).sum() for own, target in pairs], dtype=np.int16)

    return Asking(engine.info, match, engine.generate)


def _fingerprint(windows: WindowFile, teacher: TeacherEngine, settings: DecodingSettings) -> str:
    """SHA-256 of everything that the text depends on."""
    engine = teacher.engine
    seed = 0 if settings.temperature == 0 else settings.seed  # greedy text depends on no seed
    return fingerprint(
        {
            "windows": windows.fingerprint,
            "teacher": teacher.fingerprint,
            "engine": [engine.engine, engine.dtype],
            "writing": _values(settings._replace(seed=seed)),
        },
        [],
    )


def _values(settings: DecodingSettings) -> dict[str, Any]:
    """Settings, as earlier versions wrote them down where they are of plain text."""
    plain = {"ends": (), "begun": 0}
    return {key: value for key, value in settings._asdict().items() if (key, value) not in plain.items()}


def _recorded(path: Path) -> str | None:
    """The fingerprint of a finished file; None if there is none that can be read."""
    try:
        metadata = pq.read_schema(path).metadata or {}
    except (OSError, pa.ArrowException):
        return None
    found = metadata.get(_FINGERPRINT)
    return None if found is None else str(found.decode())


class _Writer(NamedTuple):
    """The teacher's engine, in the form that `hard_windows` needs."""

    engine: RemoteEngine
    settings: DecodingSettings
    first: int
    """Row of the first prefix."""

    def generate(self, prompts: Ragged, tokens: Lengths) -> Ragged:
        """Continuation of each prompt, after a BOS token where there is one."""
        seed = self.settings.seed * _APART + self.first
        return self.engine.generate(prompts.after(self.settings.bos), tokens, self.settings.temperature, seed)


def _written(
    rows: range,
    windows: WindowFile,
    engine: RemoteEngine,
    settings: DecodingSettings,
    tokenizer: ModelTokenizer,
) -> pa.Table:
    given = settings.prefixes(windows, rows)
    writer = _Writer(engine, settings, rows.start)
    prefixes, own = zip(
        *hard_windows(windows[rows.start : rows.stop], given, writer, settings.ends), strict=True
    )
    return pa.table(
        {
            "example_id": pa.array(rows, pa.int64()),
            "document_id": [windows.document_ids[row] for row in rows],
            "prefix": tokenizer.batch_decode(prefixes),
            "generated": tokenizer.batch_decode(own),
            "text": tokenizer.batch_decode([*map(np.concatenate, zip(prefixes, own, strict=True))]),
            "prefix_token_ids": pa.array(prefixes, pa.list_(pa.int32())),
            "generated_token_ids": pa.array(own, pa.list_(pa.int32())),
        },
        schema=HARD_SCHEMA,
    )


def read_hard_windows(path: Path) -> list[HardWindow]:
    """The rows of a hard corpus: row i comes from window i."""
    found: list[HardWindow] = []
    for batch in pq.ParquetFile(path).iter_batches(columns=["prefix_token_ids", "generated_token_ids"]):
        for prefix, said in zip(batch.column(0), batch.column(1), strict=True):
            found.append(HardWindow(*(one.values.to_numpy().astype(np.int32) for one in (prefix, said))))
    return found


def read_hard_texts(path: Path) -> Iterator[list[str]]:
    """The texts of a hard corpus, prefix and what the teacher wrote, some thousands at a time."""
    for batch in pq.ParquetFile(path).iter_batches(_ROWS, columns=["text"]):
        yield batch.column(0).to_pylist()
