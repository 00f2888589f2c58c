"""`kdaudit screen`, top to bottom: `run_screen` is its map.

    config -> models, corpus windows -> features (and extraction, where asked for) -> predictor
    -> what to flag -> kept corpus -> screen.json, reports

The stages are an audit's (`kdaudit.pipelines.stages`) and resume as they do.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdaudit.config.screen import KINDS, ScreenConfig
from kdaudit.corpus import ExampleTokens, check_unchanged
from kdaudit.errors import CorpusError
from kdaudit.pipelines.stages.examples import write_examples
from kdaudit.pipelines.stages.extracting import Extracting
from kdaudit.pipelines.stages.features import features_done, write_features
from kdaudit.pipelines.stages.flagging import write_flagged
from kdaudit.pipelines.stages.given_predictor import use_given
from kdaudit.pipelines.stages.opening import opened
from kdaudit.pipelines.stages.predicting import origin_of, read_prediction, write_prediction
from kdaudit.pipelines.stages.risks import write_risks
from kdaudit.pipelines.stages.screen_record import record_of
from kdaudit.pipelines.stages.screened import ScreenWork, flagged_of, labels_of, predictor_of
from kdaudit.pipelines.stages.tradeoff import levels_of
from kdaudit.reporting.screening import read_screen_record, render_screen
from kdaudit.risk import Predictor, load_predictor
from kdaudit.runs import Progress, layout
from kdaudit.schemas.corpus import CorpusResult
from kdaudit.schemas.screening import ScreenRecord
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
        screening = ScreenWork(config, work, source, _given_predictor(config))
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


def _given_predictor(config: ScreenConfig) -> Predictor | None:
    labels = config.predictor.labels
    return None if labels in KINDS else load_predictor(Path(labels))


def _extract(screening: ScreenWork, examples: int) -> None:
    """Ask an engine what the features' forward passes do not tell, or everything where one is set."""
    work, engine = screening.work, screening.config.extraction.engine
    if engine is None and work.models.students:
        Extracting(work, "transformers", examples).extract(work.models.students, leaks=False)
    elif engine is not None:
        Extracting(work, engine, examples).extract(work.models.all, leaks=False)


def _write_prediction(screening: ScreenWork) -> None:
    """Fit a predictor, or use the one that is given."""
    work, given = screening.work, screening.given
    if work.run.done("predictor", screening.depends):
        return
    with work.run.stage("predictor", screening.depends):
        work.run.discard(layout.PREDICTOR, layout.RISK)
        origin = origin_of(work, screening.kind, screening.student, screening.source.fingerprint)
        if given is None:
            write_prediction(work, labels_of(screening), origin)
            return
        use_given(screening, given, origin)


def _write_flagged(screening: ScreenWork) -> None:
    run = screening.work.run
    if not run.done("flagged", screening.depends):
        with run.stage("flagged", screening.depends):
            screening.work.progress("flagged: writing", 0, 0)
            found = flagged_of(screening)
            write_risks(run, found.risk, found.flags)
            write_flagged(run, found, predictor_of(screening))


def _write_kept(screening: ScreenWork, documents: int) -> None:
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
            found = flagged_of(screening)
            counts = write_kept(
                work.run,
                screening.source,
                work.models.tokenizer,
                found.flags,
                how,
                levels=levels_of(read_prediction(work), found.risk, labels_of(screening)),
                progress=lambda rows: work.progress("kept: reading documents", rows, documents),
            )
            _refuse_what_was_not_scored(screening)
            work.run.write_text(layout.KEPT_COUNTS, counts.model_dump_json(indent=1) + "\n")


def _refuse_what_was_not_scored(screening: ScreenWork) -> None:
    """Text that was put into the corpus while it was read again is in kept/, and no model has seen it."""
    screening.work.progress("kept: checking that the corpus did not change meanwhile", 0, 0)
    try:
        check_unchanged(screening.source)
    except CorpusError:
        discard_kept(screening.work.run)
        raise


def _write_record(screening: ScreenWork, corpus: CorpusResult) -> ScreenRecord:
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
            record = record_of(screening, corpus)
            run.write_text(layout.SCREEN, record.model_dump_json(indent=1) + "\n")
            with run.rewriting(*layout.SCREEN_PAGES):
                render_screen(run.folder, config.max_examples)
    return read_screen_record(run.folder)
