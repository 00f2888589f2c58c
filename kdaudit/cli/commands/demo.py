"""`kdaudit demo`."""

from __future__ import annotations

from pathlib import Path

import click

from kdaudit.cli.command import LOG_JSON, for_people
from kdaudit.cli.printing import say


@click.command("demo")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("kdaudit-demo"),
    show_default=True,
    help="Folder for the demo's texts, models and run.",
)
@LOG_JSON
@for_people
def command(out: Path) -> None:
    """Train a tiny teacher, three baselines and two students on text that Python carries, and audit them."""
    from kdaudit.cli.progress import shown_progress

    with shown_progress() as console:
        console("demo: loading libraries", 0, 0)
        from kdaudit.cli.summary import summarize
        from kdaudit.pipelines.demo.run import run_demo

        results = run_demo(out, progress=console, say=console.say)
    say(summarize(results, out / "run"))
