"""`kdaudit card`."""

from __future__ import annotations

from pathlib import Path

import click

from kdaudit.cli.command import for_people
from kdaudit.cli.printing import one_line, say


@click.command("card")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option("--student", metavar="NAME", help="Whose card it is; needed where there are several.")
@click.option(
    "--card",
    "card_file",
    type=click.Path(path_type=Path),
    help="The card; else README.md in the student's folder, or with --push the repository's own.",
)
@click.option("--push", "repo", metavar="REPO_ID", help="Upload card and public report to this model.")
@click.option(
    "--create-pr/--no-create-pr", default=True, show_default=True, help="Push as a pull request, or to main."
)
@for_people
def command(
    run_dir: Path, student: str | None, card_file: Path | None, repo: str | None, create_pr: bool
) -> None:
    """Put the audit of a student into its model card, and on the hub if asked to.

    A section between markers and evaluation metadata are written, in place of those of an earlier call;
    nothing else in the card changes. No training text goes into it.
    """
    from kdaudit.cli.progress import ConsoleProgress
    from kdaudit.modelcard.writing import Upload, write_card
    from kdaudit.runs.layout import PUBLIC_REPORT

    upload = None if repo is None else Upload(repo, create_pr)
    with ConsoleProgress() as console:
        done = write_card(run_dir, student=student, card=card_file, upload=upload, warn=console.warn)
    if done.card is not None:
        say(one_line(str(done.card)))
    if repo is None:
        public = run_dir / PUBLIC_REPORT
        say(f"kdaudit: it links to {PUBLIC_REPORT}: publish {one_line(str(public))} beside it", err=True)
    else:
        say(one_line(done.url) if done.url else f"{repo} holds this audit already")
