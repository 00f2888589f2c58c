"""The engine check of each model: before an engine measures anything, it must agree with the reference.

The reference (`kdaudit.inference.reference`) is loaded and gone before the engine is loaded, so that two
copies of a model never share the memory; what it says is kept, as `engine_check/MODEL.parquet`. The engine
is asked as soon as it is loaded, ahead of the model's first shard, and loaded once.
`engine_check/MODEL.json` is the outcome. For the transformers engine the reference is the other side too: it
shares library and files, but neither attention kernel, dtype and batches nor the way to read a suffix; vLLM
would check more, but need not be installed.

Prefixes are those of a seeded sample of the corpus's examples. Suffixes are the reference's own
continuations: a model leaves most true suffixes at their first token, and every position should count.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from importlib.metadata import version

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.errors import reason
from kdaudit.inference import Batch, Ragged
from kdaudit.inference.agreement import WINDOWS, Continuations, Rounding, share_of_ties
from kdaudit.inference.checking import NO_REFERENCE, Asking, Expected, Model, ask_reference, check_engine
from kdaudit.inference.executors import Replicas
from kdaudit.inference.retry import retry_on_oom
from kdaudit.models.audited import AuditedModel
from kdaudit.pipelines.stages.readings import examples_for, read_for
from kdaudit.pipelines.stages.work import Work
from kdaudit.runs import layout
from kdaudit.schemas.notes import Note
from kdaudit.schemas.result import Result
from kdaudit.schemas.results import EngineCheck

_ROWS = Continuations._fields[:3]
"""Columns of engine_check/MODEL.parquet that hold a row of a window each."""
_WEAK = 0.75
"""Share of near ties above which a check shows little."""
_SHARDS = 4
"""Shards that the prefixes come from: a corpus may have more than should be read for a few dozen."""


class CheckOutcome(Result):
    """The contents of engine_check/MODEL.json."""

    check: EngineCheck | None
    """None where there could be none."""
    engine: tuple[str, ...]
    """What was checked: the fields of `EngineInfo`."""
    note: str | None
    """Why there could be none, or why it shows little."""


def engine_notes(checked: Mapping[str, CheckOutcome]) -> list[Note]:
    """A note for each model, by its name, whose engine was not checked, or whose check shows little."""
    return [
        Note(
            code="engine_not_checked" if one.check is None else "engine_check_weak",
            subject=name,
            text=one.note,
        )
        for name, one in checked.items()
        if one.note
    ]


def write_reference(work: Work, audited: AuditedModel) -> None:
    """Let the reference say what the model says; where it cannot, note why, and warn.

    Nothing is written for a model behind an endpoint: it has no weights here, and a note of its own says so.
    """
    if audited.model.behind is not None:
        return
    run, stamps = work.run, work.stamps(audited)
    depends = {"transformers": version("transformers"), "windows": WINDOWS, "files": stamps}
    if run.done(_stage(audited), depends) and any(map(run.has, engine_check_files(audited))):
        return
    with run.stage(_stage(audited), depends):
        run.discard(*engine_check_files(audited))
        work.progress(f"{audited.name}: engine check, the reference writes", 0, 0)
        sample = _sample(work, audited)

        def attempt(retries: int) -> None:
            began = time.monotonic()
            expected = ask_reference(_model(work, audited), sample.prompts, sample.targets.lengths, retries)
            table = _table(expected, sample.example_ids, time.monotonic() - began)
            run.write_table(layout.reference(audited.name), table)

        try:
            retry_on_oom(audited.name, attempt, work.warn)
        except NO_REFERENCE as error:
            note = (
                f"{audited.name}: what the engine says was not checked against a plain forward pass in "
                f"transformers: {reason(error)}"
            )
            work.warn(note)
            _write_outcome(work, audited, CheckOutcome(check=None, engine=(), note=note))


def check_remote(work: Work, audited: AuditedModel, engine: Replicas) -> None:
    """Check an engine of extraction, see `check_loaded`."""
    check_loaded(work, audited, Asking(engine.info, engine.match, engine.generate))


def check_loaded(work: Work, audited: AuditedModel, asking: Asking) -> None:
    """Check a loaded model, unless this very engine was checked or there is no reference.

    Raises:
        DisagreementError: the engine does not run the reference's model.
        EngineError: it failed.

    """
    run = work.run
    if not run.has(layout.reference(audited.name)) or read_checked(work, audited).engine == tuple(
        asking.info
    ):
        return
    began = time.monotonic()
    table = run.read_table(layout.reference(audited.name))
    expected, names = _expected(table), table["example_id"].to_numpy()
    found = check_engine(_model(work, audited), expected, asking, names, work.seed)
    check = EngineCheck(
        windows=found.windows,
        positions=found.positions,
        disagreeing=len(found.departures),
        near_ties=found.near_ties,
        tolerance=expected.rounding.tolerance,
        seconds=round(float(table.schema.metadata[b"seconds"]) + time.monotonic() - began, 3),
        reference=expected.about,
    )
    note = _weakness(audited, share_of_ties(expected.continuations, expected.rounding))
    if note is not None:
        work.warn(note)
    _write_outcome(work, audited, CheckOutcome(check=check, engine=tuple(asking.info), note=note))


def _weakness(audited: AuditedModel, ties: float) -> str | None:
    """What a check is worth at whose positions so large a share are near ties; None if it shows enough."""
    if ties <= _WEAK:
        return None
    return (
        f"{audited.name}: the engine check shows little. At {ties:.0%} of its positions the two likeliest "
        "tokens are closer than what rounding changes in this model, so that the tokens of another model "
        "would pass as near ties. In float32, or with weights that are not quantized, it would show more."
    )


def read_checked(work: Work, audited: AuditedModel) -> CheckOutcome:
    """What came of a model's check."""
    if not work.run.has(layout.engine_check(audited.name)):
        return CheckOutcome(check=None, engine=(), note=None)
    return work.run.read_json(layout.engine_check(audited.name), CheckOutcome)


