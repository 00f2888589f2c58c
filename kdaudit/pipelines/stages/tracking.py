"""An audit goes to the trackers that it names, once for the same results; one that fails costs nothing."""

from __future__ import annotations

from pathlib import Path

from kdaudit.config.audit import ReportConfig
from kdaudit.errors import reason
from kdaudit.exporting.trackers import log_to
from kdaudit.pipelines.stages.work import Work
from kdaudit.reporting.public import without_private_parts
from kdaudit.reporting.render import read_results
from kdaudit.runs import layout


def write_to_trackers(work: Work, config: ReportConfig) -> None:
    """Log a run's results to the trackers of its configuration.

    Args:
        work: the run, whose results and pages are written.
        config: names the trackers, and what the public page may show.

    """
    run = work.run
    depends = [run.hash_of(name) for name in (layout.RESULTS, layout.PUBLIC_REPORT)]
    for tracker in config.trackers:
        if not run.done(f"tracker/{tracker}", depends):
            work.progress(f"{tracker}: logging the audit", 0, 0)
            if _logged(work, tracker, _page(work, config)):
                with run.stage(f"tracker/{tracker}", depends):
                    pass


def _page(work: Work, config: ReportConfig) -> Path | None:
    """The public page, if it names no documents."""
    if config.document_ids:
        work.warn("trackers get figures alone: the public report names documents (report.document_ids)")
        return None
    return work.run.folder / layout.PUBLIC_REPORT


def _logged(work: Work, tracker: str, page: Path | None) -> bool:
    try:
        log_to(tracker, without_private_parts(read_results(work.run.folder)), page)
    except (Exception, SystemExit) as error:  # whatever a tracker does, the audit is done
        work.warn(
            f"{tracker} did not take the audit ({type(error).__name__}: {reason(error)}); nothing else is "
            "affected, and the same command tries again"
        )
        return False
    return True
