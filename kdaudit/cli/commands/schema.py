"""`kdaudit schema`."""

from __future__ import annotations

import click

from kdaudit.cli.command import for_people
from kdaudit.cli.printing import say


@click.command("schema")
@click.argument("kind", type=click.Choice(["audit", "screen", "distill", "results"]))
@for_people
def command(kind: str) -> None:
    """Print the JSON Schema of a configuration file or of results.json."""
    import json

    from kdaudit.config.yaml.loading import audit_schema, distill_schema, results_schema, screen_schema

    made = {
        "audit": audit_schema,
        "screen": screen_schema,
        "distill": distill_schema,
        "results": results_schema,
    }
    say(json.dumps(made[kind](), indent=2))
