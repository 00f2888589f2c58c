"""Findings 1, 3 and 6 under other attacks: near-verbatim, sampled, membership.

    python attacks.py OUT            (after chance.py, whose audits it reads)

The paper counts what greedy decoding reproduces exactly. The same audits say what comes out nearly, what
sampling gives, and how well training examples are told from the holdout's. OUT then holds `ATTACKS.md` and
`attacks.json`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import click
from findings import BASELINE, HARD, SOFT, Audit, Form, Measure, as_json, measure_seeds, read_audit, table
from replicate import SEEDS

from kdaudit.schemas.attacks import EVEN, AttackInheritance

TEACHER = "teacher"
OWN_BASELINE = f"{BASELINE}-1"
"""The seed's own; an audit with several numbers them."""

Kind = Literal["exact", "near-verbatim", "sampled"]


def rate(audit: Audit, model: str, kind: Kind) -> float | None:
    """Share of examples that the attack exposes in a model.

    Sampled: with the most queries of the audit, as likely as not.
    """
    if kind == "exact":
        return audit.results.models[model].rate
    found = audit.results.attacks[model]
    if kind == "near-verbatim":
        return None if found.near_verbatim is None else found.near_verbatim.rate
    points = [] if found.sampled is None else [one for one in found.sampled.curve if one.p == EVEN]
    return max(points, key=lambda one: one.queries).rate if points else None


def ratio_to_baseline(audit: Audit, model: str, kind: Kind) -> float | None:
    """The model's rate over that of the seed's own baseline."""
    above, below = rate(audit, model, kind), rate(audit, OWN_BASELINE, kind)
    return None if above is None or not below else above / below


def inherited(audit: Audit, student: str, kind: Kind, key: str) -> float | None:
    """A figure of a student's inheritance under an attack other than exact extraction."""
    found = audit.results.attacks[student]
    attack = found.near_verbatim if kind == "near-verbatim" else found.sampled
    of: AttackInheritance | None = None if attack is None else attack.inheritance
    value: float | None = None if of is None else getattr(of, key)
    return value


def hard_minus_soft(audit: Audit, kind: Kind) -> float | None:
    """How much more of the teacher-specific examples hard inherits than soft, under an attack."""
    hard, soft = (inherited(audit, one, kind, "inheritance_rate") for one in (HARD, SOFT))
    return None if hard is None or soft is None else hard - soft


def membership(audit: Audit, model: str) -> float | None:
    """AUC of the score that tells members best."""
    found = audit.results.attacks[model].membership
    return None if found is None else found.best.auc


def blind(audit: Audit) -> float | None:
    """AUC of text alone, which saw no model."""
    found = audit.results.attacks[TEACHER].membership
    return None if found is None else found.blind_auc


_KINDS: tuple[Kind, ...] = ("exact", "near-verbatim", "sampled")
_MODELS = {TEACHER: TEACHER, OWN_BASELINE: BASELINE, SOFT: SOFT, HARD: HARD}


def _rates(kind: Kind) -> list[Measure]:
    each = [
        Measure(1, f"{kind}: {shown}", "", partial(rate, model=model, kind=kind), "percent")
        for model, shown in _MODELS.items()
    ]
    ratio = Measure(1, f"{kind}: soft / baseline", "", partial(ratio_to_baseline, model=SOFT, kind=kind))
    return [*each, ratio._replace(most=0.5)]


def _inheritance(finding: int, student: str, kind: Kind) -> list[Measure]:
    def row(what: str, key: str, form: Form = "percent") -> Measure:
        of = partial(inherited, student=student, kind=kind, key=key)
        return Measure(finding, f"{kind}: {what}", "", of, form)

    return [
        row("teacher-specific examples", "teacher_specific", "count"),
        row(f"inherited by {student}", "inheritance_rate"),
        row(f"the same of other baselines, for {student}", "inheritance_floor"),
        row(f"{student} beyond chance", "excess_inheritance"),
    ]


_OTHERS = _KINDS[1:]
MEASURES = [
    *(row for kind in _KINDS for row in _rates(kind)),
    *(
        Measure(1, f"membership: {shown}", "", partial(membership, model=model))
        for model, shown in _MODELS.items()
    ),
    Measure(1, "membership: text alone", "", blind),
    *(row for kind in _OTHERS for row in _inheritance(3, SOFT, kind)),
    *(row for kind in _OTHERS for row in _inheritance(6, HARD, kind)),
    *(
        Measure(6, f"{kind}: inherited, hard - soft", "", partial(hard_minus_soft, kind=kind), "percent")
        for kind in _OTHERS
    ),
]
"""Findings 1 and 6 keep the limits that they have for exact extraction."""


def under_attacks(out: Path, seeds: Sequence[int]) -> str:
    """Write the table of the audits that chance.py made.

    Raises:
        OSError: one of them is missing.
        ValueError: one is not as this version writes it.

    """
    audits = [read_audit(out / f"seed-{seed}" / "chance") for seed in seeds]
    rows = measure_seeds(audits, MEASURES)
    made = table(rows, seeds)
    (out / "ATTACKS.md").write_text(made)
    (out / "attacks.json").write_text(as_json(rows, seeds))
    return made


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--seed", "seeds", type=int, multiple=True, default=SEEDS, show_default=True)
def main(out: Path, seeds: tuple[int, ...]) -> None:
    """Set findings 1, 3 and 6 of the family in OUT beside what other attacks find."""
    try:
        made = under_attacks(out, seeds)
    except (OSError, ValueError) as error:
        click.echo(f"attacks: {error}; run chance.py first", err=True)
        sys.exit(2)
    click.echo(made, nl=False)


if __name__ == "__main__":
    main()
