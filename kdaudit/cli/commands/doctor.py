"""`kdaudit doctor`."""

from __future__ import annotations

import click

from kdaudit.cli.command import JSON, for_people
from kdaudit.cli.printing import say


@click.command("doctor")
@JSON
@for_people
def command(as_json: bool) -> None:
    """Say what this machine has, what is missing, and how to get it."""
    import dataclasses
    import json

    from kdaudit.cli.diagnosis import diagnose, render

    found = diagnose()
    say(json.dumps(dataclasses.asdict(found)) if as_json else render(found))
