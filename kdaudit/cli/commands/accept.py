"""`kdaudit accept`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import click

from kdaudit.cli.command import JSON, for_people
from kdaudit.cli.printing import one_line, say
from kdaudit.errors import UsageError

if TYPE_CHECKING:
    from kdaudit.pipelines.accept import AcceptResult
    from kdaudit.schemas.result import LeakClass

_SHOWN = 20


@click.command("accept")
@click.argument("run_dir", type=click.Path(path_type=Path))
@click.option(
    "--leak", "leaks", metavar="N[,N...]", multiple=True, help="Example number, as the report shows it."
)
@click.option("--class", "kind", metavar="CLASS", help="Leaks of this class only, such as easy_core.")
@click.option(
    "--min-duplicates", type=click.IntRange(1), metavar="N", help="Leaks with at least N duplicates."
)
@click.option("--document", metavar="ID", help="Leaks of this document only.")
@click.option("--reason", required=True, help="Why the leaks are tolerated; do not quote them.")
@click.option(
    "--until",
    required=True,
    metavar="DATE",
    help="The last day on which they are accepted, such as 2027-06-30.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="The file; unless given, the one that the run's gate names, or accepted.yaml beside RUN_DIR.",
)
@JSON
@for_people
def command(
    run_dir: Path,
    leaks: tuple[str, ...],
    kind: str | None,
    min_duplicates: int | None,
    document: str | None,
    reason: str,
    until: str,
    out: Path | None,
    as_json: bool,
) -> None:
    """Accept leaks of a run that are known and tolerated: the gate disregards them until a day.

    They stay in every count and on the page, marked as accepted. Of several conditions a leak must meet all.
    The file names leaks by keyed hashes; the key lies beside it, for its owner alone.
    """
    from kdaudit.pipelines.accept import EntryWords, LeakFilter, accept

    wanted = LeakFilter(_numbers(leaks), None if kind is None else _class(kind), min_duplicates, document)
    written = accept(run_dir, wanted, EntryWords(reason, until), out)
    say(json.dumps(_document(written)) if as_json else _told(written))


def _numbers(leaks: tuple[str, ...]) -> frozenset[int]:
    words = [word.strip() for text in leaks for word in text.split(",")]
    wrong = next((word for word in words if not (word.isascii() and word.isdigit() and len(word) < 19)), None)
    if wrong is not None:
        raise UsageError(
            f"{wrong[:40]!r} is not the number of an example",
            fix="take numbers from the report, as in --leak 3 or --leak 3,17",
            where="--leak",
        )
    return frozenset(map(int, words))


def _class(kind: str) -> LeakClass:
    from kdaudit.schemas.result import LeakClass

    names = get_args(LeakClass)
    if kind not in names:
        raise UsageError(
            f"{kind!r} is not a class of leaks", fix=f"choose {', '.join(names)}", where="--class"
        )
    return cast("LeakClass", kind)


def _document(written: AcceptResult) -> dict[str, object]:
    return {
        **written._asdict(),
        "file": str(written.file),
        "key": str(written.key),
    }


def _told(written: AcceptResult) -> str:
    lines = [f"{one_line(str(written.file))}: {written.added:,} added, {written.renewed:,} renewed"]
    if written.new_key:
        lines.append(
            f"new key of its hashes: {one_line(str(written.key))}; keep it out of shared repositories, and "
            "keep a copy: without it the hashes match nothing"
        )
    if written.tagged:
        shown = ", ".join(map(str, written.tagged[:_SHOWN]))
        more = f" and {len(written.tagged) - _SHOWN:,} more" if len(written.tagged) > _SHOWN else ""
        lines.append(
            f"check these again: by their form they seem to hold personal data or secrets: {shown}{more}"
        )
    lines.append(
        "run the audit again: only the last stages are repeated"
        if written.in_gate
        else f"to use it, set gate.accept to {one_line(str(written.file))} in audit.yaml, and run the audit "
        "again"
    )
    return "\n".join(lines)
