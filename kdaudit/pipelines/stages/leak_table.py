"""What leaked: the leaks of results.json, which hold no text, and leaks.parquet, which does.

A leak is an example that a student memorizes. Text is read back for the leaks alone, a shard at a time.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from kdaudit.analysis.inheritance import classes
from kdaudit.analysis.personal_data import find_tags
from kdaudit.attacks.examples import windows_of
from kdaudit.attacks.sampled import expected_queries
from kdaudit.corpus import Example, read_rows
from kdaudit.inference import MatchedTokens, Tokens
from kdaudit.models.audited import AuditedModel
from kdaudit.models.tokenizer import reader_of
from kdaudit.pipelines.stages.attacked import leaked
from kdaudit.pipelines.stages.measured import Audited, Measured
from kdaudit.runs import layout
from kdaudit.runs.examples import read_examples
from kdaudit.runs.store import RunStore
from kdaudit.schemas.result import LeakClass
from kdaudit.schemas.results import Leak


def leaks_of(run: RunStore, audited: Audited) -> Iterator[Leak]:
    """The leaks without their text, by example id."""
    by_student = _classes(audited)
    flags = {name: audited.memorized(name) for name in audited.measured}
    key = run.key()
    ids = leaked([flags[student.name] for student in audited.models.students])
    for table in read_examples(run, layout.EXAMPLES, ids):
        rows = read_rows(table, audited.usual)
        for example, row in zip(table["example_id"].to_pylist(), rows, strict=True):
            yield Leak(
                example_id=example,
                document_id=row.document,
                memorized_by=[name for name, flag in flags.items() if flag[example]],
                classes={name: found[example] for name, found in by_student.items() if example in found},
                copies=int(audited.copies[example]),
                risk=None if audited.risk is None else float(audited.risk[example]),
                tags=find_tags(audited.models.decode([*row.prompt, *row.target])),
                suffix_hmac=_keyed(key, audited.models.decode(row.target)),
                **_lengths(audited, row),
            )


def _lengths(audited: Audited, row: Example) -> dict[str, Any]:
    """How long prefix and suffix are, where examples differ in that."""
    if audited.corpus.answers is None and not audited.models.by_text:
        return {}
    return {"prefix_tokens": len(row.prompt), "suffix_tokens": len(row.target)}


def _keyed(key: bytes, text: str) -> str:
    return hmac.new(key, text.encode(), hashlib.sha256).hexdigest()


def _classes(audited: Audited) -> dict[str, dict[int, LeakClass]]:
    """For each student, the class of each example that it memorizes, by example id."""
    teacher = audited.family.teacher
    baselines = [audited.memorized(one.name) for one in audited.models.baselines]
    found = {}
    for student in audited.models.students:
        kinds = classes(audited.memorized(student.name), teacher, baselines)
        found[student.name] = dict(zip(kinds.examples.tolist(), kinds.classes, strict=True))
    return found


def leaks_table(run: RunStore, audited: Audited, leaks: Sequence[Leak]) -> pa.Table:
    """leaks.parquet: the leaks with their text and what every model said."""
    ids = np.array([leak.example_id for leak in leaks], dtype=np.int64)
    said = {name: _continuations(run, name) for name in audited.measured}
    matched = {name: one.corpus.rows["matched_tokens"].to_numpy() for name, one in audited.measured.items()}
    queries = {name: _expected_queries(one) for name, one in audited.measured.items()}
    tables, after = [layout.LEAKS_SCHEMA.empty_table()], iter(leaks)
    for table in read_examples(run, layout.EXAMPLES, ids):
        examples = read_rows(table, audited.usual)
        places = table.drop_columns("token_ids").to_pylist()
        rows = [
            _leak_row(audited, next(after), place, example, said, matched, queries)
            for place, example in zip(places, examples, strict=True)
        ]
        tables.append(
            pa.Table.from_pylist(rows, schema=layout.LEAKS_SCHEMA)
        )  # rows of one shard are held at a time
    return pa.concat_tables(tables)


def _leak_row(
    audited: Audited,
    leak: Leak,
    place: Mapping[str, Any],
    row: Example,
    said: Mapping[str, Mapping[int, Tokens]],
    matched: Mapping[str, MatchedTokens],
    queries: Mapping[str, Mapping[int, float]],
) -> dict[str, Any]:
    """A row of layout.LEAKS_SCHEMA; `place` is the example's row without its token ids."""
    example, text = leak.example_id, audited.models.decode(row.target)
    return {
        **place,
        "prefix": audited.models.decode(row.prompt),
        "suffix": text,
        "models": [
            {
                "name": name,
                "matched_tokens": int(matched[name][example]),
                "continuation": _said(audited, one.member, said[name][example], row.target)
                if example in said[name]
                else text,
                "expected_queries": queries[name].get(example),
            }
            for name, one in audited.measured.items()
        ],
        "classes": [{"student": name, "class": kind} for name, kind in leak.classes.items()],
        "risk": leak.risk,
        "tags": leak.tags,
    }


def _expected_queries(measured: Measured) -> dict[int, float]:
    """Samples until one is the suffix, on average, by example id; of a sample with all leaks in it."""
    drawn = measured.drawn
    if drawn is None:
        return {}
    queries = expected_queries(drawn.log_probability)
    return dict(zip(drawn.example_ids.tolist(), queries.tolist(), strict=True))


def _said(audited: Audited, member: AuditedModel, ids: Tokens, target: Tokens) -> str:
    """The text of a continuation; of a model that is compared by text, as it stands behind its prompt.

    Where decoding drops the space before the suffix, as SentencePiece does, it is dropped here too.
    """
    if member.name not in audited.models.by_text:
        return member.tokenizer.decode(ids)
    said, models = reader_of(member.tokenizer).write(ids.tolist()), audited.models
    shown, whole = models.decode(target), reader_of(models.tokenizer).write(target.tolist())
    return said.removeprefix(" ") if whole == f" {shown}" else said


def _continuations(run: RunStore, name: str) -> dict[int, Tokens]:
    """What a model said where it did not reproduce the suffix, by example id."""
    table = run.read_table(layout.continuations(name))
    return dict(zip(table["example_id"].to_pylist(), windows_of(table), strict=True))
