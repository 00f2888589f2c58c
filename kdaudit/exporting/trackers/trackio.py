"""Trackio, on this machine unless its own settings name a Space."""

from __future__ import annotations

import os
from pathlib import Path

import trackio

from kdaudit.exporting.trackers import PROJECT
from kdaudit.exporting.trackers.figures import Tracked


def log(tracked: Tracked, page: Path | None) -> None:
    """Log an audit as a run of the project TRACKIO_PROJECT."""
    project = os.environ.get("TRACKIO_PROJECT", PROJECT)
    trackio.init(
        project=project,
        name=tracked.name,
        config=dict(tracked.settings),
        embed=False,
        auto_log_gpu=False,
        auto_log_cpu=False,
    )
    try:
        trackio.log(dict(tracked.figures))
        if page is not None:
            artifact = trackio.Artifact("kdaudit", type="audit")
            artifact.add_file(str(page))
            trackio.log_artifact(artifact)
    finally:
        trackio.finish()
