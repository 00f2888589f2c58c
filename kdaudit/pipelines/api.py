"""What `import kdaudit` offers: the commands as functions. Their results are objects of `written`.

Nothing is printed. Warnings go to the logger "kdaudit"; progress goes to a callback if one is given.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

from kdaudit.config.audit import AuditConfig
from kdaudit.config.distill import DistillConfig
from kdaudit.config.paths import check_paths
from kdaudit.config.screen import ScreenConfig
from kdaudit.config.yaml.loading import load_audit, load_distill, load_screen
from kdaudit.pipelines.audit import run_audit
from kdaudit.pipelines.screen import run_screen
from kdaudit.pipelines.written import Distillation, Run, Screening
from kdaudit.runs import Progress, layout

if TYPE_CHECKING:
    from kdaudit.schemas.compared import CompareResults

PathLike = str | os.PathLike[str]

_LOGGER = logging.getLogger("kdaudit")


def audit(
    config: AuditConfig | PathLike,
    *,
    out: PathLike | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Audit distilled models, or resume where an earlier call in the same folder stopped.

    Args:
        config: a path to audit.yaml, or a configuration built in code, whose relative paths are taken from
            the working directory.
        out: the run directory; runs/NAME unless given.
        fresh: forget an earlier run there.
        progress: called with (what, done, total); total is 0 where it is not known.

    Returns:
        The run; `run.results.gate.verdict` says whether it passed.

    Raises:
        UsageError: configuration, corpus, models or run directory are wrong.
        RunError: a failure while running; finished work is kept, and the same call resumes.

    """
    loaded = config if isinstance(config, AuditConfig) else load_audit(Path(config))
    check_paths(loaded)
    folder = Path(layout.RUNS, loaded.name) if out is None else Path(out)
    run_audit(loaded, folder, fresh=fresh, progress=progress or _silent, warn=_LOGGER.warning)
    return Run(folder)


def screen(
    config: ScreenConfig | PathLike,
    *,
    out: PathLike | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
) -> Screening:
    """Screen a corpus before distillation; arguments and errors as for `audit`, `out` is screened/NAME.

    Returns:
        The screening; where `screening.record.kept.withheld`, more would be flagged than max_flagged allows,
        and no kept corpus was written.

    """
    loaded = config if isinstance(config, ScreenConfig) else load_screen(Path(config))
    check_paths(loaded)
    folder = Path(layout.SCREENINGS, loaded.name) if out is None else Path(out)
    run_screen(loaded, folder, fresh=fresh, progress=progress or _silent, warn=_LOGGER.warning)
    return Screening(folder)


def distill(
    config: DistillConfig | PathLike, *, out: PathLike | None = None, progress: Progress | None = None
) -> Distillation:
    """Train teacher, baseline and students in this process, or resume; errors as for `audit`.

    Args:
        config: as for `audit`.
        out: the output folder; distilled/NAME unless given.
        progress: as for `audit`.

    """
    from kdaudit.pipelines.stages.preflight import preflight

    loaded = config if isinstance(config, DistillConfig) else load_distill(Path(config))
    check_paths(loaded)
    folder = Path(layout.DISTILLATIONS, loaded.name) if out is None else Path(out)
    report = progress or _silent
    preflight(loaded, hub=True, progress=report)
    from kdaudit.distillation.lab import run_distill  # imports torch and transformers

    return Distillation(folder, run_distill(loaded, folder, progress=report, warn=_LOGGER.warning))


def compare(old: Run | PathLike, new: Run | PathLike, *, out: PathLike | None = None) -> CompareResults:
    """Compare two finished audits of one corpus, which may have grown; neither is changed.

    Args:
        old: the earlier one, or its path.
        new: the later one.
        out: a folder for compare.json and both pages; None writes nothing.

    Returns:
        What changed; `not_accepted` counts new leaks that the new run's accepted.yaml does not name.

    Raises:
        RunStateError: a run cannot be read, or they cannot be compared.

    """
    from kdaudit.pipelines.compare import compare_runs, write_compared

    old_dir, new_dir = (one.path if isinstance(one, Run) else Path(one) for one in (old, new))
    results = compare_runs(old_dir, new_dir)
    if out is not None:
        write_compared(results, old_dir, new_dir, Path(out))
    return results


def open_run(path: PathLike) -> Run:
    """Open a finished audit to read it; it is not locked, changed or checked (`Run.verify` checks it).

    Raises:
        RunStateError: the folder holds no results, or they do not follow the schema.

    """
    run = Run(Path(path))
    _ = run.results
    return run


def _silent(*_: object) -> None:
    """Take a step of progress that nobody asked for."""
