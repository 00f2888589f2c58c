"""`kdaudit screen`, top to bottom: `run_screen` is its map.

    config -> models, corpus windows -> features (and extraction, where asked for) -> predictor
    -> what to flag -> kept corpus -> screen.json, reports

The stages are an audit's (`kdaudit.pipelines.stages`) and resume as they do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from kdaudit import __version__
from kdaudit.analysis.intervals import Flags
from kdaudit.attacks import GREEDY
from kdaudit.config.predictor import LabelKind
from kdaudit.config.screen import KINDS, ScreenConfig
from kdaudit.corpus import ExampleTokens, PinnedSource, check_unchanged
from kdaudit.errors import CorpusError
from kdaudit.pipelines.stages.answers import answer_notes
from kdaudit.pipelines.stages.attacked import attack_folder, exposed_by, read_attack
from kdaudit.pipelines.stages.engine_check import engine_notes, read_checked
from kdaudit.pipelines.stages.examples import read_copies, read_cuts, write_examples
from kdaudit.pipelines.stages.extracting import Extracting
from kdaudit.pipelines.stages.featured import scored_examples
from kdaudit.pipelines.stages.flagging import (
    Flagged,
    feature_spreads,
    write_flagged,
)
from kdaudit.pipelines.stages.opening import opened
from kdaudit.pipelines.stages.predicting import (
    Prediction,
    facts_of,
    label_flags,
    origin_of,
    read_prediction,
    write_found,
    write_prediction,
    write_risk,
)
from kdaudit.pipelines.stages.risks import write_risks
from kdaudit.pipelines.stages.scoring import features_done, read_features, read_scoring, write_features
from kdaudit.pipelines.stages.tradeoff import levels_of, tradeoff_of
from kdaudit.pipelines.stages.work import Work
from kdaudit.reporting.screening import read_record, render_screen
from kdaudit.reporting.screening_words import guarantee_elsewhere
from kdaudit.risk import Predictor, family_warnings, load_predictor, predictor_note
from kdaudit.runs import Progress, layout
from kdaudit.schemas.corpus import CorpusResult
from kdaudit.schemas.notes import Note
from kdaudit.schemas.predictor import PredictorResult
from kdaudit.schemas.results import Curves, ExtractionResult
from kdaudit.schemas.screening import FlaggedCounts, KeptCounts, ScreenedModel, ScreenRecord
from kdaudit.screening.kept import Keeping, check_writable, write_kept
from kdaudit.screening.writers import discard_kept


def run_screen(
    config: ScreenConfig, folder: Path, *, fresh: bool, progress: Progress, warn: Callable[[str], None]
) -> ScreenRecord:
    """Screen a corpus, or resume where an earlier call in the same folder stopped.

    Args:
        config: the screening.
        folder: the output folder.
        fresh: forget an earlier screening there.
        progress: told of every stage's steps.
        warn: told what the user should know and need not act on.

    Returns:
        What stands in screen.json.

    Raises:
        UsageError: configuration, corpus, models, predictor or output folder are wrong.
        RunError: a model or the disk failed; finished work is kept.

    """
    with opened(config, folder, layout.SCREEN, fresh=fresh, progress=progress, warn=warn) as (work, sources):
        source = sources["corpus"]
        screening = _Screening(config, work, source, _given_predictor(config))
        if not features_done(work):
            progress("corpus: checking that kept/ can hold its rows", 0, 0)
            check_writable(source.config, config.format)
        corpus = write_examples(work, source, "corpus", layout.EXAMPLES)
        _extract(screening, corpus.examples)
        write_features(work, measures=config.extraction.engine is None)
        _write_prediction(screening)
        _write_flagged(screening)
        _write_kept(screening, corpus.documents)
        record = _write_record(screening, corpus)
        work.run.finish()
        return record


class _Screening(NamedTuple):
    """What every step works with."""

    config: ScreenConfig
    work: Work
    source: PinnedSource
    given: Predictor | None
    """The predictor of an earlier audit or screening, where the configuration names one."""

    @property
    def kind(self) -> LabelKind:
        """What is looked for in the models: the prediction target."""
        if self.given is None:
            return cast("LabelKind", self.config.predictor.labels)
        return "teacher" if self.given.labels == "teacher" else "easy_core"  # no student need be there

    @property
    def student(self) -> str | None:
        """Whose memorized examples are the labels, for those of that kind."""
        if self.kind != "student":
            return None
        return self.config.predictor.student or self.config.models.students[0].name

    @property
    def depends(self) -> dict[str, Any]:
        """What decides which examples are flagged."""
        given = None if self.given is None else self.given.model_dump(mode="json")
        members = self.work.models.members
        return {
            "predictor": self.config.predictor.model_dump(mode="json"),
            "given": given,
            "student": self.student,
            "models": [[one.name, self.work.fingerprints(one.name)] for one in members],
            "vocabulary": self.work.vocabulary,
        }


def _given_predictor(config: ScreenConfig) -> Predictor | None:
    labels = config.predictor.labels
    return None if labels in KINDS else load_predictor(Path(labels))


def _extract(screening: _Screening, examples: int) -> None:
    """Ask an engine what the features' forward passes do not tell, or everything where one is set."""
    work, engine = screening.work, screening.config.extraction.engine
    if engine is None and work.models.students:
        Extracting(work, "transformers", examples).extract(work.models.students, leaks=False)
    elif engine is not None:
        Extracting(work, engine, examples).extract(work.models.members, leaks=False)


