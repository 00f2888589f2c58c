"""Baselines that memorize unlike many examples: one of them is no measure of what chance gives the others.

What another training regains of an example is chance where it was trained as the baselines were, with another
seed. A baseline that was trained less, or is broken, regains less: then any student seems to inherit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kdaudit.analysis.intervals import Flags, PairedTable, mcnemar_exact
from kdaudit.schemas.notes import Note

_LEAST_SHARE = 0.5
"""Of the highest count: seeds alone do not make so much difference."""
_SIGNIFICANT = 0.01


def unlike_notes(baselines: Mapping[str, Flags]) -> list[Note]:
    """A note where the baselines' counts are too far apart for seeds to explain.

    Args:
        baselines: which examples each memorizes, by its name: bool (examples,).

    """
    counts = {name: int(np.count_nonzero(flags)) for name, flags in baselines.items()}
    if len(counts) < 2:
        return []
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    p = mcnemar_exact(PairedTable.of(baselines[least], baselines[most]))
    if counts[least] >= _LEAST_SHARE * counts[most] or p >= _SIGNIFICANT:
        return []
    text = (
        f"The baselines memorize unlike many examples: {least} {counts[least]:,} and {most} "
        f"{counts[most]:,}. What chance gives is measured by baselines that were trained alike, with other "
        "seeds. One that was trained less regains less, and students seem to inherit more than chance gives."
    )
    return [Note(code="baselines_unlike", subject="baseline", text=text)]
