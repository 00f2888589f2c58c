"""From extractions to results.json and leaks.parquet: counts, comparison, gate, leaks.

Nothing here runs a model. Arrays are by example id; text is read back for the leaks alone.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit import __version__
from kdaudit.config.audit import AuditConfig
from kdaudit.engines.base import Tokens
from kdaudit.extraction import Extraction, Split, continuations_file, cut, leaked, read_examples
from kdaudit.gate import judge
from kdaudit.inheritance import classes, compare, soft_vs_hard, survival
from kdaudit.leaks import LEAKS_SCHEMA
from kdaudit.results import (
    AuditResults,
    ComparisonResult,
    CorpusResult,
    Curves,
    ExtractionResult,
    Floor,
    Leak,
    LeakClass,
    ModelResult,
    PredictorResult,
    SoftVsHard,
)
from kdaudit.roster import Member, Roster
from kdaudit.stats import Flags, clopper_pearson
from kdaudit.store import RunStore


class Measured(NamedTuple):
    """One model's extractions."""

    member: Member
    corpus: Extraction
    holdout: Extraction | None
    perplexity: float | None


class Audited(NamedTuple):
    """All that the results are made from."""

    config: AuditConfig
    roster: Roster
    corpus: CorpusResult
    split: Split
    copies: NDArray[np.int32]
    """Places of each example: int32 (examples,)."""
    measured: Mapping[str, Measured]
    """By model name, in the roster's order."""

    def memorized(self, name: str) -> Flags:
        """Which examples a model memorizes: bool (examples,)."""
        flags: Flags = self.measured[name].corpus.matched == self.split.suffix_tokens
        return flags


def build_results(run: RunStore, audited: Audited) -> AuditResults:
    """Everything in results.json."""
    models = {name: _model_result(audited, one) for name, one in audited.measured.items()}
    comparison, soft_hard, notes = _compare(audited)
    gate = judge(audited.config.gate, comparison, models, not audited.corpus.sampled)
    return AuditResults(
        schema_version="1",
        name=audited.config.name,
        created=run.created,
        kdaudit_version=__version__,
        seed=audited.config.seed,
        corpus=audited.corpus,
        extraction=_extraction_result(audited),
        models=models,
        comparison=comparison,
        soft_vs_hard=soft_hard,
        predictor=PredictorResult(status="disabled"),
        curves=Curves(),
        gate=gate,
        leaks=list(_leaks(run, audited)),
        notes=[*notes, *_missing(audited)],
    )


def _missing(audited: Audited) -> list[str]:
    notes = [
        "The risk predictor is not part of this version: no example carries a risk.",
        "Leaked text was not searched for personal data: tags are empty.",
    ]
    if audited.config.holdout is None:
        notes.insert(
            0, "Without a holdout corpus there is no false-positive floor and no perplexity of any model."
        )
    return notes


def _model_result(audited: Audited, measured: Measured) -> ModelResult:
    member, corpus = measured.member, measured.corpus
    memorized = audited.memorized(member.name)
    count, total = int(memorized.sum()), len(memorized)
    read = total * audited.split.prefix_tokens
    return ModelResult(
        role=member.role,
        kd=member.kd,
        examples=total,
        memorized=count,
        rate=count / total,
        ci95=clopper_pearson(count, total),
        windows_memorized=int(audited.copies[memorized].sum(dtype=np.int64)),
        survival=survival(corpus.matched, audited.split.suffix_tokens),
        holdout=_floor(measured.holdout, audited.split),
        perplexity=measured.perplexity,
        fingerprint=member.model.fingerprint,
        seconds=round(corpus.seconds, 3),
        tokens_per_second=round(read / corpus.seconds, 1) if corpus.seconds else None,
    )


def _floor(holdout: Extraction | None, split: Split) -> Floor | None:
    if holdout is None:
        return None
    count, total = int((holdout.matched == split.suffix_tokens).sum()), len(holdout.matched)
    return Floor(examples=total, memorized=count, rate=count / total, ci95=clopper_pearson(count, total))


def _extraction_result(audited: Audited) -> ExtractionResult:
    engines = [measured.corpus.engine for measured in audited.measured.values()]
    first = engines[0]
    return ExtractionResult(
        engine=first.engine,
        engine_version=", ".join(sorted({engine.version for engine in engines})),
        prefix_tokens=audited.split.prefix_tokens,
        suffix_tokens=audited.split.suffix_tokens,
        bos=audited.split.bos is not None,
        dtype=", ".join(sorted({engine.dtype for engine in engines})),
        device=", ".join(sorted({engine.device for engine in engines})),
    )


class _Compared(NamedTuple):
    comparison: dict[str, ComparisonResult]
    soft_vs_hard: SoftVsHard | None
    notes: list[str]


