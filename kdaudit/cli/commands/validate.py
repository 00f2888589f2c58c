"""`kdaudit validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdaudit.cli.command import FILE, SET, for_people
from kdaudit.cli.printing import one_line, say

if TYPE_CHECKING:
    from kdaudit.config.audit import AuditConfig
    from kdaudit.config.distill import DistillConfig
    from kdaudit.config.screen import ScreenConfig


@click.command("validate")
@FILE
@SET
@for_people
def command(file: Path, overrides: tuple[str, ...]) -> None:
    """Check a configuration, the first rows of its texts and the headers of its models, without running it.

    No weights are read, and nothing is downloaded.
    """
    from kdaudit.config.paths import check_paths
    from kdaudit.config.yaml.loading import config_kind_of, load_audit, load_distill, load_screen
    from kdaudit.pipelines.stages.preflight import preflight

    kind = config_kind_of(file)
    config: AuditConfig | ScreenConfig | DistillConfig
    if kind == "distill":
        config = load_distill(file, overrides)
    else:
        config = load_screen(file, overrides) if kind == "screen" else load_audit(file, overrides)
    check_paths(config)
    _check_trackers(config)
    skipped = preflight(config, hub=False)
    say(one_line(f"{file}: is a valid {_what(config)}, named {config.name}"))
    say("  checked: keys, values, the texts' first rows, the models' headers; no weights were read")
    for what in skipped:
        say(f"  {one_line(f'not checked: {what}')}")


def _check_trackers(config: AuditConfig | ScreenConfig | DistillConfig) -> None:
    from kdaudit.config.audit import AuditConfig

    if isinstance(config, AuditConfig):
        from kdaudit.exporting.trackers import refuse_missing

        refuse_missing(config.report.trackers)


def _what(config: AuditConfig | ScreenConfig | DistillConfig) -> str:
    """What a configuration asks for, in a few words."""
    from kdaudit.config.distill import DistillConfig
    from kdaudit.config.screen import ScreenConfig
    from kdaudit.reporting.formatting import plural

    if isinstance(config, DistillConfig):
        return f"distillation of {plural(len(config.students), 'model')}"
    if isinstance(config, ScreenConfig):
        return f"screening by {config.predictor.labels}"
    return f"audit of {plural(len(config.models.students), 'student')}"
