"""Experiment trackers: an audit's figures and its public page, where the owner's other runs are followed.

    figures.py                        what is logged: made from `PublicResults`, so without text, ids or paths
    mlflow.py, wandb.py, trackio.py   one function `log` each, over the tracker's own client

A tracker is imported when it is asked for, never before. It goes where its own settings lead (environment
variables, a login): kdaudit names a project and a run, nothing else.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from kdaudit.errors import UsageError
from kdaudit.exporting.trackers.figures import Tracked, tracked_of
from kdaudit.schemas.results import PublicResults

PROJECT = "kdaudit"
"""Project, or experiment, unless the tracker's environment variable names another."""


def refuse_missing(trackers: Sequence[str]) -> None:
    """Refuse trackers that are not installed, before an audit takes its time.

    Raises:
        UsageError: one is not.

    """
    for row, name in enumerate(trackers):
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"{name} is not installed",
                fix=f"pip install 'kdaudit[{name}]', or remove it",
                key=f"report.trackers.{row}",
            )


def log_to(tracker: str, results: PublicResults, page: Path | None) -> None:
    """Log an audit as one run of a tracker.

    Args:
        tracker: "mlflow", "wandb" or "trackio".
        results: of the audit.
        page: the public report, logged as an artifact; None to leave it out.

    Raises:
        Exception: whatever the tracker raises.

    """
    module = importlib.import_module(f"{__name__}.{tracker}")
    tracked: Tracked = tracked_of(results)
    with contextlib.redirect_stdout(sys.stderr):  # standard output is for the command's result
        module.log(tracked, page)
