"""`kdaudit report`."""

from __future__ import annotations

from pathlib import Path

import click

from kdaudit.cli.command import for_people
from kdaudit.cli.printing import one_line, printable, say
from kdaudit.errors import RunStateError


@click.command("report")
@click.argument("run_dirs", metavar="RUN_DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the page of several runs; unless given, trainings/ where runs are made.",
)
@click.option(
    "--annex",
    is_flag=True,
    help="Also write annex.html: what was measured, by the questions of EDPB Opinion 28/2024. It is public.",
)
@for_people
def command(run_dirs: tuple[Path, ...], out: Path | None, annex: bool) -> None:
    """Render the reports and the card of a run again.

    Of several runs, which are audits of one corpus after trainings with different seeds: write one page and
    one JSON with each figure's mean and spread over them.
    """
    for path in _written(run_dirs, out, annex=annex):
        say(one_line(str(path)))


def _written(run_dirs: tuple[Path, ...], out: Path | None, *, annex: bool) -> list[Path]:
    if len(run_dirs) > 1:
        if annex:
            raise RunStateError("--annex is for one run", fix="name one run, or remove --annex")
        from kdaudit.pipelines.trainings import report_trainings
        from kdaudit.runs.layout import RUNS

        return report_trainings(run_dirs, out or Path(RUNS, "trainings"))
    if out is not None:
        raise RunStateError(
            "--out is for several runs: one is rendered in its own folder", fix="remove --out"
        )
    from kdaudit.pipelines.report import rerender

    return rerender(
        run_dirs[0], lambda text: say(f"kdaudit: warning: {printable(text)}", err=True), annex=annex
    )
