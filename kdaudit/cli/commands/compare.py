"""`kdaudit compare`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from kdaudit.cli.command import JSON, for_people
from kdaudit.cli.printing import one_line, say

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kdaudit.schemas.compared import CompareResults

_SHOWN = 30
"""New leaks, and differences, that the terminal lists."""


@click.command("compare")
@click.argument("old_run", type=click.Path(path_type=Path))
@click.argument("new_run", type=click.Path(path_type=Path))
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for compare.json and the pages; unless given, compared/OLD_RUN-NEW_RUN by their names.",
)
@JSON
@for_people
def command(old_run: Path, new_run: Path, out: Path | None, as_json: bool) -> int:
    """Say what changed between two audits of one corpus, which may have grown: new, gone and remaining leaks.

    Exit codes: 0 no new leak, or all of them accepted by the new run's accepted.yaml; 1 new leaks that are
    not; 2 wrong use or input.
    """
    from kdaudit.pipelines.compare import compare_runs, place_of, write_compared

    results = compare_runs(old_run, new_run)
    written = write_compared(results, old_run, new_run, out or place_of(old_run, new_run))
    if as_json:
        say(results.model_dump_json())
    else:
        say("\n".join(_lines(results, written, _which(results, old_run, new_run))))
    return 1 if results.not_accepted else 0


def _which(results: CompareResults, old_run: Path, new_run: Path) -> str:
    """What is compared: by their names, or by their folders where a name is kept from version to version."""
    names = results.old.name, results.new.name
    if names[0] != names[1]:
        return f"{names[0]} -> {names[1]}"
    return f"{names[0]}, {old_run} -> {new_run}"


def _lines(results: CompareResults, written: list[Path], which: str) -> Iterator[str]:
    from kdaudit.reporting.compared import counts_line, rate_rows
    from kdaudit.reporting.compared_words import unchanged, verdict_of_change
    from kdaudit.reporting.formatting import listed

    verdict = verdict_of_change(results)
    yield one_line(f"{which}: {verdict.sentence}")
    yield f"  {verdict.reason}"
    yield ""
    for student in results.counts:
        yield f"  {one_line(counts_line(results, student))}"
    fresh = [one for one in results.leaks if one.change == "new" and not one.accepted]
    if fresh:
        shown = ", ".join(str(one.example_id) for one in fresh[:_SHOWN])
        more = f" and {results.not_accepted - _SHOWN:,} more" if results.not_accepted > _SHOWN else ""
        yield f"  new, not accepted (examples of the new run): {shown}{more}"
    yield ""
    same = unchanged(results)
    for row in rate_rows(results):
        if row.name in same:
            continue
        ends = "the same weights" if results.models[row.name].same_weights else f"95% interval {row.interval}"
        change = f"{row.old} -> {row.new}, {row.difference} ({ends}): {row.reading.word}"
        yield f"  {one_line(row.name)}, {row.attack}: {change}"
        yield f"    {row.reading.sentence}"
    if same:
        yield f"  the same weights and outcomes in both: {one_line(listed(same))}"
    yield ""
    for one in results.differences[:_SHOWN]:
        yield f"  differs: {one_line(f'{one.key}: {one.old} -> {one.new}')}"
    if len(results.differences) > _SHOWN:
        yield f"  and {len(results.differences) - _SHOWN:,} more differences, in the pages"
    yield from (f"  note: {note.text}" for note in results.notes)
    yield ""
    _, full, public = written
    yield f"full report (holds training text): {one_line(str(full))}"
    yield f"public report:                     {one_line(str(public))}"
