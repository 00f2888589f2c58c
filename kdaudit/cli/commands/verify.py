"""`kdaudit verify`."""

from __future__ import annotations

from pathlib import Path

import click

from kdaudit.cli.command import for_people
from kdaudit.cli.printing import one_line, say


@click.command("verify")
@click.argument("run_dir", type=click.Path(path_type=Path))
@for_people
def command(run_dir: Path) -> int:
    """Check every file of a run against its manifest; exit 1 if one is not as it was written."""
    from kdaudit.runs.layout import SEAL
    from kdaudit.runs.verify import check_files

    problems = check_files(run_dir)
    for problem in problems:
        say(one_line(problem))
    if not problems:
        say(
            f"{one_line(str(run_dir))}: every file is as the run wrote it. Somebody who can write there can "
            f"forge file, manifest and seal together, undetected: keep a copy of {SEAL} elsewhere"
        )
    return 1 if problems else 0
