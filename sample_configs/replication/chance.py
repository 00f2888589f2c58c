"""Findings 3 and 6 against chance: each seed's audit again, with the baselines of all seeds.

    python chance.py OUT             (after replicate.py has made OUT)

One baseline tells what one training without the teacher memorizes. What the teacher memorizes and that
baseline does not, another baseline memorizes in part too, and so does a student, teacher or not. So each
seed's models are audited once more beside the baselines of all seeds. OUT/seed-N then holds `chance/`, that
audit, and OUT

    CHANCE.md, chance.json     findings 3 and 6 in what goes beyond chance
    chance/                    `kdaudit report` of these audits: figures over the seeds
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click
from findings import HARD, SOFT, Audit, Form, Measure, as_json, measure_seeds, read_audit, table
from replicate import SEEDS, kdaudit, later_steps

from kdaudit.errors import KdauditError
from kdaudit.pipelines.trainings import report_trainings
from kdaudit.runs.files import write_bytes


def of_student(audit: Audit, student: str, key: str) -> float | None:
    """A figure of a student's comparison; None where the audit has none."""
    found: float | None = getattr(audit.results.comparison[student], key)
    return found


def beyond_chance(audit: Audit) -> float | None:
    """Hard's inheritance beyond chance minus soft's."""
    pair = audit.results.soft_vs_hard
    return None if pair is None else pair.excess_difference


def _measures(finding: int, student: str, least: float | None, most: float | None) -> list[Measure]:
    def row(what: str, key: str, form: Form = "percent") -> Measure:
        return Measure(finding, what, "", partial(of_student, student=student, key=key), form)

    return [
        row(f"inherited by {student}, against one baseline", "reference_inheritance"),
        row(f"the same of other baselines, for {student}", "inheritance_floor"),
        row(f"{student} beyond chance", "excess_inheritance")._replace(least=least, most=most),
        row(f"{student} / chance", "ratio_to_floor", "number"),
        row(f"{student} beyond chance, at its own rate", "excess_at_own_rate"),
    ]


MEASURES = [
    *_measures(3, SOFT, least=None, most=0.05),
    *_measures(6, HARD, least=0.0, most=None),
    Measure(6, "beyond chance, hard - soft", "above 0", beyond_chance, "percent", least=0.0),
]
"""The limits are those that findings 3 and 6 have without chance."""


def against_chance(out: Path, seeds: Sequence[int]) -> str:
    """Audit what was not yet audited, and write the table.

    Raises:
        KdauditError: `out` is not what replicate.py made, or an audit failed.

    """
    steps = later_steps(out, "chance-steps.json")
    for seed in seeds:
        steps.do(f"seed {seed}: audit with all baselines", audit, out, seed, seeds)
    runs = [out / f"seed-{seed}" / "chance" for seed in seeds]
    rows = measure_seeds([read_audit(run) for run in runs], MEASURES)
    made = table(rows, seeds)
    write_bytes(out / "CHANCE.md", made.encode(), private=False)
    write_bytes(out / "chance.json", as_json(rows, seeds).encode(), private=False)
    if len(runs) > 1:
        report_trainings(runs, out / "chance")
    return made


def audit(out: Path, seed: int, seeds: Sequence[int]) -> None:
    """Audit a seed's models beside its own baseline and those of the other seeds, in this order."""
    own = sorted(seeds, key=lambda other: other != seed)
    baselines = [str((out / f"seed-{one}" / f"seed-{one}" / "baseline").resolve()) for one in own]
    folder = out / f"seed-{seed}"
    kdaudit(
        "run",
        folder / f"seed-{seed}" / "audit.yaml",
        folder / "chance",
        f"models.baseline={json.dumps(baselines)}",
        "predictor.enabled=false",
    )


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seed", "seeds", type=int, multiple=True, default=SEEDS, show_default=True)
def main(out: Path, seeds: tuple[int, ...]) -> None:
    """Set findings 3 and 6 of the family that replicate.py made in OUT against chance."""
    try:
        made = against_chance(out, seeds)
    except KdauditError as error:
        click.echo(f"chance: {error}", err=True)
        sys.exit(error.exit_code)
    click.echo(made, nl=False)


if __name__ == "__main__":
    main()
