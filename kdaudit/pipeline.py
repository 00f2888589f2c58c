"""The way of the data, top to bottom: `run_audit` is the map of the program.

    config -> models, corpus windows -> extraction per model -> perplexity -> comparison -> results -> report

Each stage reads the files of the one before, writes its own, and is skipped when an earlier call
finished it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.assemble import Audited, Measured, build_results, leaks_table
from kdaudit.config.audit import AuditConfig, ReportConfig
from kdaudit.config.loading import dump_config, load_audit
from kdaudit.corpus import PinnedSource, build_examples, pin_source
from kdaudit.engines import RemoteEngine, prepare, start
from kdaudit.engines.base import Tokens
from kdaudit.errors import RunError, RunStateError
from kdaudit.extraction import (
    Progress,
    Split,
    continuations_file,
    continue_leaks,
    extract,
    leaked,
    read_extraction,
)
from kdaudit.features import FeatureWorker
from kdaudit.leaks import LEAKS_FILE
from kdaudit.manifest import MANIFEST_FILE
from kdaudit.report.render import CARD, PUBLIC_REPORT, REPORT, read_results, render_reports
from kdaudit.results import AuditResults, CorpusResult
from kdaudit.retreat import retreating
from kdaudit.roster import Member, Roster, assemble_roster, check_machine, engine_options, split_of
from kdaudit.store import RunStore, check_folder

CONFIG_FILE, RESULTS_FILE = "config.yaml", "results.json"


class _Sources(NamedTuple):
    """The texts of an audit, as they stood when it was called."""

    corpus: PinnedSource
    holdout: PinnedSource | None


class _Audit(NamedTuple):
    """What every stage works with."""

    config: AuditConfig
    roster: Roster
    split: Split
    run: RunStore
    progress: Progress
    warn: Callable[[str], None]


def run_audit(
    config: AuditConfig, folder: Path, *, fresh: bool, progress: Progress, warn: Callable[[str], None]
) -> AuditResults:
    """Audit, or go on where an earlier call in the same folder stopped.

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
    check_folder(folder)
    if fresh or not (folder / RESULTS_FILE).exists():
        check_machine(config)  # a finished run can be shown and judged anew on any machine
        prepare(config.extraction.engine)
    roster = assemble_roster(config)  # before the texts: to hash them can take minutes
    sources = _Sources(
        pin_source(config.corpus), None if config.holdout is None else pin_source(config.holdout, "holdout")
    )
    for warning in roster.warnings:
        warn(warning)
    split = split_of(config, roster)
    with RunStore(folder, config.name, _inputs(config, sources, roster), fresh=fresh) as run:
        audit = _Audit(config, roster, split, run, progress, warn)
        _write_config(audit)
        corpus = _write_examples(audit, sources.corpus, "corpus", "examples")
        if sources.holdout is not None:
            _write_examples(audit, sources.holdout, "holdout", "holdout/examples")
        _extract_models(audit, corpus.examples)
        _continue_leaks(audit, corpus.examples)
        _write_perplexities(audit)
        _write_results(audit, corpus)
        _write_reports(audit)
        run.finish()
        return read_results(folder)


def rerender(folder: Path) -> list[Path]:
    """Render a run's reports again, from results.json and leaks.parquet alone; give their paths.

    Raises:
        RunStateError: the folder holds no results, or another process works there.

    """
    if not folder.is_dir():
        raise RunStateError(f"{folder}: is no folder; name the directory of an audit")
    saved = folder / CONFIG_FILE
    config = load_audit(saved).report if saved.exists() else ReportConfig()
    if not (folder / MANIFEST_FILE).exists():
        render_reports(folder, config)
    else:
        with RunStore.reopen(folder) as run:
            run.forget(REPORT, PUBLIC_REPORT, CARD)
            render_reports(folder, config)
            run.adopt(REPORT, PUBLIC_REPORT, CARD)
            run.finish()
    return [folder / name for name in (REPORT, PUBLIC_REPORT, CARD)]


