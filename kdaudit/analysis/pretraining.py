"""What the untouched base model completes too: a student may know it from pre-training, not this corpus.

A base model that was never trained on the corpus and still reproduces a suffix has met the text before, or
the text is so regular that any such model continues it. Neither is memorization of this corpus.
"""

from __future__ import annotations

from collections.abc import Sequence

from kdaudit.analysis.inheritance import classes
from kdaudit.analysis.intervals import Flags
from kdaudit.schemas.comparison import AlsoBase

NO_BASE = (
    "What the models knew before they were trained on this corpus is not known: that takes models.base, the "
    "untouched model that baseline and students started from. Models that started from random weights have "
    "none."
)
"""A note for results.json."""


def also_base(student: Flags, teacher: Flags | None, baselines: Sequence[Flags], base: Flags) -> AlsoBase:
    """Count what the base model memorizes of the examples that a student does.

    Args:
        student: which examples it memorizes: bool (examples,), as the others.
        teacher: of its teacher.
        baselines: of the baselines; without teacher or baseline the classes of what is memorized are unknown.
        base: of the untouched model that student and baselines started from.

    """
    known, told = classes(student & base, teacher, baselines).classes, bool(baselines) and teacher is not None
    return AlsoBase(
        memorized=len(known),
        easy_core=known.count("easy_core") if told else None,
        inherited=known.count("inherited") if told else None,
    )
