"""Exact greedy extraction: a target is exposed if greedy decoding from its prompt reproduces all of it.

A model with a tokenizer of its own is compared by text (`GreedyText`): it exposes a target if the text of its
greedy continuation begins with the target's text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from kdaudit.attacks.base import Flags
from kdaudit.inference import Ability, Batch, Engine, Lengths, MatchedTokens, Ragged


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


@dataclass(frozen=True)
class GreedyText:
    """`Greedy` by text, a task of a worker: targets are bytes."""

    needs: ClassVar[frozenset[Ability]] = frozenset({"match_text"})

    def run(self, engine: Engine, examples: Batch) -> pa.Table:
        """Matched bytes of each target, and how many it has."""
        matched = engine.match_text(examples.prompts, examples.targets)
        columns = {"example_id": examples.example_ids, "matched": matched, "whole": examples.targets.lengths}
        return pa.table(columns)


def in_tokens(rows: pa.Table, sizes: Ragged) -> pa.Table:
    """What `GreedyText` found, in the columns of `Greedy`.

    Matched tokens are those of the tokenizer that cut the targets whose text is reproduced whole. Where the
    model's tokenizer writes a target in fewer or more bytes (a normalizer), a token's share of them is that
    of its own bytes.

    Args:
        rows: of `GreedyText`.
        sizes: bytes of each of a target's tokens.

    """
    matched, whole = (rows[name].to_numpy().astype(np.int64) for name in ("matched", "whole"))
    counts = [
        int((np.cumsum(size, dtype=np.int64) * all_bytes <= found * int(size.sum(dtype=np.int64))).sum())
        for size, found, all_bytes in zip(sizes, matched.tolist(), whole.tolist(), strict=True)
    ]
    tokens = np.array(counts, dtype=np.int16)
    return pa.table([rows["example_id"], tokens, matched == whole], schema=Greedy.columns)


GREEDY, GREEDY_TEXT = Greedy(), GreedyText()
