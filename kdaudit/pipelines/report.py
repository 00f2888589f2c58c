"""`kdaudit report RUN_DIR`: a finished audit's pages and card are rendered again.

    results.json, leaks.parquet -> report.html, report.public.html, card.md (and annex.html)

Nothing is measured again, and the gate does not judge again.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kdaudit.analysis.accepted import acceptance, match
from kdaudit.analysis.leaks import PLACES, leak_batches
from kdaudit.config.audit import AuditConfig, ReportConfig
from kdaudit.config.yaml.loading import load_audit
from kdaudit.errors import ConfigError, RunStateError
from kdaudit.modelcard.section import write_run_card
from kdaudit.reporting.render import read_results, render_annex, render_pages
from kdaudit.runs import layout
from kdaudit.runs.store import RunStore
from kdaudit.schemas.results import AuditResults


def render_reports(folder: Path, config: ReportConfig, *, annex: bool = False) -> None:
    """Write both pages and the card of a run, from results.json and leaks.parquet alone; the annex if asked.

    Raises:
        RunStateError: results.json or leaks.parquet is missing, damaged, or does not fit the other.
        StorageError: a file could not be written.

    """
    render_pages(folder, config)
    write_run_card(folder)
    if annex:
        render_annex(folder, config)


def rerender(folder: Path, warn: Callable[[str], None], *, annex: bool = False) -> list[Path]:
    """Render a run's reports again, from results.json and leaks.parquet alone; give their paths.

    Title, length and document ids are those of the run's configuration, where that can still be read. An
    annex that is there is rendered again; `annex` makes one.

    Raises:
        RunStateError: the folder holds no results, or another process works there.

    """
    if not folder.is_dir():
        raise RunStateError(f"{folder}: is not a directory", fix="name the directory of an audit")
    results = read_results(folder)  # before any report is forgotten
    saved = folder / layout.CONFIG
    config = ReportConfig()
    if saved.exists():
        try:
            whole = load_audit(saved)
            config = whole.report
            _tell_of_other_acceptance(folder, whole, results, warn)
        except ConfigError as error:
            problem = ": ".join(part for part in (error.where, error.key, error.what) if part)
            warn(f"the report is rendered with default settings: {problem}")
    annex = annex or (folder / layout.ANNEX).exists()
    if not (folder / layout.MANIFEST).exists():
        render_reports(folder, config, annex=annex)
    else:
        with RunStore.reopen(folder) as run:
            with run.rewriting(*pages_of(annex=annex)):
                render_reports(folder, config, annex=annex)
            run.finish()
    return [folder / name for name in pages_of(annex=annex)]


def pages_of(*, annex: bool) -> tuple[str, ...]:
    """Names of what `render_reports` writes."""
    return (*layout.AUDIT_PAGES, layout.ANNEX) if annex else layout.AUDIT_PAGES


def _tell_of_other_acceptance(
    folder: Path, config: AuditConfig, results: AuditResults, warn: Callable[[str], None]
) -> None:
    """Say where the gate would disregard other leaks today than when it judged: a report cannot judge."""
    if config.gate.accept is None:
        return
    try:
        now = match(acceptance(Path(config.gate.accept)), leak_batches(folder, PLACES))
    except ConfigError as error:
        warn(f"the accepted leaks cannot be read, and are shown as the gate knew them: {error.what}")
        return
    then = set() if results.accepted is None else results.accepted.examples
    if now.examples != then:
        warn(
            "the accepted leaks changed since the gate judged, or some expired: run `kdaudit run` again, "
            "which repeats the last stages alone"
        )
