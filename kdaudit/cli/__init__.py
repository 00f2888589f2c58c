"""The command line: parse, call one function, print, exit code.

Standard output holds a command's result and, with --json, one JSON document and nothing else; progress,
warnings and errors go to standard error. Everything heavy is imported inside the command that needs it.
"""

from __future__ import annotations

import os
import sys

import click

from kdaudit import NO_USAGE_REPORTS, __version__
from kdaudit.cli.commands import (
    accept,
    bench,
    canaries,
    card,
    compare,
    demo,
    distill,
    doctor,
    export,
    report,
    run,
    schema,
    screen,
    validate,
    verify,
)
from kdaudit.cli.ending import Program


@click.group(cls=Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="kdaudit")
def main() -> None:
    """Audit a distilled language model: what it memorized, and what it inherited from its teacher."""
    os.environ.update(NO_USAGE_REPORTS)
    os.environ["RAY_SCHEDULER_EVENTS"] = "0"  # Ray prints them on standard output
    if not sys.stderr.isatty():
        os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


for _module in (
    run,
    screen,
    distill,
    canaries,
    validate,
    schema,
    doctor,
    verify,
    report,
    compare,
    accept,
    card,
    export,
    bench,
    demo,
):
    main.add_command(_module.command)