def _memorized(screening: _Screening) -> dict[str, Flags]:
    """Which examples each model memorizes, by its name: bool (examples,)."""
    work = screening.work
    if screening.config.extraction.engine is not None:
        return exposed_by(work, work.models.members)
    ids, *matched = read_features(work, ("example_id", "teacher_matched", "baseline_matched")).T
    lengths = read_cuts(work)[1]
    both = [
        GREEDY.exposed(GREEDY.rows(ids.astype(np.int64), one.astype(np.int16), lengths)) for one in matched
    ]
    return dict(zip(("teacher", "baseline"), both, strict=True)) | exposed_by(work, work.models.students)


def _labels(screening: _Screening) -> Flags:
    return label_flags(screening.kind, _memorized(screening), screening.student)


def _write_prediction(screening: _Screening) -> None:
    """Fit a predictor, or use the one that is given."""
    work, given = screening.work, screening.given
    if work.run.done("predictor", screening.depends):
        return
    with work.run.stage("predictor", screening.depends):
        work.run.discard(layout.PREDICTOR, layout.RISK)
        origin = origin_of(work, screening.kind, screening.student, screening.source.fingerprint)
        if given is None:
            write_prediction(work, _labels(screening), origin)
            return
        risk = write_risk(work, given, read_features(work, given.features), scored_examples(work))
        work.run.write_text(layout.PREDICTOR, given.model_dump_json(indent=1) + "\n")
        notes = [predictor_note("predictor_from_elsewhere", said) for said in family_warnings(given, origin)]
        if screening.config.predictor.model_fields_set & {"recall", "confidence", "features"}:
            text = (
                "predictor.recall, predictor.confidence and predictor.features are not used: a given "
                "predictor.json keeps the threshold and the features that it was made with."
            )
            notes.append(predictor_note("settings_unused", text))
        if given.promise is not None:
            text = guarantee_elsewhere(given.promise, given.origin)
            notes.append(predictor_note("recall_guarantee", text))
        result = PredictorResult(status="ok", positives=given.positives, **facts_of(given, risk))
        text = (
            "The risk predictor was not tried on this corpus: AUC, recall and precision are not known here."
        )
        notes.append(predictor_note("predictor_untried", text))
        text = (
            "What other recalls would flag is not known: a given predictor.json holds one threshold, and not "
            "the risks that it comes from."
        )
        notes.append(Note(code="tradeoff_undefined", subject="tradeoff", text=text))
        write_found(work, Prediction(result=result, curves=Curves(), notes=notes))


def _found(screening: _Screening) -> Flagged:
    """What is flagged: by its risk, or because the models memorize it already."""
    predictor, risk = _predictor(screening), _risk(screening)
    flags = _labels(screening)
    if predictor is not None and risk is not None:
        flags = flags | predictor.flagged(risk)
    return Flagged(flags, risk, _memorized(screening))


def _predictor(screening: _Screening) -> Predictor | None:
    run = screening.work.run
    return load_predictor(run.folder / layout.PREDICTOR) if run.has(layout.PREDICTOR) else None


def _risk(screening: _Screening) -> NDArray[np.float64] | None:
    """Each example's risk, computed again: a later step rewrites risk.parquet, and it may be missing."""
    predictor = _predictor(screening)
    return None if predictor is None else predictor.risk(read_features(screening.work, predictor.features))


