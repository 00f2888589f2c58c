"""What leaked: the leaks of results.json, which hold no text, and leaks.parquet, which does.

A leak is an example that a student memorizes. Leaks are made a shard of the examples at a time and written as
they come: memory holds some hundreds of them, and of what is read of all of them one number or token each.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.analysis.inheritance import Classes, classes
from kdaudit.analysis.personal_data import find_tags
from kdaudit.attacks.examples import windows_of
from kdaudit.attacks.sampled import expected_queries
from kdaudit.corpus import Example, read_rows
from kdaudit.inference import MatchedTokens, Tokens
from kdaudit.models.tokenizer import reader_of
from kdaudit.pipelines.stages.attacked import leaked
from kdaudit.pipelines.stages.measured import Measured, Measurements
from kdaudit.runs import layout
from kdaudit.runs.examples import read_examples
from kdaudit.runs.store import RunStore
from kdaudit.schemas.results import Leak

_ROWS = 512
"""Leaks that are read together."""


class LeakRow(NamedTuple):
    """A leak, and what stands of it in leaks.parquet alone."""

    leak: Leak
    """Not accepted."""
    text: dict[str, Any]
    """The other columns of LEAKS_SCHEMA."""


def leak_rows(run: RunStore, measurements: Measurements) -> Iterator[LeakRow]:
    """All leaks by example id."""
    flags = {name: measurements.memorized(name) for name in measurements.by_model}
    ids = leaked([flags[student.name] for student in measurements.models.students])
    maker = _Maker(run, measurements)
    for shard in read_examples(run, layout.EXAMPLES, ids):
        for start in range(0, len(shard), _ROWS):
            yield from maker.rows(shard.slice(start, _ROWS))


class _Maker:
    """Makes leaks of examples."""

    def __init__(self, run: RunStore, measurements: Measurements) -> None:
        self._measurements, self._key = measurements, run.key()
        self._flags = {name: measurements.memorized(name) for name in measurements.by_model}
        self._classes = _classes(measurements)
        self._models = [_Continuations(run, measurements, one) for one in measurements.by_model.values()]

    def rows(self, table: pa.Table) -> Iterator[LeakRow]:
        """The leaks of these examples, which all are some."""
        table = table.combine_chunks()
        ids = table["example_id"].to_numpy()
        said = [[*one.rows(ids)] for one in self._models]
        places = table.drop_columns("token_ids").to_pylist()
        for number, (place, row) in enumerate(
            zip(places, read_rows(table, self._measurements.usual), strict=True)
        ):
            models = [one.shown(row, *what[number]) for one, what in zip(self._models, said, strict=True)]
            yield self._row(place, row, models)

    def _row(self, place: Mapping[str, Any], row: Example, models: list[dict[str, Any]]) -> LeakRow:
        measurements, example = self._measurements, place["example_id"]
        prefix, suffix = measurements.models.decode(row.prompt), measurements.models.decode(row.target)
        kinds = {name: _at(found.examples, example) for name, found in self._classes.items()}
        leak = Leak(
            example_id=example,
            document_id=row.document,
            memorized_by=[name for name, flag in self._flags.items() if flag[example]],
            classes={name: self._classes[name].classes[at] for name, at in kinds.items() if at is not None},
            copies=int(measurements.copies[example]),
            risk=None if measurements.risk is None else float(measurements.risk[example]),
            tags=find_tags(measurements.models.decode([*row.prompt, *row.target])),
            suffix_hmac=hmac.new(self._key, suffix.encode(), hashlib.sha256).hexdigest(),
            **_lengths(measurements, row),
        )
        text = {"offset": place["offset"], "text": place["text"], "prefix": prefix, "suffix": suffix}
        return LeakRow(leak, {**text, "models": models})


def parquet_row(row: LeakRow, leak: Leak) -> dict[str, Any]:
    """A row of LEAKS_SCHEMA.

    Args:
        row: of the leak.
        leak: the leak, accepted or not.

    """
    kinds = [{"student": name, "class": kind} for name, kind in leak.classes.items()]
    return {**dict(leak), **row.text, "classes": kinds}


def _lengths(measurements: Measurements, row: Example) -> dict[str, Any]:
    """How long prefix and suffix are, where examples differ in that."""
    if measurements.corpus.answers is None and not measurements.models.by_text:
        return {}
    return {"prefix_tokens": len(row.prompt), "suffix_tokens": len(row.target)}


def _classes(measurements: Measurements) -> dict[str, Classes]:
    """For each student, the class of each example that it memorizes."""
    teacher = measurements.family.teacher
    baselines = [measurements.memorized(one.name) for one in measurements.models.baselines]
    return {
        student.name: classes(measurements.memorized(student.name), teacher, baselines)
        for student in measurements.models.students
    }


def _at(ids: NDArray[np.integer[Any]], example: int) -> int | None:
    """Where an example stands among ascending ids; None if it does not."""
    place = int(np.searchsorted(ids, example))
    return place if place < len(ids) and ids[place] == example else None


class _Continuations:
    """What one model says after the prefixes of leaks."""

    def __init__(self, run: RunStore, measurements: Measurements, measured: Measured) -> None:
        self._measurements, self._audited = measurements, measured.audited
        self._matched: MatchedTokens = measured.corpus.rows["matched_tokens"].to_numpy()
        continuations = run.read_table(layout.continuations(measured.audited.name))
        self._ids, self._tokens = continuations["example_id"].to_numpy(), windows_of(continuations)
        self._drawn = measured.drawn

    def rows(self, ids: NDArray[np.int64]) -> Iterator[tuple[int, Tokens | None, float | None]]:
        """Of each example: tokens that match, the continuation if it differs, samples until it is drawn."""
        for example in ids.tolist():
            place = _at(self._ids, example)
            said = None if place is None else self._tokens[place]
            yield int(self._matched[example]), said, self._queries(example)

    def _queries(self, example: int) -> float | None:
        if self._drawn is None or (place := _at(self._drawn.example_ids, example)) is None:
            return None
        return float(expected_queries(self._drawn.log_probability[place : place + 1])[0])

    def shown(self, row: Example, matched: int, said: Tokens | None, queries: float | None) -> dict[str, Any]:
        """An entry of the column `models`."""
        text = self._measurements.models.decode(row.target) if said is None else self._text(said, row.target)
        return {
            "name": self._audited.name,
            "matched_tokens": matched,
            "continuation": text,
            "expected_queries": queries,
        }

    def _text(self, ids: Tokens, target: Tokens) -> str:
        """The text of a continuation; of a model that is compared by text, as it stands behind its prompt.

        Where decoding drops the space before the suffix, as SentencePiece does, it is dropped here too.
        """
        audited, models = self._audited, self._measurements.models
        if audited.name not in models.by_text:
            return audited.tokenizer.decode(ids)
        said = reader_of(audited.tokenizer).write(ids.tolist())
        shown, whole = models.decode(target), reader_of(models.tokenizer).write(target.tolist())
        return said.removeprefix(" ") if whole == f" {shown}" else said
