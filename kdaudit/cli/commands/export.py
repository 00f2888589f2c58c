"""`kdaudit export`."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import click

from kdaudit.cli.command import for_people
from kdaudit.cli.printing import one_line, printable, say


@click.command("export")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["sarif", "junit", "csv"]),
    required=True,
    help="sarif: leaks for code scanning; junit: the gate's checks; csv: leaks.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The file; unless given, kdaudit.sarif, kdaudit.junit.xml or kdaudit.csv in the working directory.",
)
@click.option(
    "--private",
    is_flag=True,
    help="Include text, document ids and kinds of data, in a file that only you can read.",
)
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    help="Key file for the fingerprints: with one key they stay the same in later runs. Made if missing.",
)
@click.option(
    "--location",
    metavar="PATH",
    help="sarif: the file of your repository on which alerts are shown; unless given, the configuration.",
)
@for_people
def command(
    run_dir: Path, form: str, out: Path | None, private: bool, key: Path | None, location: str | None
) -> None:
    """Write an audit's findings in a format that CI systems and spreadsheets read.

    Without --private the file holds no training text, document id or path.
    """
    from kdaudit.exporting.writing import Asked, Form, export

    done = export(run_dir, Asked(cast(Form, form), out, private, key, location))
    for warning in done.warnings:
        say(f"kdaudit: warning: {printable(warning)}", err=True)
    say(one_line(str(done.path)))