def _sample(work: Work, audited: AuditedModel) -> Batch:
    """A few dozen examples with different prompts, in random order."""
    random = np.random.default_rng(work.seed)
    shards = random.permutation(work.run.shards(layout.EXAMPLES))[:_SHARDS]
    table = pa.concat_tables(read_for(work, audited, str(shard)) for shard in shards)
    examples = examples_for(work, audited, table)
    first = {tuple(prompt.tolist()): row for row, prompt in reversed([*enumerate(examples.prompts)])}
    chosen = random.permutation([row for _, row in sorted(first.items())])[:WINDOWS]
    return examples.take(chosen)


def _table(expected: Expected, examples: NDArray[np.int64], seconds: float) -> pa.Table:
    written, ends = expected.continuations, expected.continuations.ends
    rows = {name: getattr(written, name) for name in _ROWS}
    columns = {
        name: pa.array([row[:end] for row, end in zip(values, ends, strict=True)])
        for name, values in rows.items()
    }
    notes = {"rounding": json.dumps(expected.rounding), "about": expected.about, "seconds": repr(seconds)}
    table = pa.table(
        {
            "example_id": pa.array(examples[: len(expected.prompts)]),
            "prefix_token_ids": pa.array(list(expected.prompts)),
            **columns,
        }
    )
    return table.replace_schema_metadata(notes)


def _expected(table: pa.Table) -> Expected:
    lengths = table[_ROWS[0]].combine_chunks().value_lengths().to_numpy().astype(np.int64)
    width = int(lengths.max())
    tokens, margins, unlikely = (
        np.stack([np.pad(row, (0, width - len(row))) for row in table[name].to_numpy()]) for name in _ROWS
    )
    notes = table.schema.metadata
    rounding = Rounding(*json.loads(notes[b"rounding"]))
    prompts = Ragged.of(table["prefix_token_ids"].to_numpy())
    return Expected(
        prompts, Continuations(tokens, margins, unlikely, lengths), rounding, notes[b"about"].decode()
    )


def _model(work: Work, audited: AuditedModel) -> Model:
    files = work.files(audited)
    return Model(audited.name, *files, audited.model.parameters)


def _write_outcome(work: Work, audited: AuditedModel, checked: CheckOutcome) -> None:
    work.run.write_text(layout.engine_check(audited.name), checked.model_dump_json(indent=1) + "\n")


def engine_check_files(audited: AuditedModel) -> list[str]:
    """What a model's check is kept in; where it is discarded, the check is made again."""
    return [layout.reference(audited.name), layout.engine_check(audited.name)]


def _stage(audited: AuditedModel) -> str:
    return f"{layout.ENGINE_CHECK}/{audited.name}"
