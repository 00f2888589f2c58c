"""`kdaudit report`."""

from __future__ import annotations

from pathlib import Path

import click

from kdaudit.cli.command import for_people
from kdaudit.cli.printing import one_line, printable, say


@click.command("report")
@click.argument("run_dir", type=click.Path(path_type=Path))
@for_people
def command(run_dir: Path) -> None:
    """Render the reports and the card of a run again."""
    from kdaudit.pipelines.audit import rerender

    for path in rerender(run_dir, lambda text: say(f"kdaudit: warning: {printable(text)}", err=True)):
        say(one_line(str(path)))
