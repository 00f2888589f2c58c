"""What attacks wrote of each model, shard by shard, and how it is read back.

Invariant: shard n of an attack holds the examples of shard n of the corpus, in the same order. Each shard is
one batch of work, so an interrupted attack continues as an undisturbed one would have.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, NamedTuple, cast

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.attacks import GREEDY, GREEDY_TEXT, Attack, Decoding, Flags, in_tokens
from kdaudit.errors import RunStateError
from kdaudit.inference import Done, EngineInfo
from kdaudit.inference.executors import Replicas, Shard
from kdaudit.models.audited import AuditedModel
from kdaudit.pipelines.stages.readings import examples_for, is_by_text, read_for, texts_for, token_sizes
from kdaudit.pipelines.stages.shard_notes import engine_of, seconds_of, setting_of, shard_notes
from kdaudit.pipelines.stages.work import Work
from kdaudit.runs import Progress, layout
from kdaudit.runs.examples import read_shard
from kdaudit.runs.store import RunStore

_SETTINGS = "settings"
"""Key of a shard's metadata."""


class Attacked(NamedTuple):
    """What an attack found of one model in a corpus."""

    rows: pa.Table
    """The attack's columns but the first: row i is of example i."""
    exposed: Flags
    """Which examples are exposed: bool (examples,)."""
    seconds: float
    """Time inside the engine's process, over all calls."""
    engine: EngineInfo


def attack_folder(attack: Attack, audited: AuditedModel) -> str:
    """A model's attack: its stage, and its folder in the run."""
    return layout.attack(attack.name, audited.name)


def settings_of(attack: Attack) -> dict[str, Any] | None:
    """An attack's settings, which what it wrote depends on; None for one that has none."""
    return asdict(cast("Any", attack)) or None


def has_other_settings(run: RunStore, attack: Attack, folder: str) -> bool:
    """Whether the shards in a folder are of an attack with other settings than these."""
    shards = run.shards(folder)
    if not shards:
        return False
    return setting_of(run.read_table(shards[0], ["example_id"]), _SETTINGS) != _noted(attack)


def _noted(attack: Attack) -> str | None:
    """An attack's settings as its shards have them; None for one that has none."""
    settings = settings_of(attack)
    return None if settings is None else json.dumps(settings)


def is_done(work: Work, attack: Attack, audited: AuditedModel) -> bool:
    """Whether an attack on a model is finished with these settings."""
    return work.run.done(attack_folder(attack, audited), settings_of(attack))


def write_attacks(
    work: Work,
    engine: Replicas,
    decoding: Decoding,
    audited: AuditedModel,
    examples: str,
    outs: Sequence[str],
    progress: Progress,
) -> None:
    """Decode every pending shard; reading and writing overlap the engine's work.

    A model with a tokenizer of its own is asked for the texts, and what it matches is written in tokens of
    the run: greedy extraction alone.

    Args:
        work: the run.
        engine: the model, loaded.
        decoding: what is done with it.
        audited: the model.
        examples: their folder.
        outs: the folder of each of the decoding's attacks.
        progress: told how many shards are done, under the first folder's name.

    """
    run, by_text = work.run, is_by_text(work, audited)
    for out in outs:
        if done := run.shards(out):
            _refuse_another_engine(engine_of(run.read_table(done[0], ["example_id"])), engine.info)
    shards = run.shards(examples)
    todo = [shard for shard in shards if not all(run.has(layout.beside(shard, out)) for out in outs)]
    before = len(shards) - len(todo)
    progress(outs[0], before, len(shards))
    asked = texts_for if by_text else examples_for
    waiting = (Shard(shard, asked(work, audited, read_for(work, audited, shard))) for shard in todo)
    found = engine.map(GREEDY_TEXT if by_text else decoding.task, waiting)
    for number, (shard, finished) in enumerate(found, before + 1):
        whole = _in_tokens(work, shard, finished) if by_text else finished
        for attack, out in zip(decoding.attacks, outs, strict=True):
            _write(run, attack, whole, engine.info, layout.beside(shard, out))
        progress(outs[0], number, len(shards))


def _in_tokens(work: Work, shard: str, found: Done) -> Done:
    """What was matched by text, in tokens of the run."""
    examples = read_shard(work.run, shard, ["example_id", "token_ids"])
    return found._replace(rows=in_tokens(found.rows, token_sizes(work, examples)))


def _write(run: RunStore, attack: Attack, done: Done, engine: EngineInfo, name: str) -> None:
    """Write an attack's own columns of what a decoding gave."""
    if not run.has(name):  # else written before a kill between two attacks of one decoding
        settings = _noted(attack)
        notes = shard_notes(engine, done.seconds, **({} if settings is None else {_SETTINGS: settings}))
        run.write_table(name, done.rows.select(attack.columns.names).replace_schema_metadata(notes))


def _refuse_another_engine(before: EngineInfo, now: EngineInfo) -> None:
    """One model's shards must come from one engine, or near ties between tokens may fall either way."""
    if before != now:
        raise RunStateError(
            f"begun with {' '.join(before)}, now {' '.join(now)}",
            fix="continue with the first, or start again with --fresh",
            key="extraction",
        )


def read_attack(run: RunStore, attack: Attack, out: str) -> Attacked:
    """Read what a finished attack wrote."""
    columns = attack.columns.names[1:]
    tables = [run.read_table(shard, columns) for shard in run.shards(out)]
    rows = pa.concat_tables(table.replace_schema_metadata() for table in tables)
    return Attacked(rows, attack.exposed(rows), sum(map(seconds_of, tables)), engine_of(tables[0]))


def exposed_by(
    work: Work, audited_models: Sequence[AuditedModel], attack: Attack = GREEDY
) -> dict[str, Flags]:
    """Which examples an attack exposes in each model, by its name: bool (examples,)."""
    return {
        audited.name: read_attack(work.run, attack, attack_folder(attack, audited)).exposed
        for audited in audited_models
    }


def leaked(students: Sequence[Flags]) -> NDArray[np.int64]:
    """Ids of the examples that at least one student exposes, ascending."""
    return np.flatnonzero(np.logical_or.reduce(students)).astype(np.int64)
