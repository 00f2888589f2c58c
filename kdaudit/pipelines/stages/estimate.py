"""How long the models of a run will take, told once the first shard of one of them is done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kdaudit.runs import Progress

_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_WORTH_TELLING = 60.0
"""Seconds below which nobody plans by an estimate."""


def duration(seconds: float) -> str:
    """A time to come, in the unit that suits it."""
    for unit, word in ((_DAY, "days"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= (2 * unit if unit > _MINUTE else unit):
            return f"about {seconds / unit:.0f} {word}"
    return "less than a minute"


def estimating(
    progress: Progress,
    what: str,
    costs: Sequence[float],
    clock: Callable[[], float] | None = None,
) -> Progress:
    """Progress that also says, after the first step, how long this model and those after it will take.

    Args:
        progress: told of every step, and of the estimate as of a work that begins.
        what: the work in words, as in `extraction of 1,000 examples`.
        costs: what an example costs in each model, this one first, in any unit: their parameters.
        clock: gives seconds; the system's unless given.

    """
    now = clock or time.monotonic
    began: list[tuple[float, int]] = []
    told: list[str] = []

    def step(name: str, done: int, total: int) -> None:
        progress(name, done, total)
        if not began:
            began.append((now(), done))
        elif not told and done > began[0][1]:
            pace = (now() - began[0][0]) / (done - began[0][1])
            seconds = pace * (total - done) + pace * total * sum(costs[1:]) / max(costs[0], 1)
            models = f"{len(costs)} models" if len(costs) > 1 else "one model"
            told.append(f"{what} by {models}: {duration(seconds)}, by the pace of the first shard")
            if seconds >= _WORTH_TELLING:
                progress(told[0], 0, 0)

    return step
