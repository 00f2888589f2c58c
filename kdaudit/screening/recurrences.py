"""Where the suffixes of flagged examples stand besides, at any offset of any document.

A window that is cut out leaves the same text where it is cut otherwise: behind another prefix, across the
bounds of two windows, in a document too short for one. A model learns it there as well.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kdaudit.attacks.examples import examples_of
from kdaudit.inference import Ragged, Split
from kdaudit.risk.suffix_copies import SuffixFinder
from kdaudit.runs.examples import read_examples
from kdaudit.runs.store import RunStore


class Recurrence(NamedTuple):
    """One occurrence, in tokens of its document."""

    start: int
    end: int
    flagged: bool
    """Whether an example with this suffix is flagged."""
    level: int
    """The lowest level of those examples; -1 if none has one."""


class Recurrences:
    """Finds the suffixes of some examples.

    Args:
        suffixes: of the examples.
        flagged: whether each is flagged: bool (examples,).
        levels: of each, -1 for none: int8 (examples,).

    """

    def __init__(self, suffixes: Ragged, flagged: NDArray[np.bool_], levels: NDArray[np.int8]) -> None:
        self._finder = SuffixFinder(suffixes)
        number = self._finder.number_of
        self._flagged = np.zeros(self._finder.distinct, np.bool_)
        self._flagged[number[flagged]] = True
        highest = np.int8(np.iinfo(np.int8).max)
        lowest = np.full(self._finder.distinct, highest)
        np.minimum.at(lowest, number, np.where(levels < 0, highest, levels))
        self._levels = np.where(lowest == highest, -1, lowest)

    def find(self, tokens: NDArray[np.int32]) -> list[Recurrence]:
        """Those in a document, by ascending start."""
        found = self._finder.find(tokens)
        return [
            Recurrence(start, end, bool(self._flagged[which]), int(self._levels[which]))
            for start, end, which in zip(*(part.tolist() for part in found), strict=True)
        ]


def recurrences_of(
    run: RunStore,
    examples: str,
    flagged: NDArray[np.bool_],
    levels: NDArray[np.int8] | None,
    usual: Split,
) -> Recurrences:
    """Of the examples that are flagged or have a level.

    Args:
        run: the run.
        examples: folder of the examples' shards.
        flagged: bool (examples,).
        levels: int8 (examples,), -1 for none; None where there are none.
        usual: where examples are cut that do not say so.

    """
    level = np.full(len(flagged), -1, np.int8) if levels is None else levels
    wanted = np.flatnonzero(flagged | (level >= 0))
    suffixes = (examples_of(table, usual).targets for table in read_examples(run, examples, wanted))
    rows = Ragged.of(row for part in suffixes for row in part)
    return Recurrences(rows, flagged[wanted], level[wanted])
