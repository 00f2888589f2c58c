"""Exact greedy extraction: a target is exposed if greedy decoding from its prompt reproduces all of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from kdaudit.attacks.base import Flags
from kdaudit.inference import Ability, Batch, Engine, Lengths, MatchedTokens


@dataclass(frozen=True)
class Greedy:
    """See `Attack`; it has no settings."""

    name: ClassVar[str] = "greedy"
    columns: ClassVar[pa.Schema] = pa.schema(
        [("example_id", pa.int64()), ("matched_tokens", pa.int16()), ("memorized", pa.bool_())]
    )
    needs: ClassVar[frozenset[Ability]] = frozenset({"match"})

    def run(self, engine: Engine, examples: Batch) -> pa.Table:
        """See `Attack.run`."""
        matched = engine.match(examples.prompts, examples.targets)
        return self.rows(examples.example_ids, matched, examples.targets.lengths)

    def rows(self, example_ids: Lengths, matched: MatchedTokens, lengths: Lengths) -> pa.Table:
        """Rows from matched tokens that are known.

        Args:
            example_ids: int64 (examples,).
            matched: int16 (examples,).
            lengths: tokens of each target: int64 (examples,).

        """
        return pa.table([example_ids, matched, matched == lengths], schema=self.columns)

    def exposed(self, rows: pa.Table) -> Flags:
        """See `Attack.exposed`."""
        flags: Flags = rows["memorized"].to_numpy()
        return flags


GREEDY = Greedy()
