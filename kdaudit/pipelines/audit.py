"""The way of the data, top to bottom: `run_audit` is the map of the program.

    config -> preflight -> models, corpus windows -> extraction per model -> a sample, and its features
    -> perplexity, entropy -> nearness of baselines -> scores of the sample -> predictor -> comparison
    -> results -> report

Each stage (`kdaudit.pipelines.stages`) reads the files of the one before, writes its own, and is skipped
when an earlier call finished it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdaudit.analysis.intervals import Flags
from kdaudit.config.audit import AuditConfig
from kdaudit.models.audited import AuditedModel, AuditedModels
from kdaudit.pipelines.report import pages_of, render_reports
from kdaudit.pipelines.stages.attacked import exposed_by
from kdaudit.pipelines.stages.canaries import write_planted
from kdaudit.pipelines.stages.examples import write_examples
from kdaudit.pipelines.stages.extracting import Extracting
from kdaudit.pipelines.stages.feature_sample import scored_examples, write_feature_sample
from kdaudit.pipelines.stages.features import scored_pair, write_features
from kdaudit.pipelines.stages.judging import accepted_state
from kdaudit.pipelines.stages.leaked import write_leaks
from kdaudit.pipelines.stages.likelihoods import write_likelihoods
from kdaudit.pipelines.stages.measured import gather
from kdaudit.pipelines.stages.nearness import write_nearness
from kdaudit.pipelines.stages.opening import opened
from kdaudit.pipelines.stages.predicting import (
    absent,
    is_underpowered,
    label_flags,
    origin_of,
    write_found,
    write_prediction,
)
from kdaudit.pipelines.stages.results import build_results
from kdaudit.pipelines.stages.risks import add_features
from kdaudit.pipelines.stages.scores import write_score_samples, write_scores
from kdaudit.pipelines.stages.tracking import write_to_trackers
from kdaudit.pipelines.stages.work import Work
from kdaudit.reporting.render import read_results
from kdaudit.runs import Progress, layout
from kdaudit.schemas.corpus import CorpusResult
from kdaudit.schemas.results import AuditResults


def run_audit(
    config: AuditConfig, folder: Path, *, fresh: bool, progress: Progress, warn: Callable[[str], None]
) -> AuditResults:
    """Audit, or resume where an earlier call in the same folder stopped.

    Args:
        config: the audit.
        folder: the run directory.
        fresh: forget an earlier run there.
        progress: told of every stage's steps.
        warn: told what the user should know and need not act on.

    Returns:
        What stands in results.json.

    Raises:
        UsageError: configuration, corpus, models or run directory are wrong.
        RunError: an engine or the disk failed; finished work is kept.

    """
    with opened(config, folder, layout.RESULTS, fresh=fresh, progress=progress, warn=warn) as (work, sources):
        corpus = write_examples(work, sources["corpus"], "corpus", layout.EXAMPLES)
        for text, key in layout.SIDE_TEXTS.items():
            if key in sources:
                write_examples(work, sources[key], key, layout.beside_corpus(text, layout.EXAMPLES))
        if config.attacks.canaries is not None:
            write_planted(work, config.attacks.canaries)
        Extracting(work, config.extraction.engine, corpus.examples).extract(work.models.all, leaks=True)
        write_score_samples(work)
        _write_features(work, config)
        write_likelihoods(work, corpus.examples)
        write_nearness(work)
        write_scores(work)
        _write_prediction(work, config, corpus)
        _write_results(work, config, corpus)
        _write_reports(work, config)
        write_to_trackers(work, config.report)
        work.run.finish()
        return read_results(folder)


def _write_features(work: Work, config: AuditConfig) -> None:
    """Score what a predictor is fitted on, where extraction shows that there will be one."""
    if config.predictor.enabled and scored_pair(work.models) is not None:
        labels = _labels(work, config)
        write_feature_sample(work, labels, underpowered=lambda: is_underpowered(work, labels))
        write_features(work)


def _labels(work: Work, config: AuditConfig) -> Flags:
    """The prediction target: bool (examples,)."""
    memorized = exposed_by(work, work.models.all)
    return label_flags(config.predictor.labels, memorized, _labelled(work, config))


def _labelled(work: Work, config: AuditConfig) -> str | None:
    """Whose memorized examples are the labels, for those of that kind."""
    asked = config.predictor
    return (asked.student or work.models.students[0].name) if asked.labels == "student" else None


def _write_prediction(work: Work, config: AuditConfig, corpus: CorpusResult) -> None:
    """Fit the risk predictor, where it is asked for and teacher and baseline make it possible."""
    run, asked = work.run, config.predictor
    student = _labelled(work, config)
    depends = {
        **asked.model_dump(mode="json"),
        "labelled": work.fingerprints(student),
        "scored": work.fingerprints(*(one.name for one in _features_of(work.models))),
        "vocabulary": work.vocabulary,
        **scored_examples(work).depends,
    }
    if run.done("predictor", depends):
        return
    with run.stage("predictor", depends):
        run.discard(layout.PREDICTOR, layout.RISK)
        if not asked.enabled:
            write_found(
                work,
                absent("The risk predictor was switched off (predictor.enabled), and entropy was not taken."),
            )
        elif scored_pair(work.models) is None:
            write_found(
                work, absent(f"There is no risk predictor: its features need {_lacking(work.models)}.")
            )
        else:
            origin = origin_of(work, asked.labels, student, corpus.fingerprint)
            write_prediction(work, _labels(work, config), origin)
            add_features(work)


def _lacking(models: AuditedModels) -> str:
    """What the features need and these models lack."""
    if models.teacher is None or not models.baselines:
        return "models.teacher" if models.teacher is None else "models.baseline"
    behind = [one.key for one in (models.teacher, models.baselines[0]) if one.model.behind is not None]
    return f"the weights of {' and '.join(behind)}, which an endpoint does not give"


def _features_of(models: AuditedModels) -> list[AuditedModel]:
    """Models that the predictor depends on: teacher and baselines, as far as there are any."""
    return [audited for audited in models.all if audited.role in ("teacher", "baseline")]


def _write_results(work: Work, config: AuditConfig, corpus: CorpusResult) -> None:
    """Compare, judge, and write results.json and leaks.parquet."""
    run = work.run
    depends = {
        "gate": config.gate.model_dump(mode="json"),
        "accepted": accepted_state(config.gate),
        "name": config.name,
        "attacks": config.attacks.model_dump(mode="json"),
        "models": [[one.name, one.role, one.kd] for one in work.models.all],
        "fingerprints": work.fingerprints(*(one.name for one in work.models.all)),
        "notes": [note.text for note in work.notes],
        "measured": run.digest(),
        "predictor": run.hash_of(layout.PREDICTION),
        "listed": config.report.max_examples,
    }
    if not run.done("results", depends):
        with run.stage("results", depends):
            measurements = gather(config, work, corpus)
            work.progress("results: comparing, and tagging leaks", 0, 0)
            results = build_results(run, measurements, write_leaks(run, measurements))
            run.write_text(layout.RESULTS, results.model_dump_json(indent=1) + "\n")


def _write_reports(work: Work, config: AuditConfig) -> None:
    run = work.run
    depends = {
        "report": config.report.model_dump(mode="json", exclude={"trackers"}),
        "results": [run.hash_of(name) for name in (layout.RESULTS, layout.LEAKS)],
    }
    whole = all(run.has(name) for name in layout.AUDIT_PAGES)
    if not (whole and run.done("report", depends)):
        with run.stage("report", depends):
            work.progress("reports: rendering", 0, 0)
            annex = run.has(layout.ANNEX)
            with run.rewriting(*pages_of(annex=annex)):
                render_reports(run.folder, config.report, annex=annex)