def _write_flagged(screening: _Screening) -> None:
    run = screening.work.run
    if not run.done("flagged", screening.depends):
        with run.stage("flagged", screening.depends):
            screening.work.progress("flagged: writing", 0, 0)
            found = _found(screening)
            write_risks(run, found.risk, found.flags)
            write_flagged(run, found, _predictor(screening))


def _write_kept(screening: _Screening, documents: int) -> None:
    config, work = screening.config, screening.work
    depends = {
        **screening.depends,
        "drop": config.drop,
        "format": config.format,
        "max_flagged": config.max_flagged,
    }
    if not work.run.done("kept", depends):
        with work.run.stage("kept", depends):
            work.progress("corpus: hashing, to see whether it changed meanwhile", 0, 0)
            check_unchanged(screening.source)
            work.progress("kept: reading documents", 0, documents)
            how = Keeping(
                ExampleTokens.of(work.extraction),
                config.drop,
                config.format,
                chat=work.chats.get("corpus"),
                max_flagged=config.max_flagged,
            )
            found = _found(screening)
            counts = write_kept(
                work.run,
                screening.source,
                work.models.tokenizer,
                found.flags,
                how,
                levels=levels_of(read_prediction(work), found.risk, _labels(screening)),
                progress=lambda rows: work.progress("kept: reading documents", rows, documents),
            )
            _refuse_what_was_not_scored(screening)
            work.run.write_text(layout.KEPT_COUNTS, counts.model_dump_json(indent=1) + "\n")


def _refuse_what_was_not_scored(screening: _Screening) -> None:
    """Text that was put into the corpus while it was read again is in kept/, and no model has seen it."""
    screening.work.progress("kept: checking that the corpus did not change meanwhile", 0, 0)
    try:
        check_unchanged(screening.source)
    except CorpusError:
        discard_kept(screening.work.run)
        raise


def _write_record(screening: _Screening, corpus: CorpusResult) -> ScreenRecord:
    """Write screen.json and both reports."""
    config, run = screening.config, screening.work.run
    depends = {
        **screening.depends,
        "notes": [note.text for note in screening.work.notes],
        "name": config.name,
        "max_examples": config.max_examples,
        "max_flagged": config.max_flagged,
        "drop": config.drop,
        "format": config.format,
        "files": [run.hash_of(name) for name in (layout.PREDICTION, layout.KEPT_COUNTS, layout.FLAGGED)],
    }
    whole = all(run.has(name) for name in layout.SCREEN_PAGES)
    if not (whole and run.done("record", depends)):
        with run.stage("record", depends):
            screening.work.progress("reports: rendering", 0, 0)
            record = _record(screening, corpus)
            run.write_text(layout.SCREEN, record.model_dump_json(indent=1) + "\n")
            with run.rewriting(*layout.SCREEN_PAGES):
                render_screen(run.folder, config.max_examples)
    return read_record(run.folder)


def _record(screening: _Screening, corpus: CorpusResult) -> ScreenRecord:
    config, work = screening.config, screening.work
    found, predictor, prediction = _found(screening), _predictor(screening), read_prediction(work)
    kept = work.run.read_json(layout.KEPT_COUNTS, KeptCounts)
    copies, labels = read_copies(work), _labels(screening)
    checked = {member.name: read_checked(work, member) for member in work.models.members}
    return ScreenRecord(
        schema_version="2",
        name=config.name,
        created=work.run.created,
        kdaudit_version=__version__,
        seed=config.seed,
        corpus=corpus,
        extraction=_extraction(screening),
        models={
            member.name: ScreenedModel(
                role=member.role,
                examples=corpus.examples,
                memorized=int(found.memorized[member.name].sum()),
                fingerprint=member.model.fingerprint,
                engine_check=checked[member.name].check,
            )
            for member in work.models.members
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


def _extraction(screening: _Screening) -> ExtractionResult:
    work, engine = screening.work, screening.config.extraction.engine
    told = (
        read_scoring(work)
        if engine is None
        else read_attack(work.run, GREEDY, attack_folder(GREEDY, work.models.cutter)).engine
    )
    return ExtractionResult(
        engine=told.engine,
        engine_version=told.version,
        prefix_tokens=work.split.prefix_tokens,
        suffix_tokens=work.split.suffix_tokens,
        bos=work.split.bos is not None,
        dtype=told.dtype,
        device=told.device,
    )
