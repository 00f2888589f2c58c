"""`kdaudit bench`."""

from __future__ import annotations

from pathlib import Path

import click

from kdaudit.cli.command import FILE, JSON, LOG_JSON, SET, for_people
from kdaudit.cli.printing import say


@click.command("bench")
@FILE
@SET
@click.option(
    "--examples",
    type=click.IntRange(min=1),
    default=600,
    show_default=True,
    help="Examples to time: a sample of the corpus.",
)
@JSON
@LOG_JSON
@for_people
def command(file: Path, overrides: tuple[str, ...], examples: int, as_json: bool) -> None:
    """Measure extraction on the teacher and the corpus of the audit in FILE.

    Early exit against plain vLLM generate, the transformers engine's generate, and the lower limit, which
    is the prefill of the prefixes alone. The memory must hold the teacher four times.
    """
    from kdaudit.cli.progress import shown_progress
    from kdaudit.config.paths import check_paths
    from kdaudit.config.yaml.loading import load_audit
    from kdaudit.pipelines.bench import render, run_bench

    config = load_audit(file, overrides)
    check_paths(config)
    with shown_progress() as console:
        result = run_bench(config, examples=examples, progress=console)
    say(result.model_dump_json() if as_json else render(result))