def _inputs(config: AuditConfig, sources: _Sources, roster: Roster) -> dict[str, str]:
    """What must not change while a run goes on, by configuration key."""
    found = {"seed": str(config.seed)}
    for key, source in sources._asdict().items():
        if source is not None:
            found[f"{key}.path (its content)"] = source.fingerprint
            for name in ("split", "text", "id", "documents", "window", "stride", "limit"):
                found[f"{key}.{name}"] = str(getattr(source.config, name))
    for name, value in config.extraction.model_dump().items():
        found[f"extraction.{name}"] = str(value)
    found["models (their tokenizer)"] = roster.members[0].model.tokenizer_fingerprint
    for member in roster.members:
        found[f"{member.key}.path (its content)"] = member.model.fingerprint
        found[f"{member.key}.name"] = member.name
        for name in ("dtype", "tensor_parallel", "trust_remote_code"):
            found[f"{member.key}.{name}"] = str(getattr(member.config, name))
    return found


def _write_config(audit: _Audit) -> None:
    depends = audit.config.model_dump(mode="json")
    if not audit.run.done("config", depends):
        with audit.run.stage("config", depends):
            audit.run.write_text(CONFIG_FILE, dump_config(audit.config), private=True)


def _write_examples(audit: _Audit, source: PinnedSource, key: str, out: str) -> CorpusResult:
    """Cut a corpus into its distinct windows."""
    run, summary = audit.run, f"{out}/summary.json"
    if not run.done(key):
        with run.stage(key), run.scratch() as scratch:
            examples = build_examples(
                source.config,
                audit.roster.tokenizer,
                minimum_tokens=audit.split.prefix_tokens + audit.split.suffix_tokens,
                seed=audit.config.seed,
                scratch=scratch,
                key=key,
                progress=lambda rows: audit.progress(f"{key}: reading documents", rows, 0),
            )
            for number, table in enumerate(examples.tables(run.shard_rows)):
                run.write_table(f"{out}/part-{number:05d}.parquet", table, private=True)
            result = CorpusResult(
                path=source.config.path, fingerprint=source.fingerprint, **examples.counts._asdict()
            )
            run.write_text(summary, result.model_dump_json(indent=1) + "\n", private=True)
    return CorpusResult.model_validate_json((run.folder / summary).read_bytes())


def _extract_models(audit: _Audit, examples: int) -> None:
    """Extract corpus and holdout from every model, one model loaded at a time.

    Students come first: once all of them are done it is known what leaked, and the models that follow
    continue the leaks' prefixes while they are loaded anyway.
    """
    run = audit.run
    for member in sorted(audit.roster.members, key=lambda member: member.role != "student"):
        stage = _extraction(member)
        if run.done(stage):
            continue
        with run.stage(stage):
            _with_model(audit, member, examples, _extract_model)


def _extract_model(audit: _Audit, member: Member, engine: RemoteEngine) -> None:
    run, stage = audit.run, _extraction(member)
    extract(run, engine, audit.split, "examples", stage, audit.progress)
    if audit.config.holdout is not None:
        extract(run, engine, audit.split, "holdout/examples", f"holdout/{stage}", audit.progress)
    if all(run.done(_extraction(student)) or student is member for student in audit.roster.students):
        _continue(audit, member, engine)


def _continue_leaks(audit: _Audit, examples: int) -> None:
    """Continue the leaks' prefixes with the models that were extracted before all leaks were known."""
    for member in audit.roster.members:
        if audit.run.has(continuations_file(member.name)):
            continue
        _with_model(audit, member, examples, _continue)


def _with_model(
    audit: _Audit, member: Member, examples: int, work: Callable[[_Audit, Member, RemoteEngine], None]
) -> None:
    """Do `work` with a model loaded; where memory runs out, go on with smaller batches, then give up.

    The batch is recorded: in low precision a near tie between two tokens may fall otherwise in another.
    """
    key = f"{member.name}.sequences"
    before = audit.run.planned(key)
    options = engine_options(audit.config, member, audit.split, examples, sequences=before)

    def attempt(retreat: int) -> None:
        audit.progress(f"{member.name}: loading", 1, 0)
        with start(options._replace(retreat=retreat)) as engine:
            audit.run.plan(key, engine.sequences)
            work(audit, member, engine)

    try:
        retreating(member.name, attempt, audit.warn)
    except RunError:
        if not audit.run.shards(_extraction(member)):
            audit.run.plan(key, before)  # a crowded hour must not slow the whole run
        raise


