"""Two runs' outcomes on the same examples: paired rates, what their interval excludes, what could be seen.

All arrays stand for the same examples in the same order: bool (examples,).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kdaudit.analysis.by_document import Documents
from kdaudit.analysis.intervals import (
    Flags,
    PairedTable,
    clopper_pearson,
    mcnemar_exact,
    newcombe_paired_difference,
)
from kdaudit.schemas.compared import PairedRates

SIGNIFICANT = 0.05
"""A test whose p-value is below it shows a difference."""
FEWEST_CHANGES = 6
"""Examples that must change, all one way, before exact McNemar reaches 0.05: 2 / 2**6 = 0.03."""


def paired_rates(old: Flags, new: Flags, documents: Documents) -> PairedRates:
    """Both rates and their difference, new minus old; `holm_p` is the unadjusted one until `with_holm`."""
    table = PairedTable.of(new, old)
    total, p = table.total, mcnemar_exact(table)
    return PairedRates(
        examples=total,
        old=table.second,
        new=table.first,
        both=table.both,
        old_only=table.second_only,
        new_only=table.first_only,
        old_rate=table.second / total,
        new_rate=table.first / total,
        difference=(table.first - table.second) / total,
        difference_ci95=newcombe_paired_difference(table),
        difference_ci95_by_document=documents.difference(new, [old]),
        appeared_ci95=clopper_pearson(table.first_only, total),
        appeared_ci95_by_document=documents.rate(new & ~old),
        mcnemar_p=p,
        holm_p=p,
        detectable=FEWEST_CHANGES / total if total >= FEWEST_CHANGES else None,
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values that hold together (Holm 1979, Scand J Stat 6:65), in their order."""
    order = np.argsort(np.asarray(p_values), kind="stable")
    scaled = np.asarray(p_values)[order] * np.arange(len(p_values), 0, -1)
    adjusted = np.minimum(np.maximum.accumulate(scaled), 1.0)
    found = np.empty(len(p_values))
    found[order] = adjusted
    return [float(one) for one in found]


def with_holm(rates: Mapping[tuple[str, str], PairedRates]) -> dict[tuple[str, str], PairedRates]:
    """The same with `holm_p` over all of them."""
    adjusted = holm([one.mcnemar_p for one in rates.values()])
    return {
        key: one.model_copy(update={"holm_p": p})
        for (key, one), p in zip(rates.items(), adjusted, strict=True)
    }
