"""Weights & Biases, without what it collects by itself: code, git, machine, console, usage."""

from __future__ import annotations

import os
from pathlib import Path

import wandb

from kdaudit.exporting.trackers import PROJECT
from kdaudit.exporting.trackers.figures import Tracked

_SECONDS_TO_LOG_IN = 30


def log(tracked: Tracked, page: Path | None) -> None:
    """Log an audit as a run of the project WANDB_PROJECT; WANDB_MODE and the login are the user's."""
    settings = wandb.Settings(
        disable_git=True,
        disable_job_creation=True,
        save_code=False,
        console="off",
        silent=True,
        login_timeout=_SECONDS_TO_LOG_IN,
        x_disable_stats=True,
        x_disable_meta=True,
        x_disable_machine_info=True,
    )
    project = os.environ.get("WANDB_PROJECT", PROJECT)
    with wandb.init(project=project, name=tracked.name, config=tracked.settings, settings=settings) as run:
        run.summary.update(tracked.figures)
        if page is not None:
            artifact = wandb.Artifact(f"kdaudit-{run.id}", type="audit")
            artifact.add_file(str(page))
            run.log_artifact(artifact)