def _continue(audit: _Audit, member: Member, engine: RemoteEngine) -> None:
    """Write what a model says after the leaked prefixes whose suffix it does not reproduce."""
    missed = _missed_leaks(audit, member)
    if len(missed):
        audit.progress(f"{member.name}: continuing leaks that it does not reproduce", len(missed), 0)
    continue_leaks(audit.run, engine, audit.split, "examples", missed, continuations_file(member.name))


def _missed_leaks(audit: _Audit, member: Member) -> NDArray[np.int64]:
    """Leaks whose suffix this model does not reproduce."""
    run, split = audit.run, audit.split
    leaks = leaked([read_extraction(run, _extraction(student)) for student in audit.roster.students], split)
    own = read_extraction(run, _extraction(member)).matched
    return leaks[own[leaks] < split.suffix_tokens]


def _write_perplexities(audit: _Audit) -> None:
    """Each model's perplexity of the holdout, each into a file of its own."""
    if audit.config.holdout is None:
        return
    for number, member in enumerate(audit.roster.members):
        stage = _perplexity_of(member)
        if not audit.run.done(stage):
            with audit.run.stage(stage):
                _write_perplexity(audit, member, f"{stage}.json")
            audit.progress("perplexity of the holdout", number + 1, len(audit.roster.members))


def _write_perplexity(audit: _Audit, member: Member, out: str) -> None:
    dtype = member.config.dtype or audit.config.extraction.dtype

    def attempt(retreat: int) -> None:
        with FeatureWorker(member.model.folder, dtype, member.config.trust_remote_code, retreat) as worker:
            found = worker.perplexity(_holdout_windows(audit), audit.split.bos)
            audit.run.write_text(out, json.dumps(found) + "\n", private=False)

    retreating(member.name, attempt, audit.warn)


def _holdout_windows(audit: _Audit) -> Iterator[list[Tokens]]:
    for shard in audit.run.shards("holdout/examples"):
        lists = audit.run.read_table(shard, ["token_ids"])["token_ids"].combine_chunks()
        yield np.split(lists.values.to_numpy(), lists.offsets.to_numpy()[1:-1])


def _write_results(audit: _Audit, corpus: CorpusResult) -> None:
    """Compare, judge, and write results.json and leaks.parquet."""
    run, config = audit.run, audit.config
    kinds = {member.name: member.kd for member in audit.roster.members}
    depends = {"gate": config.gate.model_dump(mode="json"), "name": config.name, "kd": kinds}
    if not run.done("results", depends):
        with run.stage("results", depends):
            audited = _gather(audit, corpus)
            results = build_results(run, audited)
            run.write_table(LEAKS_FILE, leaks_table(run, audited, results.leaks), private=True)
            run.write_text(RESULTS_FILE, results.model_dump_json(indent=1) + "\n", private=True)


def _gather(audit: _Audit, corpus: CorpusResult) -> Audited:
    """Read every stage's files back."""
    run, holdout = audit.run, audit.config.holdout is not None
    copies = [run.read_table(shard, ["copies"])["copies"].to_numpy() for shard in run.shards("examples")]
    measured = {
        member.name: Measured(
            member,
            read_extraction(run, _extraction(member)),
            read_extraction(run, f"holdout/{_extraction(member)}") if holdout else None,
            json.loads((run.folder / f"{_perplexity_of(member)}.json").read_bytes()) if holdout else None,
        )
        for member in audit.roster.members
    }
    return Audited(audit.config, audit.roster, corpus, audit.split, np.concatenate(copies), measured)


def _write_reports(audit: _Audit) -> None:
    run = audit.run
    depends = {
        "report": audit.config.report.model_dump(mode="json"),
        "results": run.hash_of(RESULTS_FILE),
    }
    whole = all(run.has(name) for name in (REPORT, PUBLIC_REPORT, CARD))
    if not (whole and run.done("report", depends)):
        with run.stage("report", depends):
            run.forget(REPORT, PUBLIC_REPORT, CARD)
            render_reports(run.folder, audit.config.report)
            run.adopt(REPORT, PUBLIC_REPORT, CARD)


def _perplexity_of(member: Member) -> str:
    """A model's perplexity: its stage, and its file in the run without the ending."""
    return f"perplexity/{member.name}"


def _extraction(member: Member) -> str:
    """A model's extraction: its stage, and its folder in the run."""
    return f"extraction/{member.name}"
