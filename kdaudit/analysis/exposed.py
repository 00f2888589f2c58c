"""What a student inherits of all that an attack exposes: the comparison of exact extraction, of other flags.

An example is specific to the teacher under an attack when the attack exposes it in the teacher and in no
baseline, and inherited when it exposes it in the student too.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import numpy as np

from kdaudit.analysis.by_document import Documents
from kdaudit.analysis.excess import NO_EXCESS, excess_over_chance
from kdaudit.analysis.intervals import Flags, clopper_pearson
from kdaudit.schemas.attacks import AttackInheritance


def inherited_under_attack(
    student: Flags, teacher: Flags, baselines: Sequence[Flags], documents: Documents
) -> AttackInheritance:
    """What a student inherits under an attack, and what chance gives; that takes two baselines.

    Args:
        student: which examples the attack exposes in it: bool (examples,).
        teacher: the same of the teacher.
        baselines: the same of at least one baseline.
        documents: of the examples.

    """
    specific = teacher & ~reduce(np.logical_or, baselines)
    total, inherited = int(np.count_nonzero(specific)), int(np.count_nonzero(student & specific))
    chance = excess_over_chance(student, teacher, baselines, documents) if len(baselines) > 1 else NO_EXCESS
    return AttackInheritance(
        teacher_specific=total,
        inherited=inherited,
        inheritance_rate=inherited / total if total else None,
        inheritance_ci95=clopper_pearson(inherited, total) if total else None,
        inheritance_ci95_by_document=documents.within(specific).rate(student[specific]) if total else None,
        inheritance_floor=chance.floor,
        excess_inheritance=chance.difference,
        excess_ci95=chance.difference_ci95,
    )
