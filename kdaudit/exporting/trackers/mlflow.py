"""MLflow, through its client: the fluent API would add the user's name and the path of the program."""

from __future__ import annotations

import os
import time
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Metric, Param

from kdaudit.exporting.trackers import PROJECT
from kdaudit.exporting.trackers.figures import Tracked


def log(tracked: Tracked, page: Path | None) -> None:
    """Log an audit as a run of the experiment MLFLOW_EXPERIMENT_NAME, at MLFLOW_TRACKING_URI."""
    client = MlflowClient()
    run = client.create_run(_experiment(client), run_name=tracked.name).info.run_id
    try:
        now = round(time.time() * 1000)
        figures = [Metric(name, value, now, 0) for name, value in tracked.figures.items()]
        settings = [Param(name, value) for name, value in tracked.settings.items()]
        client.log_batch(run, metrics=figures, params=settings)
        if page is not None:
            client.log_artifact(run, str(page))
    except BaseException:
        client.set_terminated(run, "FAILED")
        raise
    client.set_terminated(run)


def _experiment(client: MlflowClient) -> str:
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
    found = client.get_experiment_by_name(name)
    made: str = client.create_experiment(name) if found is None else found.experiment_id
    return made