def _compare(audited: Audited) -> _Compared:
    teacher = audited.memorized("teacher")
    baselines = [audited.memorized(one.name) for one in audited.roster.baselines]
    notes: list[str] = []
    comparison = {}
    for student in audited.roster.students:
        found = compare(student.name, audited.memorized(student.name), teacher, baselines)
        comparison[student.name] = found.figures
        notes += found.notes
    pair = {kd: _first(audited.roster.students, kd) for kd in ("soft", "hard")}
    soft, hard = pair["soft"], pair["hard"]
    if soft is None or hard is None:
        notes.append(
            "Soft and hard KD are not compared: that takes one student of each kind (models.students, "
            "key kd)."
        )
        return _Compared(comparison, None, notes)
    others = [one.name for one in audited.roster.students if one.kd and one not in (soft, hard)]
    if others:
        notes.append(
            f"Soft and hard KD are compared for the first student of each kind; not for {', '.join(others)}."
        )
    both = soft_vs_hard(
        soft.name, hard.name, audited.memorized(soft.name), audited.memorized(hard.name), teacher, baselines
    )
    return _Compared(comparison, both.figures, [*notes, *both.notes])


def _first(students: list[Member], kd: str) -> Member | None:
    return next((student for student in students if student.kd == kd), None)


def _leaks(run: RunStore, audited: Audited) -> Iterator[Leak]:
    """The leaks without their text, by example id."""
    by_student = _classes(audited)
    flags = {name: audited.memorized(name) for name in audited.measured}
    key = run.key()
    ids = leaked(
        [audited.measured[student.name].corpus for student in audited.roster.students], audited.split
    )
    for table in read_examples(run, "examples", ids):
        suffixes = cut(table["token_ids"], audited.split).suffixes
        names = zip(table["example_id"].to_pylist(), table["document_id"].to_pylist(), suffixes, strict=True)
        for example, document, suffix in names:
            yield Leak(
                example_id=example,
                document_id=document,
                memorized_by=[name for name, flag in flags.items() if flag[example]],
                classes={name: found[example] for name, found in by_student.items() if example in found},
                copies=int(audited.copies[example]),
                risk=None,
                tags=[],
                suffix_hmac=hmac.new(key, audited.roster.decode(suffix).encode(), hashlib.sha256).hexdigest(),
            )


def _classes(audited: Audited) -> dict[str, dict[int, LeakClass]]:
    """For each student, the class of each example that it memorizes, by example id."""
    teacher = audited.memorized("teacher")
    baselines = [audited.memorized(one.name) for one in audited.roster.baselines]
    found = {}
    for student in audited.roster.students:
        kinds = classes(audited.memorized(student.name), teacher, baselines)
        found[student.name] = dict(zip(kinds.examples.tolist(), kinds.classes, strict=True))
    return found


def leaks_table(run: RunStore, audited: Audited, leaks: list[Leak]) -> pa.Table:
    """leaks.parquet: the leaks with their text and what every model said."""
    ids = np.array([leak.example_id for leak in leaks], dtype=np.int64)
    said = {name: _continuations(run, name) for name in audited.measured}
    tables, after = [LEAKS_SCHEMA.empty_table()], iter(leaks)
    for table in read_examples(run, "examples", ids):
        parts = cut(table["token_ids"], audited.split)
        begin = int(audited.split.bos is not None)
        places = table.drop_columns("token_ids").to_pylist()
        rows = [
            _leak_row(audited, next(after), place, prefix[begin:], suffix, said)
            for place, prefix, suffix in zip(places, parts.prefixes, parts.suffixes, strict=True)
        ]
        tables.append(pa.Table.from_pylist(rows, schema=LEAKS_SCHEMA))  # rows of one shard are held at a time
    return pa.concat_tables(tables)


def _leak_row(
    audited: Audited,
    leak: Leak,
    place: Mapping[str, Any],
    prefix: Tokens,
    suffix: Tokens,
    said: Mapping[str, Mapping[int, Tokens]],
) -> dict[str, Any]:
    """A row of LEAKS_SCHEMA; `place` is the example's row without its token ids."""
    example = leak.example_id
    return {
        **place,
        "prefix": audited.roster.decode(prefix),
        "suffix": audited.roster.decode(suffix),
        "models": [
            {
                "name": name,
                "matched_tokens": int(one.corpus.matched[example]),
                "continuation": audited.roster.decode(said[name].get(example, suffix)),
            }
            for name, one in audited.measured.items()
        ],
        "classes": [{"student": name, "class": kind} for name, kind in leak.classes.items()],
        "risk": leak.risk,
        "tags": leak.tags,
    }


def _continuations(run: RunStore, name: str) -> dict[int, Tokens]:
    """What a model said where it did not reproduce the suffix, by example id."""
    table = run.read_table(continuations_file(name))
    ids, tokens = table["example_id"].to_pylist(), table["token_ids"].combine_chunks()
    if not ids:
        return {}
    return dict(zip(ids, tokens.flatten().to_numpy().reshape(len(ids), -1), strict=True))
