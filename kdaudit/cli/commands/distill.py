"""`kdaudit distill`."""

from __future__ import annotations

from pathlib import Path

import click

from kdaudit.cli.command import FILE, JSON, LOG_JSON, SET, for_people
from kdaudit.cli.printing import say


@click.command("distill")
@FILE
@SET
@click.option(
    "--out", type=click.Path(path_type=Path), help="The output folder; distilled/NAME unless given."
)
@JSON
@LOG_JSON
@for_people
def command(file: Path, overrides: tuple[str, ...], out: Path | None, as_json: bool) -> None:
    """Train teacher, baseline and students of FILE, and write the audit.yaml that audits them.

    A model that is trained already is kept; one that was being trained resumes from its last checkpoint.
    Several processes: torchrun --nproc-per-node 2 -m kdaudit distill FILE, or accelerate launch.
    """
    from kdaudit.cli.progress import shown_progress
    from kdaudit.config.paths import check_paths
    from kdaudit.config.yaml.loading import load_distill
    from kdaudit.distillation.processes import together
    from kdaudit.pipelines.stages.preflight import preflight
    from kdaudit.runs.layout import DISTILLATIONS
    from kdaudit.schemas.distillation import render

    with together() as processes:
        config = load_distill(file, overrides)
        check_paths(config)
        folder = out or Path(DISTILLATIONS, config.name)
        if not processes.first:  # it trains along and leaves the talking to the first
            from kdaudit.distillation.lab import run_distill

            run_distill(config, folder, progress=_silent, warn=_silent, processes=processes)
            return
        with shown_progress() as console:
            preflight(config, hub=True, progress=console)
            console("distill: loading libraries", 0, 0)
            from kdaudit.distillation.lab import run_distill  # seconds, which a wrong file need not cost

            record = run_distill(config, folder, progress=console, warn=console.warn, processes=processes)
        say(record.model_dump_json() if as_json else render(record, folder))


def _silent(*_: object) -> None:
    """Take a message that another process tells."""
