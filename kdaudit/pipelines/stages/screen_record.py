"""From what a screening found to screen.json."""

from __future__ import annotations

import numpy as np

from kdaudit import __version__
from kdaudit.attacks import GREEDY
from kdaudit.config.screen import ScreenConfig
from kdaudit.pipelines.stages.answers import answer_notes
from kdaudit.pipelines.stages.attacked import attack_folder, read_attack
from kdaudit.pipelines.stages.engine_check import engine_notes, read_checked
from kdaudit.pipelines.stages.examples import read_copies
from kdaudit.pipelines.stages.features import read_scoring
from kdaudit.pipelines.stages.flagging import feature_spreads
from kdaudit.pipelines.stages.predicting import read_prediction
from kdaudit.pipelines.stages.screened import ScreenWork, flagged_of, labels_of, predictor_of
from kdaudit.pipelines.stages.tradeoff import levels_of, tradeoff_of
from kdaudit.runs import layout
from kdaudit.schemas.corpus import CorpusResult
from kdaudit.schemas.notes import Note
from kdaudit.schemas.results import ExtractionResult
from kdaudit.schemas.screening import FlaggedCounts, KeptCounts, ScreenedModel, ScreenRecord


def record_of(screening: ScreenWork, corpus: CorpusResult) -> ScreenRecord:
    """Everything in screen.json."""
    config, work = screening.config, screening.work
    found, predictor, prediction = flagged_of(screening), predictor_of(screening), read_prediction(work)
    kept = work.run.read_json(layout.KEPT_COUNTS, KeptCounts)
    copies, labels = read_copies(work), labels_of(screening)
    checked = {audited.name: read_checked(work, audited) for audited in work.models.all}
    return ScreenRecord(
        schema_version="2",
        name=config.name,
        created=work.run.created,
        kdaudit_version=__version__,
        seed=config.seed,
        corpus=corpus,
        extraction=_extraction(screening),
        models={
            audited.name: ScreenedModel(
                role=audited.role,
                examples=corpus.examples,
                memorized=int(found.memorized[audited.name].sum()),
                fingerprint=audited.model.fingerprint,
                engine_check=checked[audited.name].check,
            )
            for audited in work.models.all
        },
        labels=screening.kind if screening.given is None else screening.given.labels,
        origin=None if predictor is None else predictor.origin,
        predictor=prediction.result,
        risk_histogram=found.histogram,
        features=feature_spreads(work.run, found.flags),
        flagged=FlaggedCounts(
            examples=int(found.flags.sum()),
            places=int(copies[found.flags].sum(dtype=np.int64)),
            documents=kept.documents_flagged,
            memorized=int(labels.sum()),
            predicted=int((found.flags & ~labels).sum()),
        ),
        tradeoff=tradeoff_of(prediction, levels_of(prediction, found.risk, labels), copies, kept),
        kept=kept,
        drop=config.drop,
        format=config.format,
        max_flagged=config.max_flagged,
        notes=[
            *engine_notes(checked),
            *work.notes,
            *answer_notes(corpus, {}),
            *prediction.notes,
            *_columns_replaced(kept),
            *much_text_dropped(kept, config),
        ],
    )


def _columns_replaced(kept: KeptCounts) -> list[Note]:
    if not kept.columns_replaced:
        return []
    text = (
        "In kept/, values that JSON readers refuse were replaced: NaN and infinity by null, half of a "
        "surrogate pair by U+FFFD, integers beyond 64 bits by the nearest double. "
        f"Columns: {', '.join(kept.columns_replaced)}."
    )
    return [Note(code="columns_replaced", subject="kept", text=text)]


def much_text_dropped(kept: KeptCounts, config: ScreenConfig) -> list[Note]:
    """A note where whole documents take more text than `max_flagged` allows of examples and documents."""
    dropped, limit = 1 - kept.characters_after / max(1, kept.characters_before), config.max_flagged
    if config.drop != "document" or kept.withheld or dropped <= limit:
        return []
    text = (
        f"{dropped:.0%} of the text is dropped, though at most {limit:.0%} of examples and documents may be "
        "(max_flagged): long documents go for a few flagged windows. `drop: window` cuts out these alone."
    )
    return [Note(code="much_text_dropped", subject="kept", text=text)]


def _extraction(screening: ScreenWork) -> ExtractionResult:
    work, engine = screening.work, screening.config.extraction.engine
    info = (
        read_scoring(work)
        if engine is None
        else read_attack(work.run, GREEDY, attack_folder(GREEDY, work.models.cutter)).engine
    )
    return ExtractionResult(
        engine=info.engine,
        engine_version=info.version,
        prefix_tokens=work.split.prefix_tokens,
        suffix_tokens=work.split.suffix_tokens,
        bos=work.split.bos is not None,
        dtype=info.dtype,
        device=info.device,
    )
