"""What an attack is: a way to get training text out of a model, and what counts as exposed under it."""

from __future__ import annotations

from typing import ClassVar, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from kdaudit.inference import Ability, Batch, Engine

Flags = NDArray[np.bool_]


class Attack(Protocol):
    """An attack; a frozen dataclass whose fields are its settings, so that a worker can make it again."""

    name: ClassVar[str]
    columns: ClassVar[pa.Schema]
    """What it writes, one row an example; the first column is `example_id`."""
    needs: ClassVar[frozenset[Ability]]
    """What it asks of an engine."""

    def run(self, engine: Engine, examples: Batch) -> pa.Table:
        """Attack a loaded model: a table of `columns`, in the order of the examples. Runs in the worker."""
        ...

    def exposed(self, rows: pa.Table) -> Flags:
        """Which rows are exposed, the only definition of "memorized" under this attack: bool (rows,).

        Rows that were read back may lack `example_id`.
        """
        ...
