"""`kdaudit run`."""

from __future__ import annotations

from pathlib import Path

import click

from kdaudit.cli.command import EXIT_BY_VERDICT, FILE, FRESH, JSON, LOG_JSON, SET, for_people
from kdaudit.cli.printing import say


@click.command("run")
@FILE
@SET
@click.option("--out", type=click.Path(path_type=Path), help="The run directory; runs/NAME unless given.")
@FRESH
@JSON
@LOG_JSON
@for_people
def command(file: Path, overrides: tuple[str, ...], out: Path | None, fresh: bool, as_json: bool) -> int:
    """Run the audit in FILE, or resume where an earlier call stopped.

    Exit codes: 0 passed or no gate, 1 the gate failed, 2 wrong use or input, 3 the gate is
    inconclusive, 4 a failure while running, 130 interrupted.
    """
    from kdaudit.cli.progress import shown_progress
    from kdaudit.cli.summary import summarize
    from kdaudit.config.paths import check_paths
    from kdaudit.config.yaml.loading import load_audit
    from kdaudit.pipelines.audit import run_audit
    from kdaudit.runs.layout import RUNS

    config = load_audit(file, overrides)
    check_paths(config)
    folder = out or Path(RUNS, config.name)
    with shown_progress() as console:
        results = run_audit(config, folder, fresh=fresh, progress=console, warn=console.warn)
    say(results.model_dump_json() if as_json else summarize(results, folder))
    return EXIT_BY_VERDICT[results.gate.verdict]
