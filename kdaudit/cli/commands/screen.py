"""`kdaudit screen`."""

from __future__ import annotations

from pathlib import Path

import click

from kdaudit.cli.command import EXIT_BY_VERDICT, FILE, FRESH, JSON, LOG_JSON, SET, for_people
from kdaudit.cli.printing import say


@click.command("screen")
@FILE
@SET
@click.option("--out", type=click.Path(path_type=Path), help="The output folder; screened/NAME unless given.")
@FRESH
@JSON
@LOG_JSON
@for_people
def command(file: Path, overrides: tuple[str, ...], out: Path | None, fresh: bool, as_json: bool) -> int:
    """Score the corpus of FILE before distillation, and write it again without its risky examples.

    The corpus itself is left as it is. The output holds the kept corpus, what was flagged and why, and a
    report of both.

    Exit codes: 0 done, 2 wrong use or input, 3 more would be flagged than max_flagged allows and no kept
    corpus was written, 4 a failure while running, 130 interrupted.
    """
    from kdaudit.cli.progress import shown_progress
    from kdaudit.cli.summary import summarize_screen
    from kdaudit.config.paths import check_paths
    from kdaudit.config.yaml.loading import load_screen
    from kdaudit.pipelines.screen import run_screen
    from kdaudit.runs.layout import SCREENINGS

    config = load_screen(file, overrides)
    check_paths(config)
    folder = out or Path(SCREENINGS, config.name)
    with shown_progress() as console:
        record = run_screen(config, folder, fresh=fresh, progress=console, warn=console.warn)
    say(record.model_dump_json() if as_json else summarize_screen(record, folder))
    return EXIT_BY_VERDICT["inconclusive"] if record.kept.withheld else 0
