"""Near-verbatim extraction: a target is exposed if greedy decoding reproduces it but for a few tokens.

The edit distance is Levenshtein's in tokens, between the target and the greedy continuation of as many
tokens, and may be a share of the target's length. Exact reproduction is distance 0, so what greedy extraction
exposes is exposed here too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from kdaudit.attacks.base import Flags
from kdaudit.attacks.greedy import GREEDY
from kdaudit.inference import Ability, Batch, Engine, Lengths
from kdaudit.inference.edits import TOO_FAR

_ROUNDING = 1e-9
"""A share such as 0.1 of 50 tokens is 5, however it is rounded."""


@dataclass(frozen=True)
class NearVerbatim:
    """See `Attack`."""

    max_edit_distance: float
    """Edits over the target's tokens, at most."""

    name: ClassVar[str] = "near_verbatim"
    columns: ClassVar[pa.Schema] = pa.schema([("example_id", pa.int64()), ("edit_distance", pa.int16())])
    """Null where the distance is above the limit: then it is not known."""
    needs: ClassVar[frozenset[Ability]] = frozenset({"match_nearly"})

    def run(self, engine: Engine, examples: Batch) -> pa.Table:
        """See `Attack.run`."""
        found = engine.match_nearly(examples.prompts, examples.targets, self.limits(examples.targets.lengths))
        return self.rows(examples.example_ids, found.distance)

    def rows(self, example_ids: Lengths, distances: np.ndarray) -> pa.Table:
        """Rows from distances that are known, or `TOO_FAR`: int64 and int16 (examples,)."""
        known = pa.array(distances, pa.int16(), mask=distances == TOO_FAR)
        return pa.table([example_ids, known], schema=self.columns)

    def limits(self, lengths: Lengths) -> Lengths:
        """Most edits of targets of so many tokens: int64 (examples,)."""
        limits: Lengths = np.floor(lengths * self.max_edit_distance + _ROUNDING).astype(np.int64)
        return limits

    def exposed(self, rows: pa.Table) -> Flags:
        """See `Attack.exposed`."""
        flags: Flags = rows["edit_distance"].is_valid().to_numpy()
        return flags


@dataclass(frozen=True)
class GreedyAndNear:
    """Both attacks from one decoding, which goes on past a first difference as far as the limit allows."""

    max_edit_distance: float

    def run(self, engine: Engine, examples: Batch) -> pa.Table:
        """The columns of both: one row an example, in their order."""
        near, lengths = NearVerbatim(self.max_edit_distance), examples.targets.lengths
        found = engine.match_nearly(examples.prompts, examples.targets, near.limits(lengths))
        rows = near.rows(examples.example_ids, found.distance)
        exact = GREEDY.rows(examples.example_ids, found.matched, lengths)
        for name in exact.column_names[1:]:
            rows = rows.append_column(exact.schema.field(name), exact[name])
        return rows
